"""What is said to a Stash-compatible server, and what its answers mean. No I/O.

A rating is an `imageUpdate` with `rating100`; one O more or less is an `imageIncrementO` or `imageDecrementO`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

_ANSWER: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_RATE = "mutation Rate($id: ID!, $rating100: Int) { imageUpdate(input: {id: $id, rating100: $rating100}) { id } }"
_MORE = "mutation More($id: ID!) { imageIncrementO(id: $id) }"
_LESS = "mutation Less($id: ID!) { imageDecrementO(id: $id) }"


class MirrorFailure(Exception):
    """A change did not arrive; the text says why and can be shown to the user.

    ``settled``: trying again will hardly help.
    """

    def __init__(self, text: str, *, settled: bool = False) -> None:
        super().__init__(text)
        self.settled = settled


class ServerFailed(MirrorFailure):
    """The server failed, and would for any change."""


class RowRefused(MirrorFailure):
    """The server answered that it does not take this change."""


@dataclass(frozen=True, slots=True)
class Call:
    """One mutation: the field that it asks for, and the request's body."""

    field: str
    body: bytes


def rating_call(stash_id: str, rating: int | None) -> Call:
    """Give an image its rating; None takes it away."""
    return _call("imageUpdate", _RATE, {"id": stash_id, "rating100": rating})


def o_call(stash_id: str, *, more: bool) -> Call:
    """Count one O more, or one less."""
    return _call("imageIncrementO" if more else "imageDecrementO", _MORE if more else _LESS, {"id": stash_id})


def _call(field: str, query: str, variables: dict[str, Any]) -> Call:
    return Call(field, msgspec.json.encode({"query": query, "variables": variables}))


def check_status(status: int) -> None:
    """Let pass an answer whose body tells how it went. Raises `ServerFailed`."""
    match status:
        case 200 | 400 | 422:  # the last two are a request's that the server's schema does not fit
            return
        case 401 | 403:
            raise ServerFailed(f"the server does not take the key ({status})", settled=True)
        case _ if 300 <= status < 400:
            raise ServerFailed(f"the server redirects ({status}), which is not followed", settled=True)
        case 408 | 425 | 429:
            raise ServerFailed(f"the server asks to come again later ({status})")
        case _ if 400 <= status < 500:
            raise ServerFailed(f"there is no GraphQL at the endpoint ({status})", settled=True)
    raise ServerFailed(f"the server failed ({status})")


def check_answer(call: Call, status: int, body: bytes) -> None:
    """Let pass an answer that says that it is done. Raises `RowRefused`, and `ServerFailed` for what is no answer."""
    try:
        answer = _ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ServerFailed("the server does not answer with GraphQL")
    if errors := answer.get("errors"):
        message, settled = _told(errors)
        raise RowRefused(f"{call.field}: {message}", settled=settled or status != 200)
    data = answer.get("data")
    if status != 200 or not isinstance(data, dict) or call.field not in data:
        raise ServerFailed("the server does not answer with GraphQL")
    if data[call.field] is None:
        raise RowRefused(f"{call.field}: the server does not know the image", settled=True)


def _told(errors: Any) -> tuple[str, bool]:
    """Give the first message, and whether it says that the image is not there.

    Stash gives its errors no code: "image with id 7 not found" is all that tells them apart.
    """
    first = errors[0] if isinstance(errors, list) else errors
    message = first.get("message") if isinstance(first, dict) else None
    words = message.replace("\0", " ").split() if isinstance(message, str) else []  # Postgres keeps no NUL in a text
    if not words:
        return "the server refused it without a reason", False
    told = " ".join(words)
    return told, "not found" in told.lower()
