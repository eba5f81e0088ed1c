from __future__ import annotations

import io
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.importing.errors import InputError
from gateway.importing.found import Found, Refused
from gateway.importing.jsonl import read_jsonl
from gateway.importing.lines import RECORD_MAX_BYTES


def read(data: bytes) -> list[Found | Refused]:
    return list(read_jsonl(io.BytesIO(data)))


def test_every_line_is_a_record_and_blank_ones_are_none():
    assert read(b'{"a": 1}\n\n  \r\n{"a": 2}\r\n{"a": 3}') == [
        Found("line 1", {"a": 1}),
        Found("line 4", {"a": 2}),
        Found("line 5", {"a": 3}),
    ]


def test_an_empty_input_has_no_records():
    assert read(b"") == []
    assert read(b"\n\n") == []


def test_a_byte_order_mark_is_taken_off():
    assert read(b'\xef\xbb\xbf{"a": 1}\n') == [Found("line 1", {"a": 1})]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_another_encoding_is_told_at_once(encoding: str):
    with pytest.raises(InputError, match="UTF-16"):
        read("\ufeff{}".encode(encoding) if encoding.endswith("be") else "{}".encode(encoding))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1', "is not JSON: Input data was truncated"),
        (b'{"a": 1} {"a": 2}', "is not JSON: JSON is malformed: trailing characters"),
        (b'{"seed": NaN}', "is not JSON"),
        (b'{"seed": Infinity}', "is not JSON"),
        (b"[1, 2]", "is not a JSON object: Expected `object`, got `array`"),
        (b'"text"', "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (b'{"a": "x\xff"}', "is not UTF-8: byte 0xff at position 9"),
        (b'{"a": "\\ud800"}', "is not JSON"),
        (b'{"a": 1e999}', "out of range"),
        (b'{"a": ' + b"[" * 50_000, "is nested too deep"),
    ],
)
def test_a_bad_line_is_told_and_the_next_one_read(line: bytes, reason: str):
    first, bad, last = read(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    assert first == Found("line 1", {"a": 1})
    assert isinstance(bad, Refused)
    assert bad.origin == "line 2"
    assert reason in str(bad)
    assert last == Found("line 3", {"a": 3})


def test_a_line_may_be_as_long_as_is_said_and_no_longer():
    fits = b'{"a": "' + b"x" * (RECORD_MAX_BYTES - 10) + b'"}\n'
    assert len(fits) == RECORD_MAX_BYTES
    assert isinstance(read(fits)[0], Found)
    bad, good = read(fits.replace(b"x", b"xx", 1) + b'{"a": 1}\n')
    assert str(bad) == f"line 1: is longer than {RECORD_MAX_BYTES} bytes"
    assert good == Found("line 2", {"a": 1})


class Endless(io.RawIOBase):
    """A hundred megabytes without a line ending."""

    left = 100 * 1024 * 1024

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self.left)
        self.left -= size
        buffer[:size] = b"x" * size
        return size


def test_a_line_without_an_end_costs_no_memory():
    tracemalloc.start()
    try:
        found = list(read_jsonl(io.BufferedReader(Endless())))
        assert [str(refused) for refused in found] == [f"line 1: is longer than {RECORD_MAX_BYTES} bytes"]
        assert tracemalloc.get_traced_memory()[1] < 4 * RECORD_MAX_BYTES
    finally:
        tracemalloc.stop()


_values = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(st.characters(codec="utf-8"))


@given(st.lists(st.dictionaries(st.text(st.characters(codec="utf-8")), _values)))
def test_what_is_written_is_read(documents: list[dict[str, Any]]):
    lines = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    expected = [Found(f"line {number}", document) for number, document in enumerate(documents, 1)]
    assert read(lines.encode()) == expected


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes):
    try:
        found = read(data)
    except InputError:
        return
    assert len(found) <= data.count(b"\n") + 1
