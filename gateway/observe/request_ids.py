"""The id of a request: the caller's own when it is fit to be written to a log, else one made here."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from itertools import count
from typing import Any

HEADER = b"x-request-id"
LENGTH_MAX = 128
_KEY = "tidepool.request_id"
_FIT = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:/+=@")

current: ContextVar[str] = ContextVar("tidepool_request_id", default="")
"""The id of the request that this task works for, for the log lines that it writes."""


def maker() -> Callable[[], bytes]:
    """Give what makes ids: a random start for the process and a count, which costs no entropy per request."""
    start = secrets.token_hex(6).encode()
    numbers = count(1)
    return lambda: b"%b-%x" % (start, next(numbers))


def is_fit(given: bytes) -> bool:
    """Whether a caller's id can be taken over: short, and nothing in it means anything to a log or header."""
    return 0 < len(given) <= LENGTH_MAX and _FIT.issuperset(given)


def put_request_id(scope: Any, request_id: bytes) -> None:
    """Keep the id with its request."""
    text = request_id.decode("ascii")
    scope[_KEY] = text
    current.set(text)


def request_id_of(scope: Mapping[str, Any] | Any) -> str:
    """Give the request's id, empty when nothing put one there."""
    return str(scope.get(_KEY, ""))
