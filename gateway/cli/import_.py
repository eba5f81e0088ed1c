"""`tidepool import`: images from elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

import click

from gateway.cli.environment import primary_of, read_settings, run
from gateway.cli.failures import FAILED, INTERRUPTED, USAGE, Ended, Failure
from gateway.cli.user import USER
from primary.gallery.limits import URL_MAX_CHARS

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from gateway.importing.batches import Batch
    from gateway.importing.records import Unknown
    from gateway.importing.saving import Tally
    from gateway.importing.source import Format, Source
    from gateway.settings import Settings
    from primary.gallery.images import Many

SHOWN_MAX = 20
"""Of the records that are left out; a file of the wrong format would fill the screen."""

SHOWN_MAX_CHARS = 500

_AGAIN = "Run the same command again to go on: what is there already is passed over."


def _prefix(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if len(value) >= URL_MAX_CHARS:
        raise click.BadParameter(f"it leaves no room in {URL_MAX_CHARS} characters.")
    return value


@click.command("import")
@click.argument("path", metavar="FILE_OR_FOLDER")
@click.option("--user", type=USER, required=True, help="Whose images they become.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["jsonl", "csv", "png"]),
    help="What FILE_OR_FOLDER is, where its name does not say it.",
)
@click.option(
    "--unknown",
    type=click.Choice(["error", "meta", "ignore"]),
    default="error",
    show_default=True,
    help="What fields that images do not have mean: leave the record out, keep them in `meta`, drop them.",
)
@click.option(
    "--url-prefix",
    default="",
    callback=_prefix,
    help="Put before each PNG file's path to make its image_url, such as https://cdn.example/pictures/.",
)
def import_command(path: str, user: str, format_: Format | None, unknown: Unknown, url_prefix: str) -> None:
    """Import images of one user from a file or a folder.

    \b
    .jsonl .ndjson  JSON Lines: one object a line; - reads the standard input
    .csv            CSV: a row that names the columns, then one row for each image
    a folder, .png  PNG files made by Automatic1111 or ComfyUI, in all its folders

    JSON and CSV have the fields of an image's JSON: prompt and image_url, and, where there are any,
    negative_prompt, model, seed, steps, width, height, source, persona_id, persona_name, alt_text,
    description, meta, created_at and id; or the same in camel case, imageUrl. An empty cell and null are no
    value. A time that does not tell its zone is UTC. In CSV, meta is JSON.

    PNG files tell prompts, model, seed and steps; other parameters are kept in meta. The file's time
    becomes created_at. image_url is the file's path within the folder, percent-encoded, behind
    --url-prefix; without one it is that path alone. Files are not copied.

    The same input twice changes nothing. A record without an id gets one made from the user and its
    content, equal records of one file each their own; equal PNG files are one image. So an import that was
    interrupted is gone on with by running it again, and a record that was edited in the file since is a new
    image unless it has an id.

    Records that cannot be imported are reported by their line or file, and left out.

    Exit codes: 0 all are imported; 1 some were left out, or it failed on the way; 2 nothing could be read,
    or wrong use; 130 interrupted.
    """  # noqa: D301  (\b keeps the lines of a paragraph apart in the help)
    from gateway.importing.errors import InputError
    from gateway.importing.saving import Tally
    from gateway.importing.source import opened

    settings = read_settings()
    tally = Tally()
    try:
        with (
            opened(path, format_, unknown=unknown, url_prefix=url_prefix) as source,
            _Display(source, tally) as display,
        ):
            run(_import(settings, user, source, unknown, display))
    except InputError as error:
        raise Failure(str(error), error.hint, exit_code=USAGE) from error
    except (KeyboardInterrupt, Ended) as error:
        click.echo(f"tidepool: interrupted; {_told(tally, user)}\n  {_AGAIN}", err=True)
        raise SystemExit(error.exit_code if isinstance(error, Ended) else INTERRUPTED) from None
    raise SystemExit(_conclude(tally, user, path))


async def _import(settings: Settings, user: str, source: Source, unknown: Unknown, display: _Display) -> None:
    from gateway.importing.records import Recorder
    from gateway.importing.saving import Import
    from primary.errors import MigrationsPending, PrimaryError
    from primary.gallery.images import import_many
    from primary.gallery.tables import catalog
    from primary.migrate import pending

    async with primary_of(settings) as primary:
        if await pending(primary, catalog):
            raise MigrationsPending

        async def save(images: Many) -> tuple[int, int]:
            return await import_many(primary, user, images)

        importing = Import(source, Recorder(user, unknown=unknown), save, display.tally)
        try:
            await importing.run(display.advance)
        except PrimaryError as error:
            raise Failure(f"{error}; {_told(display.tally, user)}", f"{error.hint}\n  {_AGAIN}") from error


class _Display:
    """What is shown on the way: on a terminal a bar, and everywhere the first records that were left out."""

    def __init__(self, source: Source, tally: Tally) -> None:
        self.tally = tally
        self._source = source
        self._shown = 0
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.fields[count]:,} records"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.start()
            self._task = self._progress.add_task("", total=self._source.size_bytes, count=0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance(self, batch: Batch) -> None:
        """Show that a batch is done with."""
        for refused in batch.refused[: SHOWN_MAX - self._shown]:
            self._print(_printable(f"left out: {refused}"))
            self._shown += 1
        if self._progress is not None and self._task is not None:
            completed = batch.read_bytes if self._source.size_bytes is not None else None
            self._progress.update(self._task, completed=completed, count=self.tally.read)

    def _print(self, line: str) -> None:
        if self._progress is not None:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(line, err=True)


def _conclude(tally: Tally, user: str, path: str) -> int:
    """Print what became of all records, and what to do next; give the exit code."""
    if tally.refused > SHOWN_MAX:
        click.echo(f"left out: {tally.refused - SHOWN_MAX:,} more", err=True)
    if tally.read == 0:
        raise Failure(f"{path} holds nothing to import.", exit_code=USAGE)
    if tally.read == tally.refused:
        raise Failure(f"{path}: none of its {tally.read:,} records can be imported.", exit_code=USAGE)
    click.echo(_told(tally, user))
    if tally.saved:
        click.echo("The next read of this user shows them.")
    if tally.refused:
        click.echo("Correct what was left out and import it again: what is there already is passed over.")
    return FAILED if tally.refused else 0


def _told(tally: Tally, user: str) -> str:
    parts = [f"{tally.saved:,} saved", f"{tally.present:,} were there already", f"{tally.refused:,} left out"]
    return f"{tally.read:,} records for {_printable(user)}: {', '.join(parts)}."


def _printable(text: str) -> str:
    """Give one line that a terminal shows as it is: what files say must not steer it."""
    shown = text if len(text) <= SHOWN_MAX_CHARS else text[: SHOWN_MAX_CHARS - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in shown)
