"""The texts inside a PNG file, by the PNG specification (https://www.w3.org/TR/png-3/), pixels never decoded.

A file is read once, in pieces, with every length bounded before anything is allocated and every checksum
compared, so that a hostile or damaged file costs little and is told apart from a sound one.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import BinaryIO

from gateway.importing.errors import RecordError

SIGNATURE = b"\x89PNG\r\n\x1a\n"

CHUNK_MAX_BYTES = 2**31 - 1
"""The specification's bound; four bytes could say twice as much."""

TEXT_MAX_BYTES = 8 * 1024 * 1024
"""Of one text, packed or unpacked. The largest workflows seen hold a few megabytes of embedded images."""

KEYWORD_MAX_BYTES = 79
"""The specification's bound."""

_PIECE_BYTES = 256 * 1024
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")


@dataclass(frozen=True, slots=True)
class Png:
    """What a file tells: its size in pixels, the SHA-256 of its bytes, the texts asked for by keyword."""

    width: int
    height: int
    sha256: str
    texts: dict[str, str]


def read_png(stream: BinaryIO, keywords: Collection[str]) -> Png:
    """Read a PNG file from its start to its end.

    Of a keyword that occurs more than once the last text counts, as in Pillow. Raises `RecordError` if the
    file is not a whole, sound PNG file or one of the wanted texts cannot be unpacked within
    `TEXT_MAX_BYTES`; other texts are passed over. Holds no more than two texts' size in memory, whatever the
    file.
    """
    source = _Source(stream)
    if source.take(len(SIGNATURE)) != SIGNATURE:
        raise RecordError("", "is not a PNG file")
    width, height = _size(source)
    texts: dict[str, str] = {}
    while True:
        length, kind = source.chunk()
        if kind in _TEXT_CHUNKS:
            text = _text_chunk(source, kind, length, keywords)
            if text is not None:
                texts[text[0]] = text[1]
        else:
            source.skip(length)
        source.check(kind)
        if kind == b"IEND":
            # Some tools leave bytes behind the end; they are no part of the image, yet they are part of the
            # file.
            return Png(width, height, source.digest(), texts)


def _size(source: _Source) -> tuple[int, int]:
    length, kind = source.chunk()
    if kind != b"IHDR" or length != 13:
        raise RecordError("", "is damaged: a PNG file begins with its header")
    header = source.take(length)
    source.check(kind)
    width, height = int.from_bytes(header[0:4], "big"), int.from_bytes(header[4:8], "big")
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise RecordError("", "is damaged: its header has no valid size")
    return width, height


def _text_chunk(source: _Source, kind: bytes, length: int, keywords: Collection[str]) -> tuple[str, str] | None:
    """Read one text chunk; None if its text is not wanted. Leaves the checksum to be read."""
    head = source.take(min(length, KEYWORD_MAX_BYTES + 1))
    name, zero, rest = head.partition(b"\0")
    keyword = name.decode("latin-1")
    if not zero or keyword not in keywords:
        source.skip(length - len(head))
        return None
    if length > TEXT_MAX_BYTES:
        raise RecordError("", f"its text {keyword!r} is larger than {TEXT_MAX_BYTES} bytes")
    data = rest + source.take(length - len(head))
    try:
        return keyword, _UNPACK[kind](data)
    except (ValueError, zlib.error) as error:
        raise RecordError("", f"its text {keyword!r} cannot be read: {error}") from None


def _plain(data: bytes) -> str:
    return data.decode("latin-1")


def _packed(data: bytes) -> str:
    method, packed = data[:1], data[1:]
    if method != b"\0":
        raise ValueError("it is packed by an unknown method")
    return _inflate(packed).decode("latin-1")


def _international(data: bytes) -> str:
    flag, method, rest = data[0:1], data[1:2], data[2:]
    _language, first, rest = rest.partition(b"\0")
    _translated, second, text = rest.partition(b"\0")
    if not first or not second or flag not in (b"\0", b"\1"):
        raise ValueError("it is not laid out as an international text")
    if flag == b"\1":
        if method != b"\0":
            raise ValueError("it is packed by an unknown method")
        text = _inflate(text)
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None


_UNPACK = {b"tEXt": _plain, b"zTXt": _packed, b"iTXt": _international}


def _inflate(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(packed, TEXT_MAX_BYTES + 1)
    if len(data) > TEXT_MAX_BYTES:
        raise ValueError(f"it unpacks to more than {TEXT_MAX_BYTES} bytes")
    if not unpacker.eof:
        raise ValueError("it is cut short")
    return data


class _Source:
    """Bytes in order, hashed as they pass, with the checksum of the chunk at hand."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._crc = 0

    def take(self, length: int) -> bytes:
        """Return exactly ``length`` bytes; the caller has bounded it."""
        data = self._stream.read(length)
        if len(data) < length:
            # A short file that does not even begin like one is no PNG file rather than half of one.
            if not data.startswith(SIGNATURE[:4]) and length == len(SIGNATURE):
                raise RecordError("", "is not a PNG file")
            raise RecordError("", "is cut short")
        self._hash.update(data)
        self._crc = zlib.crc32(data, self._crc)
        return data

    def skip(self, length: int) -> None:
        while length > 0:
            length -= len(self.take(min(length, _PIECE_BYTES)))

    def chunk(self) -> tuple[int, bytes]:
        """Begin the next chunk: its length, checked against the specification's bound, and its kind."""
        length = int.from_bytes(self.take(4), "big")
        if length > CHUNK_MAX_BYTES:
            raise RecordError("", "is damaged: a part claims an impossible length")
        self._crc = 0
        return length, self.take(4)

    def check(self, kind: bytes) -> None:
        """End the chunk: compare its checksum."""
        expected = self._crc
        if int.from_bytes(self.take(4), "big") != expected:
            raise RecordError("", f"is damaged: the checksum of its part {kind.decode('latin-1')!r} is wrong")

    def digest(self) -> str:
        """Take in what is left and return the SHA-256 of all bytes, in hexadecimal."""
        while data := self._stream.read(_PIECE_BYTES):
            self._hash.update(data)
        return self._hash.hexdigest()
