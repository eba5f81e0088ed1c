"""Run the command line as `python -m gateway.cli`."""

from gateway.cli.main import main

main()
