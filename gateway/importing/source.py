"""What is imported: which format it has, and how far into it the reader is."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal, get_args

from gateway.importing.csv_rows import read_csv
from gateway.importing.errors import InputError
from gateway.importing.folder import read_file, read_folder
from gateway.importing.found import Found, Refused
from gateway.importing.jsonl import read_jsonl
from gateway.importing.records import DOCUMENTS, NUMBERS, Unknown, columns

Format = Literal["jsonl", "csv", "png"]
FORMATS: tuple[Format, ...] = get_args(Format)

_FORMAT_OF: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".png": "png"}
STDIN = "-"


@dataclass
class Source:
    """Records that are being read. ``size_bytes`` is None where it cannot be known: a pipe, a folder."""

    found: Iterator[Found | Refused]
    size_bytes: int | None = None
    _stream: BinaryIO | None = None

    def read_bytes(self) -> int:
        """Tell how much was read; 0 where ``size_bytes`` is None. To be called by the thread that reads."""
        return self._stream.tell() if self._stream and self.size_bytes is not None else 0


@contextmanager
def opened(path: str, format_: Format | None, *, unknown: Unknown = "error", url_prefix: str = "") -> Iterator[Source]:
    """Open a file, a folder, or the standard input, called ``-``.

    Without a format the name's ending says it; a folder is one of PNG files; the standard input is JSON
    Lines. Raises `InputError` if there is nothing to read or no telling how.
    """
    try:
        mode = None if path == STDIN else Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    is_folder = mode is not None and stat.S_ISDIR(mode)
    format_ = format_ or _format_of(path, is_folder)
    if is_folder and format_ != "png":
        raise InputError(f"{path} is a folder; {format_} is read from a file.")
    if path == STDIN and format_ == "png":
        raise InputError("PNG files are not read from the standard input.", hint="Name a file, or a folder of them.")
    if is_folder:
        yield Source(read_folder(Path(path), url_prefix=url_prefix))
    elif format_ == "png":
        yield Source(iter([read_file(Path(path), Path(path).name, url_prefix=url_prefix)]))
    else:
        read: Callable[[BinaryIO], Iterator[Found | Refused]] = read_jsonl
        if format_ == "csv":
            accept = partial(columns, unknown=unknown)
            read = partial(read_csv, columns=accept, numbers=NUMBERS, documents=DOCUMENTS)
        with _stream(path) as (stream, size_bytes):
            yield Source(read(stream), size_bytes, stream)


@contextmanager
def _stream(path: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """Open a file with its size, or a pipe, of which no size is known."""
    try:
        fd = 0 if path == STDIN else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        with open(fd, "rb", closefd=path != STDIN) as stream:
            yield stream, None if path == STDIN else status.st_size
    else:
        # Never closed, and not sys.stdin: a thread that waits in a pipe would hold up both the close and the end.
        yield open(fd, "rb", closefd=False), None  # noqa: SIM115


def _format_of(path: str, is_folder: bool) -> Format:
    if is_folder:
        return "png"
    if path == STDIN:
        return "jsonl"
    if found := _FORMAT_OF.get(Path(path).suffix.lower()):
        return found
    raise InputError(
        f"There is no telling the format of {path} by its name.",
        hint="Say which it is: --format jsonl, --format csv or --format png.",
    )
