"""PNG files made byte by byte, sound and otherwise."""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes = b"", *, length: int | None = None, crc: int | None = None) -> bytes:
    """One chunk; ``length`` and ``crc`` are right unless they are given."""
    said = len(data) if length is None else length
    return struct.pack(">I", said) + kind + data + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)


def header(width: int = 4, height: int = 2) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def text(keyword: str, value: str) -> bytes:
    return chunk(b"tEXt", keyword.encode("latin-1") + b"\0" + value.encode("latin-1"))


def packed(keyword: str, value: bytes, *, method: int = 0) -> bytes:
    return chunk(b"zTXt", keyword.encode("latin-1") + b"\0" + bytes([method]) + zlib.compress(value))


def international(keyword: str, value: str, *, compress: bool = False) -> bytes:
    data = zlib.compress(value.encode()) if compress else value.encode()
    return chunk(b"iTXt", keyword.encode("latin-1") + b"\0" + bytes([compress, 0]) + b"de\0Wort\0" + data)


def png(*texts: bytes, width: int = 4, height: int = 2) -> bytes:
    """A whole file: header, texts, black pixels, end."""
    rows = b"".join(b"\0" + b"\0\0\0" * width for _ in range(height))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return SIGNATURE + header(width, height) + b"".join(texts) + pixels + chunk(b"IEND")
