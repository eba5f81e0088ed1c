"""A folder of PNG files, or a single one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote_from_bytes

from gateway.importing import png_record
from gateway.importing.errors import InputError, RecordError
from gateway.importing.found import Found, Refused
from gateway.importing.png import read_png


def read_folder(folder: Path, *, url_prefix: str = "") -> Iterator[Found | Refused]:
    """Yield the record of every PNG file below ``folder``, in the order of their paths, or why there is none.

    A file is told by its name's ending; links to folders are not followed. See `read_file` for what a record
    has. Raises `InputError` if the folder itself cannot be listed.
    """
    for path in _files(folder, top=True):
        if isinstance(path, Refused):
            yield Refused(_shown(os.path.relpath(path.origin, folder)), path.faults)
        else:
            yield read_file(path, os.path.relpath(path, folder), url_prefix=url_prefix)


def read_file(path: Path, name: str, *, url_prefix: str = "") -> Found | Refused:
    """Read one PNG file, called ``name`` within its folder.

    Its ``image_url`` is ``url_prefix`` and the name, percent-encoded; ``created_at`` is when the file was
    last written. Equal files have equal ``content``, whatever they are called.
    """
    origin = _shown(name)
    try:
        # Only a plain file: to open a named pipe would wait for ever.
        if not path.is_file():
            return Refused.at(origin, "", "is not a file")
        with path.open("rb") as stream:
            png = read_png(stream, png_record.KEYWORDS)
            written = _time(os.fstat(stream.fileno()).st_mtime)
        values = png_record.values(png)
    except RecordError as error:
        return Refused.at(origin, error.field, error.reason)
    except OSError as error:
        return Refused.at(origin, "", f"cannot be read: {error.strerror or error}")
    values["image_url"] = url_prefix + quote_from_bytes(os.fsencode(name.replace(os.sep, "/")), safe="/")
    values["created_at"] = written
    return Found(origin, values, content=f"png:{png.sha256}")


def _time(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError):  # some disks keep any number of 64 bits
        raise RecordError("created_at", "the file's time is not of the years 1 to 9999") from None


def _files(folder: Path, *, top: bool = False) -> Iterator[Path | Refused]:
    """Walk depth first in the order of names, holding the names of one folder at each depth."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError as error:
        if top:
            raise InputError(f"{_shown(str(folder))} cannot be listed: {error.strerror}.") from None
        yield Refused.at(str(folder), "", f"cannot be listed: {error.strerror}")
        return
    for name, is_folder in listed:
        if is_folder:
            yield from _files(folder / name)
        elif name.lower().endswith(".png"):
            yield folder / name


def _shown(name: str) -> str:
    """Give a name that can be printed, of a file system that takes any bytes."""
    return os.fsencode(name).decode(errors="replace")
