from __future__ import annotations

import hashlib
import io
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.importing.errors import RecordError
from gateway.importing.png import TEXT_MAX_BYTES, Png, read_png
from tests.unit.importing.pngs import SIGNATURE, chunk, header, international, packed, png, text


def read(data: bytes, *keywords: str) -> Png:
    return read_png(io.BytesIO(data), keywords or ("parameters",))


def refused(data: bytes) -> str:
    with pytest.raises(RecordError) as caught:
        read(data)
    return caught.value.reason


def test_size_and_hash_are_those_of_the_file():
    data = png(width=640, height=480)
    found = read(data)
    assert (found.width, found.height) == (640, 480)
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.texts == {}


def test_plain_texts_are_latin_1_and_international_ones_utf_8():
    assert read(png(text("parameters", "café ÿ"))).texts == {"parameters": "café ÿ"}
    assert read(png(international("parameters", "鯨 🐋"))).texts == {"parameters": "鯨 🐋"}


def test_packed_texts_are_unpacked():
    assert read(png(packed("parameters", "café".encode("latin-1")))).texts == {"parameters": "café"}
    assert read(png(international("parameters", "鯨 " * 1000, compress=True))).texts == {"parameters": "鯨 " * 1000}


def test_only_the_texts_asked_for_are_read():
    data = png(text("Software", "x"), text("prompt", "{}"), text("parameters", "y"))
    assert read(data, "prompt", "workflow").texts == {"prompt": "{}"}


def test_the_last_text_of_a_keyword_counts():
    assert read(png(text("parameters", "first"), text("parameters", "second"))).texts == {"parameters": "second"}


def test_texts_behind_the_pixels_are_found():
    data = png()[:-12] + text("parameters", "late") + chunk(b"IEND")
    assert read(data).texts == {"parameters": "late"}


def test_bytes_behind_the_end_do_not_matter_but_make_another_file():
    whole = png(text("parameters", "x"))
    assert read(whole + b"trailing").texts == {"parameters": "x"}
    assert read(whole + b"trailing").sha256 != read(whole).sha256


@pytest.mark.parametrize("data", [b"", b"\x89PN", b"GIF89a" + b"\0" * 50, b"\xff\xd8\xff\xe0", b"hello", b"\0" * 8])
def test_another_kind_of_file_is_told(data: bytes):
    assert refused(data) == "is not a PNG file"


def test_a_jpeg_called_png_is_told():
    assert refused(b"\xff\xd8\xff\xe0" + b"\0" * 5000) == "is not a PNG file"


@pytest.mark.parametrize("size", range(1, len(png(text("parameters", "abc"))), 7))
def test_a_file_that_is_cut_short_is_refused_wherever_it_was_cut(size: int):
    assert refused(png(text("parameters", "abc"))[:size]) in {"is cut short", "is not a PNG file"}


def test_a_wrong_checksum_is_refused():
    bad = SIGNATURE + header() + chunk(b"tEXt", b"parameters\0abc", crc=1)
    assert refused(bad) == "is damaged: the checksum of its part 'tEXt' is wrong"
    flipped = bytearray(png())
    flipped[-20] ^= 1  # a pixel
    assert refused(bytes(flipped)) == "is damaged: the checksum of its part 'IDAT' is wrong"


def test_the_header_comes_first_and_has_a_size():
    assert "begins with its header" in refused(SIGNATURE + text("parameters", "x") + header() + chunk(b"IEND"))
    assert "no valid size" in refused(SIGNATURE + header(0, 5) + chunk(b"IEND"))
    assert "no valid size" in refused(SIGNATURE + header(5, 2**31) + chunk(b"IEND"))


def test_an_impossible_length_is_refused_and_a_huge_one_costs_no_memory():
    assert "impossible length" in refused(SIGNATURE + header() + chunk(b"IDAT", b"x", length=2**32 - 1))
    tracemalloc.start()
    try:
        assert refused(SIGNATURE + header() + chunk(b"IDAT", b"x", length=2**31 - 1)) == "is cut short"
        larger = SIGNATURE + header() + chunk(b"tEXt", b"parameters\0" + b"x" * 80, length=2**31 - 1)
        assert refused(larger) == f"its text 'parameters' is larger than {TEXT_MAX_BYTES} bytes"
        assert tracemalloc.get_traced_memory()[1] < 2 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["zTXt", "iTXt"])
def test_a_packed_text_that_would_fill_the_memory_is_refused(kind: str):
    # 200 MB of zeros, packed twice a thousandfold as hostile files are.
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    data = b"parameters\0" + (b"\0" if kind == "zTXt" else b"\1\0\0\0") + bomb
    file = png(chunk(kind.encode(), data))
    tracemalloc.start()
    try:
        assert refused(file) == f"its text 'parameters' cannot be read: it unpacks to more than {TEXT_MAX_BYTES} bytes"
        assert tracemalloc.get_traced_memory()[1] < 4 * TEXT_MAX_BYTES
    finally:
        tracemalloc.stop()


def test_a_text_that_is_not_wanted_is_not_unpacked():
    assert read(png(chunk(b"zTXt", b"Comment\0\0not packed at all"), text("parameters", "x"))).texts


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (chunk(b"zTXt", b"parameters\0\0garbage"), "Error -3"),
        (chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"abc" * 100)[:-8]), "it is cut short"),
        (packed("parameters", b"x", method=1), "unknown method"),
        (chunk(b"zTXt", b"parameters\0"), "unknown method"),
        (chunk(b"iTXt", b"parameters\0\0\0"), "international"),
        (chunk(b"iTXt", b"parameters\0\7\0\0\0x"), "international"),
        (chunk(b"iTXt", b"parameters\0\1\1\0\0x"), "unknown method"),
        (chunk(b"iTXt", b"parameters\0\0\0\0\0\xff\xfe"), "not UTF-8"),
    ],
)
def test_a_text_that_cannot_be_unpacked_is_refused(part: bytes, reason: str):
    assert reason in refused(png(part))


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_give_a_file_or_a_refusal(data: bytes, signed: bool):
    try:
        read(SIGNATURE + header() + data if signed else data)
    except RecordError:
        pass


@given(st.sampled_from([b"tEXt", b"zTXt", b"iTXt"]), st.binary(max_size=60))
def test_any_text_chunk_gives_a_text_or_a_refusal(kind: bytes, data: bytes):
    try:
        found = read(png(chunk(kind, b"parameters\0" + data), chunk(kind, data)))
    except RecordError:
        return
    assert found.texts.keys() == {"parameters"}


@given(st.text(st.characters(codec="utf-8"), max_size=200), st.booleans())
def test_international_texts_come_back_as_they_were(value: str, compress: bool):
    assert read(png(international("parameters", value, compress=compress))).texts == {"parameters": value}
