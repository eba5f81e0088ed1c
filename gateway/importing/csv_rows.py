"""CSV (RFC 4180): a header row, then one record a row; UTF-8, with or without a byte order mark."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import BinaryIO

import msgspec

from gateway.importing.errors import InputError
from gateway.importing.found import Found, Refused
from gateway.importing.lines import RECORD_MAX_BYTES, read_lines, where_undecodable

_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")


class _TooLong(Exception):
    """The record at hand is longer than records may be."""


def read_csv(
    stream: BinaryIO,
    *,
    columns: Callable[[Sequence[str]], Sequence[str]],
    numbers: Collection[str],
    documents: Collection[str],
) -> Iterator[Found | Refused]:
    """Yield every row as a record, or why it is none, each with the number of its first line.

    ``columns`` is given the header and returns the names of the fields, or raises `InputError`. An empty
    cell is no value. Cells of the fields ``numbers`` are read as whole numbers, those of ``documents`` as
    JSON; all others are text as it stands. Blank lines are passed over. A row whose quoting is broken is
    refused, and reading goes on behind it. Raises `InputError` if there is no usable header or the stream is
    in another encoding.
    """
    lines = _Lines(stream)
    # Strict, so that broken quoting is refused rather than read as something else. A cell may be as long as
    # the module's own bound, 131,072 characters, which is above the gallery's; a quote left open runs into
    # it.
    rows = csv.reader(lines, strict=True)
    names = columns(_header(rows, lines))
    while True:
        lines.begin()
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Refused.at(lines.origin, "", _broken(str(error), lines))
            continue
        except _TooLong:
            yield Refused.at(lines.origin, "", f"is longer than {RECORD_MAX_BYTES} bytes")
            continue
        if lines.undecodable:
            yield Refused.at(lines.origin, "", lines.undecodable)
        elif row and len(row) != len(names):
            reason = f"has {_counted(len(row))} where the header has {_counted(len(names))}"
            yield Refused.at(lines.origin, "", reason)
        elif row:
            yield _record(lines.origin, names, row, numbers, documents)


def _header(rows: Iterator[list[str]], lines: _Lines) -> list[str]:
    try:
        header = next((row for row in rows if row), None)
    except csv.Error as error:
        raise InputError(f"The header row cannot be read: {error}.") from None
    except _TooLong:
        raise InputError(f"The header row is longer than {RECORD_MAX_BYTES} bytes.") from None
    if header is None:
        raise InputError("The input is empty.", hint="A CSV file begins with a row that names its columns.")
    if lines.undecodable:
        raise InputError(f"The header row {lines.undecodable}.", hint="Save the file as UTF-8.")
    return [name.strip() for name in header]


def _record(
    origin: str, names: Sequence[str], row: list[str], numbers: Collection[str], documents: Collection[str]
) -> Found | Refused:
    values: dict[str, object] = {}
    for name, cell in zip(names, row, strict=True):
        if not cell:
            continue
        if name in numbers:
            if not _WHOLE.fullmatch(cell):
                return Refused.at(origin, name, f"{_short(cell)} is not a whole number")
            values[name] = int(cell)
        elif name in documents:
            try:
                values[name] = msgspec.json.decode(cell)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                return Refused.at(origin, name, f"is not JSON: {error}")
        else:
            values[name] = cell
    return Found(origin, values)


def _broken(error: str, lines: _Lines) -> str:
    if "unexpected end" in error or "field limit" in error:
        return f"a quote is opened and not closed; passed over to line {lines.number}"
    return f"is not CSV: {error}"


def _counted(columns: int) -> str:
    return "1 column" if columns == 1 else f"{columns} columns"


def _short(text: str) -> str:
    return repr(text) if len(text) <= 40 else repr(text[:37] + "...")


class _Lines:
    """Lines of text for the CSV reader, keeping account of the record that they belong to.

    Bytes that are not UTF-8 are replaced, so that the quoting of the rows behind them is not lost, and told.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = read_lines(stream)
        self.number = 0
        self.begin()

    def begin(self) -> None:
        """Start the next record."""
        self.origin = f"line {self.number + 1}"
        self.undecodable = ""
        self._room_bytes = RECORD_MAX_BYTES

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        if line is None or len(line) > self._room_bytes:
            raise _TooLong
        self._room_bytes -= len(line)
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.undecodable = self.undecodable or f"{where_undecodable(line)} (line {self.number})"
            return line.decode(errors="replace")
