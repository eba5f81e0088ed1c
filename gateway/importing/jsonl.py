"""JSON Lines: one JSON object a line, UTF-8 (https://jsonlines.org)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from gateway.importing.found import Found, Refused
from gateway.importing.lines import RECORD_MAX_BYTES, read_lines, where_undecodable

_decoder = msgspec.json.Decoder(dict[str, object])


def read_jsonl(stream: BinaryIO) -> Iterator[Found | Refused]:
    """Yield the object of every line, or why it is none, each with the line's number.

    Blank lines are passed over. NaN and Infinity are refused, for they are not JSON. A name that is given
    twice has its last value. Raises `InputError` where the whole stream is in another encoding.
    """
    for number, line in read_lines(stream):
        origin = f"line {number}"
        if line is None:
            yield Refused.at(origin, "", f"is longer than {RECORD_MAX_BYTES} bytes")
        elif line.strip():
            try:
                yield Found(origin, _decoder.decode(line))
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                yield Refused.at(origin, "", _explain(line, error))


def _explain(line: bytes, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "is nested too deep"
    if isinstance(error, UnicodeError):
        return where_undecodable(line) or "holds text that is not Unicode"
    if isinstance(error, msgspec.ValidationError):
        return f"is not a JSON object: {error}"
    return f"is not JSON: {error}"
