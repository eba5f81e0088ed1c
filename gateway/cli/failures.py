"""How a command ends when something is wrong: a line that says what, one that says what to do, an exit code.

0  done, and all is well
1  it failed, or what was compared differs
2  the command, or a setting, is not as it may be
"""

from __future__ import annotations

import signal
from typing import IO, Any

import click

from gateway.settings import SettingsError

FAILED = 1
USAGE = 2
INTERRUPTED = 128 + signal.SIGINT  # as shells report it


class Failure(click.ClickException):
    """A command cannot do what it is there for."""

    def __init__(self, message: str, hint: str = "", *, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Print what was wrong, and what to do."""
        click.echo(f"tidepool: {self.message}", file=file, err=True)
        if self.hint:
            click.echo(f"  {self.hint}", file=file, err=True)


class Ended(Exception):
    """A signal ended the command before it was done."""

    def __init__(self, order: signal.Signals) -> None:
        super().__init__(f"ended by {order.name}.")
        self.exit_code = 128 + order


def failure_of(error: Exception) -> Failure | None:
    """Give what to tell of an error that an operator can do something about; None for a defect of ours.

    Every package's errors that are meant for an operator have a hint.
    """
    if isinstance(error, Ended):
        return Failure(str(error), exit_code=error.exit_code)
    if isinstance(error, SettingsError):
        return Failure("the settings cannot be used:\n" + _indented(error), exit_code=USAGE)
    if isinstance(error, PermissionError) and error.filename is not None:
        return Failure(f"{error.filename} cannot be used: {error.strerror}.", "Run this as the user who owns it.")
    hint = getattr(error, "hint", None)
    return Failure(str(error), hint) if isinstance(hint, str) else None


def _indented(error: SettingsError) -> str:
    return "\n".join(f"  {problem}" for problem in error.problems)
