"""The command line, run within the process of the tests."""

from __future__ import annotations

from unittest.mock import patch

import structlog
from click.testing import CliRunner, Result

from gateway.cli import main


def run_command(*arguments: str, **settings: str | None) -> Result:
    """Run a command with these settings, by their names in small letters; None takes one away."""
    environment = {f"TIDEPOOL_{name.upper()}": value for name, value in settings.items()}
    with patch("gateway.cli.main.configure_logs", _only_errors):
        try:
            return CliRunner().invoke(main, arguments, env=environment, catch_exceptions=False)
        finally:
            structlog.reset_defaults()


def _only_errors(*_: str) -> None:
    """Do what the command does to the logs in a process of its own, in a way that can be undone in this one."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
