from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.importing.csv_rows import read_csv
from gateway.importing.errors import InputError
from gateway.importing.found import Found, Refused
from gateway.importing.lines import RECORD_MAX_BYTES


def as_they_are(header: Sequence[str]) -> Sequence[str]:
    return header


def read(data: bytes | str) -> list[Found | Refused]:
    stream = io.BytesIO(data.encode() if isinstance(data, str) else data)
    return list(read_csv(stream, columns=as_they_are, numbers={"seed"}, documents={"meta"}))


def values(data: bytes | str) -> list[dict[str, Any]]:
    found = read(data)
    assert all(isinstance(one, Found) for one in found), found
    return [one.values for one in found if isinstance(one, Found)]


def test_rows_are_records_by_the_names_of_the_header():
    found = read("prompt, image_url ,seed\na cat,http://x/1,7\na dog,http://x/2,\n")
    assert found == [
        Found("line 2", {"prompt": "a cat", "image_url": "http://x/1", "seed": 7}),
        Found("line 3", {"prompt": "a dog", "image_url": "http://x/2"}),
    ]


def test_a_byte_order_mark_is_taken_off_and_other_encodings_are_told():
    assert values(b"\xef\xbb\xbfprompt\nx\n") == [{"prompt": "x"}]
    with pytest.raises(InputError, match="UTF-16"):
        read("prompt\nx\n".encode("utf-16"))


def test_quoted_cells_hold_commas_quotes_and_line_ends():
    found = read('prompt,model\r\n"a ""cat"", sleeping\r\non two lines",m\r\nnext,m\r\n')
    assert found == [
        Found("line 2", {"prompt": 'a "cat", sleeping\r\non two lines', "model": "m"}),
        Found("line 4", {"prompt": "next", "model": "m"}),
    ]


def test_an_empty_cell_is_no_value_quoted_or_not():
    assert values('prompt,model,seed,meta\nx,,"",\n') == [{"prompt": "x"}]


def test_blank_lines_are_passed_over():
    assert [one.origin for one in read("\nprompt,model\n\na,b\n\n\nc,d\n")] == ["line 4", "line 7"]


def test_too_many_and_too_few_columns_are_told_by_line():
    found = read("prompt,model\na\nb,c,d\ne,f\n")
    assert list(map(str, found[:2])) == [
        "line 2: has 1 column where the header has 2 columns",
        "line 3: has 3 columns where the header has 2 columns",
    ]
    assert found[2] == Found("line 4", {"prompt": "e", "model": "f"})


@pytest.mark.parametrize("cell", ["x", "1.5", "1e3", "0x10", "1_000", " 1", "١", "9" * 20])
def test_a_number_is_a_whole_one_in_plain_digits(cell: str):
    (bad,) = read(f"prompt,seed\na,{cell}\n")
    assert str(bad) == f"line 2: seed: {cell!r} is not a whole number"


def test_numbers_have_signs():
    assert values("prompt,seed\na,-1\nb,+2\n") == [{"prompt": "a", "seed": -1}, {"prompt": "b", "seed": 2}]


def test_documents_are_json():
    assert values('prompt,meta\na,"{""b"": [1]}"\n') == [{"prompt": "a", "meta": {"b": [1]}}]
    (bad,) = read("prompt,meta\na,{b}\n")
    assert str(bad).startswith("line 2: meta: is not JSON")
    (bad,) = read('prompt,meta\na,{"b":NaN}\n')
    assert str(bad).startswith("line 2: meta: is not JSON")


def test_bytes_that_are_not_utf8_are_told_by_their_line_and_the_next_row_is_read():
    found = read(b'prompt,model\n"a\nb\xff\nc",d\n\xc3\xa9,f\n')
    assert str(found[0]) == "line 2: is not UTF-8: byte 0xff at position 2 (line 3)"
    assert found[1:] == [Found("line 5", {"prompt": "é", "model": "f"})]


def test_broken_quoting_is_told_and_reading_goes_on():
    found = read('prompt,model\n"a"b,c\nd,e\n')
    assert str(found[0]).startswith("line 2: is not CSV: ")
    assert found[1] == Found("line 3", {"prompt": "d", "model": "e"})


def test_a_quote_that_is_never_closed_says_how_far_it_went():
    found = read('prompt,model\na,b\n"c,d\ne,f\ng,h\n')
    assert found[0] == Found("line 2", {"prompt": "a", "model": "b"})
    assert list(map(str, found[1:])) == ["line 3: a quote is opened and not closed; passed over to line 5"]


def test_an_open_quote_in_a_long_file_does_not_swallow_all_of_it():
    rows = "".join(f"prompt {number},model\n" for number in range(50_000))
    found = read(f'prompt,model\n"open,x\n{rows}')
    bad, *good = found
    assert str(bad).startswith("line 2: a quote is opened and not closed; passed over to line ")
    assert len(good) > 40_000
    assert all(isinstance(one, Found) for one in good)


def test_a_row_longer_than_records_may_be_is_told():
    long = ",".join(["x" * 100_000] * (RECORD_MAX_BYTES // 100_000 + 1))
    found = read(f"prompt,model\n{long}\na,b\n")
    assert str(found[0]) == f"line 2: is longer than {RECORD_MAX_BYTES} bytes"
    assert found[1] == Found("line 3", {"prompt": "a", "model": "b"})


def test_a_row_of_many_lines_longer_than_records_may_be_is_told():
    cell = '"' + "\n".join(["x" * 50_000] * 2) + '"'
    found = read(f"prompt,model\n{','.join([cell] * 30)}\na,b\n")
    assert isinstance(found[0], Refused)
    assert found[-1] == Found(found[-1].origin, {"prompt": "a", "model": "b"})


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty"), (b"\n\n", "empty"), (b'"prompt', "cannot be read"), (b"pr\xffompt\nx\n", "not UTF-8")],
)
def test_without_a_header_nothing_is_read(data: bytes, reason: str):
    with pytest.raises(InputError, match=reason):
        read(data)


def test_a_header_alone_has_no_records():
    assert read("prompt,image_url\n") == []


_cells = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.lists(st.tuples(_cells, _cells).filter(any)), st.sampled_from(["\n", "\r\n"]))
def test_what_the_csv_writer_writes_comes_back(rows: list[tuple[str, str]], ending: str):
    written = io.StringIO()
    writer = csv.writer(written, lineterminator=ending, quoting=csv.QUOTE_ALL)
    writer.writerows([("prompt", "model"), *rows])
    expected = [{name: cell for name, cell in zip(("prompt", "model"), row, strict=True) if cell} for row in rows]
    assert values(written.getvalue()) == expected


@given(st.binary(max_size=200) | st.text(alphabet='a,"\r\n \0', max_size=100).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes):
    read(b"prompt,seed,meta\n" + data)
