"""HTTP/1.1 as uvicorn speaks it, with a bound on what may come before a body, and refusing in our words."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.problems import MEDIA_TYPE, Problem, body_of
from gateway.whole import WHOLE, Outgoing

ABORT = "tidepool.abort"  # what in a request's scope ends its connection at once, without what is still to be sent
HEAD_MAX_BYTES = 64 << 10  # a token has 8 KiB at most, and few proxies pass on more than 32 KiB in all
AHEAD_MAX = 100  # requests of one connection that wait for the answers before theirs; few clients send even two

_NO_HTTP = "Invalid HTTP request received."


class Protocol(HttpToolsProtocol):
    """One connection.

    The parser gathers a request's line and headers for as long as they come, whoever sends them: nobody has shown a
    token yet. Here they end at `HEAD_MAX_BYTES`, as do the headers that may follow a body in chunks. And it begins
    each request that it finds, 18 bytes of a client's and some kilobytes of ours: `AHEAD_MAX` end those.
    """

    _unread_bytes = 0  # received since a head, or a part of a body, was last complete
    _full = False  # what comes is not looked at any more: the connection ends behind the answers that are owed
    _rereading = False  # a head that has been begun is read again, for what follows it

    def __init__(self, *args: Any, outgoing: Outgoing, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._outgoing = outgoing  # of all connections
        self._before: deque[RequestResponseCycle] = deque(maxlen=AHEAD_MAX + 1)  # those that others waited for

    def data_received(self, data: bytes) -> None:
        """Take what was received."""
        self._outgoing.flush()
        if self._full or self.transport.is_closing():  # by an answer that was held until now: nothing is behind it
            return
        self._unread_bytes += len(data)
        try:
            try:
                self.parser.feed_data(data)
            except HttpParserUpgrade as offered:
                self._stay_with_http(data[offered.args[0] :])
        except HttpParserError:
            if not self._full:
                self.logger.warning(_NO_HTTP)
                self.send_400_response(_NO_HTTP)
        if self._unread_bytes > HEAD_MAX_BYTES and not self.transport.is_closing():
            self._refuse(Problem(431, "head_too_large", f"the headers are larger than {HEAD_MAX_BYTES} bytes"))
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            if self._unread_bytes == len(data):  # the first of a head
                self._wait()
        elif cycle.more_body and not self.pipeline:  # behind others it is not read, and cannot come
            self._wait()
        else:
            self._unset_keepalive_if_required()

    def on_response_complete(self) -> None:
        """Go on with the next request, if it has come already."""
        super().on_response_complete()
        cycle: RequestResponseCycle = self.cycle
        if cycle.more_body and not cycle.response_complete and not self.pipeline:
            if self._full:  # which was found in its body
                self.send_400_response(_NO_HTTP)
            else:
                self._wait()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin a connection."""
        super().connection_made(transport)
        self._wait()

    def _wait(self) -> None:
        """Wait for the rest of a request as long as for the next one: who has gone without a word is not coming back.

        A head has that time from its first byte on, of a body each part.
        """
        self._unset_keepalive_if_required()
        later = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        self.timeout_keep_alive_task = later

    def _stay_with_http(self, rest: bytes) -> None:
        """Go on behind the head of a request that offers another protocol, which nobody has to take.

        To the parser all that follows is of that protocol, the request's body too. So another parser is told how long
        the body is. (Uvicorn leaves it out, and would read it as the next request.)
        """
        headers = self.cycle.scope["headers"]
        framing = [each for each in headers if each[0] in (b"content-length", b"transfer-encoding")]
        if framing:
            self.cycle.more_body = True
            self.parser = HttpRequestParser(self)
            self._rereading = True
            try:
                self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % each for each in framing))
            finally:
                self._rereading = False
        if rest:
            self.data_received(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell each request that nobody is there any more; uvicorn tells the last one."""
        for cycle in self._before:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def eof_received(self) -> None:
        """Note that no more will come: the connection is closed then."""
        self._outgoing.flush()
        super().eof_received()

    def shutdown(self) -> None:
        """End the connection, now or behind the answer that is owed."""
        self._outgoing.flush()
        super().shutdown()

    def on_headers_complete(self) -> None:
        """Begin a request."""
        self._unread_bytes = 0
        if self._rereading:
            return
        if len(self.pipeline) >= AHEAD_MAX:
            self._end_behind_answers()
            raise OverflowError  # which ends the parser's work
        self._unset_keepalive_if_required()
        before = self.cycle
        super().on_headers_complete()
        self.headers = []  # what follows a body in chunks is no header of the request, which may be under way by then
        if self.pipeline:
            self._before.append(before)
        elif self._before:
            self._before.clear()
        # What ASGI has no word for: to end a connection whose other side does not read, and to send an answer at once.
        scope = cast("dict[str, Any]", self.scope)
        scope[ABORT] = self.transport.abort
        self._outgoing.begin()
        scope[WHOLE] = partial(self._outgoing.send, self.cycle)
        if not self.cycle.keep_alive:
            self.cycle.transport = _Parting(self, self.cycle)
        if scope["http_version"] == "1.0":
            self.cycle.send = _in_one_piece(self.cycle)  # type: ignore[method-assign,assignment]

    def on_body(self, body: bytes) -> None:
        """Take a part of a request's body."""
        self._unread_bytes = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(Problem(400, "bad_request", msg))

    def part(self) -> None:
        """End the connection behind an answer that has come before the end of its request, when all of that was sent.

        Who sends to a socket that is closed is told of a reset, and many a client then does not look for an answer. So
        what comes is read still and dropped, until the client leaves, for as long as the next request is waited for.
        """
        self._full = True
        self.transport.write_eof()

    def _end_behind_answers(self) -> None:
        self._full = True
        self.cycle.keep_alive = False

    def _refuse(self, problem: Problem) -> None:
        """Tell what is wrong and end the connection, or end it behind the answers that are owed.

        Before one of those this would be taken for it, though what was asked, a write perhaps, is done.
        """
        last: RequestResponseCycle | None = self.cycle
        if last is not None and last.response_complete:
            last = None
        if last is not None and (self.pipeline or not (last.response_started or last.more_body)):
            self._end_behind_answers()
            return
        if last is None or not last.response_started:  # else this would end up in the middle of that answer
            body = body_of(problem, "")
            head = (
                f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()


class _Parting(asyncio.Transport):
    """The transport as an answer has it that ends its connection."""

    def __init__(self, protocol: Protocol, cycle: RequestResponseCycle) -> None:
        self._protocol: Protocol = weakref.proxy(protocol)  # both hold this: a request is freed when it ends
        self._cycle: RequestResponseCycle = weakref.proxy(cycle)
        self.write = protocol.transport.write  # type: ignore[method-assign]
        self.writelines = protocol.transport.writelines  # type: ignore[method-assign]
        self.is_closing = protocol.transport.is_closing  # type: ignore[method-assign]

    def close(self) -> None:
        """End the connection; behind a whole answer so that the client comes to hear it."""
        if self._cycle.response_complete and self._cycle.more_body:
            self._protocol.part()
        else:
            self._protocol.transport.close()


def _in_one_piece(cycle: RequestResponseCycle) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """Give what sends an answer of HTTP/1.0, which knows no chunks: one without a length ends with its connection."""
    cycle = weakref.proxy(cycle)  # it holds what is given here: a request is freed when it ends
    endless = False

    async def send_in_one_piece(message: Any) -> None:
        nonlocal endless
        if message["type"] == "http.response.start":
            endless = all(name.lower() != b"content-length" for name, _ in message["headers"])
            if endless:
                cycle.chunked_encoding = False
        elif endless:
            cycle.expected_content_length = len(message.get("body", b""))  # uvicorn looks whether it is as long as told
        await RequestResponseCycle.send(cycle, message)

    return send_in_one_piece
