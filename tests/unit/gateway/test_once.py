"""What tells one request under a key from another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from gateway.once import _asked


async def digest(method: str, path: bytes, query: bytes, if_match: list[bytes], body: bytes) -> bytes:
    async def given() -> bytes:
        return body

    headers = [(b"idempotency-key", b"k"), *((b"if-match", each) for each in if_match)]
    scope = {"method": method, "raw_path": path, "query_string": query, "headers": headers}
    asked = await _asked(cast("Any", SimpleNamespace(scope=scope, body=given)))
    assert asked is not None
    return asked.digest


async def test_requests_that_differ_anywhere_are_told_apart_also_by_where_one_part_ends():
    requests = [
        ("POST", b"/a", b"b", [b"c"], b"d"),
        ("PUT", b"/a", b"b", [b"c"], b"d"),
        ("POST", b"/x", b"b", [b"c"], b"d"),
        ("POST", b"/a", b"x", [b"c"], b"d"),
        ("POST", b"/a", b"b", [b"x"], b"d"),
        ("POST", b"/a", b"b", [], b"d"),
        ("POST", b"/a", b"b", [b"c", b"c"], b"d"),
        ("POST", b"/a", b"b", [b"c"], b"x"),
        ("POST", b"/ab", b"", [b"c"], b"d"),
        ("POST", b"/a", b"", [b"bc"], b"d"),
        ("POST", b"/a", b"b", [], b"c\nd"),
    ]
    digests = [await digest(*request) for request in requests]
    assert len({*digests}) == len(requests)
    assert await digest(*requests[0]) == digests[0]
