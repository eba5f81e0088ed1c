"""HTTP/1.1 as uvicorn speaks it, with a bound on what may come before a body, and refusing in our words."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.problems import MEDIA_TYPE, Problem, body_of
from gateway.whole import WHOLE, send_whole

ABORT = "tidepool.abort"  # what in a request's scope ends its connection at once, without what is still to be sent
HEAD_MAX_BYTES = 64 << 10  # a token has 8 KiB at most, and few proxies pass on more than 32 KiB in all


class Protocol(HttpToolsProtocol):
    """One connection.

    The parser gathers a request's line and headers for as long as they come, whoever sends them: nobody has shown a
    token yet. Here they end at `HEAD_MAX_BYTES`, as do the headers that may follow a body in chunks.
    """

    _unread_bytes = 0  # received since a head, or a part of a body, was last complete

    def data_received(self, data: bytes) -> None:
        """Take what was received."""
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > HEAD_MAX_BYTES and not self.transport.is_closing():
            self._refuse(Problem(431, "head_too_large", f"the headers are larger than {HEAD_MAX_BYTES} bytes"))

    def on_headers_complete(self) -> None:
        """Begin a request."""
        self._unread_bytes = 0
        super().on_headers_complete()
        # What ASGI has no word for: to end a connection whose other side does not read, and to send an answer at once.
        scope = cast("dict[str, Any]", self.scope)
        scope[ABORT] = self.transport.abort
        scope[WHOLE] = partial(send_whole, self.cycle)

    def on_body(self, body: bytes) -> None:
        """Take a part of a request's body."""
        self._unread_bytes = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(Problem(400, "bad_request", msg))

    def _refuse(self, problem: Problem) -> None:
        answering = getattr(self.cycle, "response_started", False) and not self.cycle.response_complete
        if not answering:  # else this would end up in the middle of that answer
            body = body_of(problem, "")
            head = (
                f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()
