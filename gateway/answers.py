"""Answers that are bytes already: what a read sends, with nothing left to convert."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from gateway.whole import WHOLE, Header, SendWhole


class Answer(ASGIResponse):
    """A complete answer. ``headers`` are names in lower case and their values, content-length included.

    A handler that is annotated to return it has it sent as it is; Litestar's own response classes would take
    several times as long to put the same bytes together.
    """

    __slots__ = ("_headers",)

    def __init__(self, status: int, headers: Sequence[Header], body: bytes = b"") -> None:
        self.status_code = status
        self.body = body
        self._headers = headers

    @classmethod
    def json(cls, body: bytes, *, status: int = 200, headers: Sequence[Header] = ()) -> Answer:
        """Answer with JSON."""
        length = (b"content-length", b"%d" % len(body))
        return cls(status, [_JSON, length, *headers], body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send it: at once where the server can, else as an ASGI application does."""
        whole: SendWhole | None = cast("dict[str, Any]", scope).get(WHOLE)
        if whole is not None and whole(self.status_code, self._headers, self.body):
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self._headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


_JSON = (b"content-type", b"application/json")
