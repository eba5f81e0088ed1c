"""Numbered lines of a byte stream, each of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from gateway.importing.errors import InputError

RECORD_MAX_BYTES = 2 * 1024 * 1024
"""No record within the gallery's limits is longer, every character written as an escape."""

_SKIP_BYTES = 256 * 1024


def read_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield every line with its number, from 1, its line ending included.

    A line of more than `RECORD_MAX_BYTES` is yielded as None and passed over without being held in memory. A
    UTF-8 byte order mark at the start is taken off. Raises `InputError` at the byte order mark of UTF-16 or
    UTF-32.
    """
    number = 0
    while line := stream.readline(RECORD_MAX_BYTES + 1):
        number += 1
        if number == 1:
            line = _without_mark(line)
        if len(line) > RECORD_MAX_BYTES:
            while line and not line.endswith(b"\n"):
                line = stream.readline(_SKIP_BYTES)
            yield number, None
        else:
            yield number, line


def _without_mark(line: bytes) -> bytes:
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError("The input is UTF-16 text, not UTF-8.", hint="Save it as UTF-8.")
    return line.removeprefix(b"\xef\xbb\xbf")


def where_undecodable(line: bytes) -> str | None:
    """Say where ``line`` ceases to be UTF-8; None if it is UTF-8 to its end."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8: byte 0x{line[error.start]:02x} at position {error.start + 1}"
    return None
