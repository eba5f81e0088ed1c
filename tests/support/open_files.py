"""Which files this process has open."""

from __future__ import annotations

from pathlib import Path


def open_files(folder: Path) -> list[str]:
    """List the files below a folder that this process has open."""
    return [path for link in Path("/proc/self/fd").iterdir() if (path := _target(link)).startswith(str(folder))]


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""
