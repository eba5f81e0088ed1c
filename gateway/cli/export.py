"""`tidepool export`: everything that a user owns, as a file."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from gateway.cli.environment import primary_of, read_settings, run
from gateway.cli.failures import INTERRUPTED, USAGE, Ended, Failure
from gateway.cli.user import USER
from gateway.cli.working_folder import working_folder
from gateway.settings import Settings

if TYPE_CHECKING:
    from primary.postgres import Primary
    from replica.export import Export, Format

STDOUT = "-"
PART_BYTES = 1 << 20


@click.command("export")
@click.argument("user", type=USER)
@click.option(
    "--format",
    "form",
    type=click.Choice(["sqlite", "ndjson", "csv"]),
    default="sqlite",
    show_default=True,
    help="An SQLite file; lines of JSON; a zip with a CSV file for each table.",
)
@click.option("--output", "-o", metavar="FILE", help="Where to, in the place of what is there; - is standard output.")
def export_command(user: str, form: str, output: str | None) -> None:
    """Export everything that USER owns.

    As of one version, which the file says. It is read from the primary and from no replica, so the server
    may run meanwhile or not. The file appears when it is whole; without --output it is named for the user
    and the version, in this folder.
    """
    from replica.export import FORMATS

    settings = read_settings()
    target = _Target.of(output)
    try:
        run(_export(settings, user, FORMATS[form], target))
    except (KeyboardInterrupt, Ended) as error:
        click.echo("tidepool: interrupted; no file was written.", err=True)
        raise SystemExit(error.exit_code if isinstance(error, Ended) else INTERRUPTED) from None
    except OSError as error:
        raise Failure(f"the export cannot be written: {error.strerror}.", "Name a file with --output.") from error


@dataclass(frozen=True, slots=True)
class _Target:
    """Where the file is to be: without a folder it is standard output, without a name it is given one."""

    folder: Path | None
    name: str | None

    @classmethod
    def of(cls, output: str | None) -> _Target:
        """Read the option. Raises `Failure`."""
        if output == STDOUT:
            return cls(None, None)
        if output is None:
            return cls(Path(), None)
        path = Path(output)
        if path.is_dir() or not path.parent.is_dir():
            raise Failure(f"{output} cannot be written.", "Name a file in a folder that is there.", exit_code=USAGE)
        if path.exists() and not path.is_file():  # it would be put in the place of a device or a pipe, and not into it
            raise Failure(f"{output} is no file.", "Name one, or - for standard output.", exit_code=USAGE)
        return cls(path.parent, path.name)

    async def put(self, whole: Export, user: str, form: Format, part: Path) -> str:
        """Have the file where it is to be, and give its name; ``part`` is on the same disk."""
        if self.folder is None:
            await _copy(whole.file, sys.stdout.buffer)
            return "standard output"
        name = self.name or _name_for(user, str(whole.version), form)
        path = self.folder / name
        if self.name is None and path.exists():
            raise Failure(f"{path} is there already.", "Name another file with --output.")
        with _opened_anew(part) as out:
            await _copy(whole.file, out)
            await asyncio.to_thread(os.fsync, out.fileno())
        await asyncio.to_thread(part.replace, path)
        return str(path)


async def _export(settings: Settings, user: str, form: Format, target: _Target) -> None:
    began = time.monotonic()
    async with primary_of(settings) as primary:
        # Beside the file, for a rename does not leave its disk.
        with working_folder(target.folder or Path(tempfile.gettempdir())) as folder:
            whole = await _whole(primary, user, form, folder)
            try:
                where = await target.put(whole, user, form, folder / "whole")
            finally:
                whole.close()
    told = f"exported: {whole.rows:,} rows at {whole.version} to {where}, in {time.monotonic() - began:.1f} s"
    click.echo(told, err=target.folder is None)
    if not whole.rows:
        click.echo("  There is nothing of this user in the primary; is the id spelled so?", err=True)


async def _whole(primary: Primary, user: str, form: Format, folder: Path) -> Export:
    from primary.errors import MigrationsPending
    from primary.gallery.tables import catalog
    from primary.migrate import pending
    from primary.postgres_feed import PostgresFeed
    from replica.export import export_from

    if await pending(primary, catalog):
        raise MigrationsPending
    own = folder / "made"
    own.mkdir()
    return await export_from(PostgresFeed(primary, catalog), catalog, user, form, own)


def _name_for(user: str, version: str, form: Format) -> str:
    """Name a file for a user, whose id may be any text."""
    shown = re.sub(r"[^\w.@-]", "_", user)[:60].strip(".") or "_"
    return f"tidepool-{shown}-{version}{form.suffix}"


def _opened_anew(path: Path) -> BinaryIO:
    """Open a file that only its owner may read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


async def _copy(source: BinaryIO, out: BinaryIO) -> None:
    while part := source.read(PART_BYTES):
        await asyncio.to_thread(out.write, part)
    await asyncio.to_thread(out.flush)
