"""`tidepool status`: what there is, and whether it is well."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import click

from gateway.cli.environment import primary_of, read_settings, run
from gateway.cli.failures import FAILED
from gateway.settings import Settings
from primary.errors import PrimaryUnavailable

if TYPE_CHECKING:
    from primary.cursor import Cursor
    from replica.location import Location

Section = dict[str, Any]

_PRIMARY = "SELECT current_setting('server_version'), pg_database_size(current_database())"
_HEADS = "SELECT user_id, version FROM tidepool.head"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(as_json: bool) -> None:
    """Show the primary, its migrations and the replicas.

    Exits 1 if the primary is away, migrations are pending, or a replica cannot be read.
    """
    settings = read_settings()
    primary, heads = run(_look_at_primary(settings))
    replicas = _look_at_replicas(settings.data_dir, heads)
    found = {
        "data_directory": _look_at_directory(settings.data_dir),
        "primary": primary,
        "replicas": replicas,
    }
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _show(found)
    well = primary["reachable"] and primary["migrations"] == "current" and not replicas["unreadable"]
    raise SystemExit(0 if well else FAILED)


async def _look_at_primary(settings: Settings) -> tuple[Section, dict[str, int]]:
    from primary.gallery.tables import catalog
    from primary.migrate import pending

    found: Section = {"embedded": settings.database_url is None, "reachable": False, "migrations": "unknown"}
    heads: dict[str, int] = {}
    try:
        async with primary_of(settings) as primary:
            steps = await pending(primary, catalog)
            async with primary.connection() as connection:
                row = await (await connection.execute(_PRIMARY)).fetchone()
                assert row is not None
                found |= {"reachable": True, "version": row[0], "bytes": row[1]}
                found["migrations"] = f"{len(steps)} pending, run: tidepool migrate" if steps else "current"
                if not steps:
                    heads = {user: version async for user, version in await connection.execute(_HEADS)}
                    found["users"] = len(heads)
    except PrimaryUnavailable as error:
        found["error"] = str(error)
    return found, heads


def _look_at_directory(data_dir: Path) -> Section:
    from replica.location import DataDirectory

    return {"path": str(data_dir.absolute()), "used_by_process": _owner(DataDirectory(data_dir).lock)}


def _owner(lock: Path) -> int | None:
    """Tell which process serves from the data directory, None if none does."""
    try:
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read().strip() or 0)
    except FileNotFoundError:
        pass
    return None


def _look_at_replicas(data_dir: Path, heads: dict[str, int]) -> Section:
    """Count the replicas, and those that have not seen all that their user's head in ``heads`` has."""
    from replica.location import DataDirectory

    directory = DataDirectory(data_dir)
    found = {"count": 0, "bytes": 0, "behind": 0, "unreadable": 0}
    for location in directory.all():
        found["count"] += 1
        try:
            found["bytes"] += sum(path.stat().st_size for path in (location.database, location.wal) if path.exists())
            user, cursor = _state(location)
            found["behind"] += cursor.version < heads.get(user, 0)
        except (apsw.Error, OSError, ValueError):
            found["unreadable"] += 1
    quarantined = directory.quarantine.iterdir() if directory.quarantine.exists() else ()
    return found | {"set_aside": sum(path.suffix == ".db" for path in quarantined)}


def _state(location: Location) -> tuple[str, Cursor]:
    from replica.errors import Doubt
    from replica.library import connect
    from replica.state import State

    # A file with a log is perhaps in use, and what counts is in the log; without one it can be read as it
    # lies.
    how = "mode=ro" if location.wal.exists() and location.wal.stat().st_size else "immutable=1"
    connection = connect(f"{location.database.absolute().as_uri()}?{how}")
    try:
        state = State.read(connection)
    except Doubt as doubt:
        raise ValueError(doubt.reason) from doubt
    finally:
        connection.close()
    return state.user, state.cursor


def _show(found: dict[str, Section]) -> None:
    directory, primary, replicas = found["data_directory"], found["primary"], found["replicas"]
    process = directory["used_by_process"]
    state = f"Postgres {primary['version']}, {_size(primary['bytes'])}" if primary["reachable"] else primary["error"]
    lines = {
        "data directory": directory["path"],
        "server": f"running, process {process}" if process else "not running",
        "primary": f"{'embedded ' if primary['embedded'] else ''}{state}",
        "migrations": primary["migrations"],
        "users": f"{primary['users']:,}" if "users" in primary else "unknown",
        "replicas": f"{replicas['count']:,}, {_size(replicas['bytes'])}, {replicas['behind']:,} to be synced",
    }
    if replicas["unreadable"]:
        lines["replicas"] += f", {replicas['unreadable']:,} unreadable"
    if replicas["set_aside"]:
        lines["replicas"] += f", {replicas['set_aside']:,} set aside"
    for name, text in lines.items():
        click.echo(f"{name:<16}{text}")


def _size(count: int) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024  # type: ignore[assignment]
    return f"{count:.1f} GiB"
