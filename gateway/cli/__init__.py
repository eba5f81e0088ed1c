"""The command line: `tidepool --help` lists the commands, of which each is a module."""

from gateway.cli.main import main

__all__ = ["main"]
