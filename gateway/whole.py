"""Whole answers: their head and their body are one write, made by the connection itself.

ASGI hands on an answer in two messages, through whatever stands in between, and uvicorn writes each by itself, after
it has looked at each header. Of a short answer that is a tenth of all that the process does, and the other side is
woken for half of it. For the same reason the answers of one pass of the event loop go out together (`Outgoing`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

Header = tuple[bytes, bytes]

WHOLE = "tidepool.whole"
"""What in a request's scope sends a whole answer; a `SendWhole`."""

SendWhole = Callable[[int, Sequence[Header], bytes], bool]
"""Sends a status, headers (names in lower case, content-length included where there is a body) and a body.

Gives False, and sends nothing, where the answer has to go ASGI's way: it has to wait, or is one to HEAD.
"""

_HELD_MAX_S = 0.001  # as long as an answer waits for others of its pass, which may have a hundred reads to do
_HELD_MAX_BYTES = 256 << 10  # what is no longer in the processor's cache when it is sent costs more than a wake-up
_COPIED_MAX_BYTES = 16 << 10  # a longer body costs less as a piece of its own than to be copied behind its head

_Held = tuple[RequestResponseCycle, bytes, bytes, Callable[[], None]]
"""A cycle, the head and body of its answer, and what to call when they are sent, which the cycle itself forgets."""


class Outgoing:
    """Whole answers that are about to be sent: those of one pass of the event loop are written right after each other.

    A write wakes whoever waits for it, and a client or a proxy that serves many connections goes back to sleep before
    the next answer is made: so each answer paid for a wake-up, a third of all that a read of one image costs. Who has
    to be woken once for several takes the others on the way. The last of those that were begun together is waited for,
    unless it takes more than this pass: an answer that is alone waits for nobody.
    """

    def __init__(self) -> None:
        self._awaited = 0  # requests that were begun in this pass, and may be answered in it
        self._held: list[_Held] = []
        self._held_bytes = 0
        self._since = 0.0  # when the first of them was made

    def begin(self) -> None:
        """Note that a request has begun."""
        self._awaited += 1

    def send(self, cycle: RequestResponseCycle, status: int, headers: Sequence[Header], body: bytes) -> bool:
        """Send the answer to the request of one of uvicorn's cycles, as that would; see `SendWhole`."""
        if cycle.flow.write_paused or cycle.response_started or cycle.scope["method"] == "HEAD":
            return False
        if cycle.disconnected or cycle.transport.is_closing():  # nobody is there to read it
            cycle.response_started = cycle.response_complete = True
            return True
        lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        head = b"%b%b\r\n" % (STATUS_LINE[status], b"".join(lines))
        ends = len(lines) + 2
        if head.count(b"\r\n") != ends or head.count(b"\r") != ends or head.count(b"\n") != ends:
            raise ValueError("a header has more than one line")
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        self._awaited = max(0, self._awaited - 1)
        now = monotonic()
        if not self._held:
            self._since = now
            if self._awaited:
                asyncio.get_running_loop().call_soon(self._end_pass)
        self._held.append((cycle, head, body, cycle.on_response))
        self._held_bytes += len(body)
        if not self._awaited or self._held_bytes > _HELD_MAX_BYTES or now - self._since > _HELD_MAX_S:
            self.flush()
        return True

    def _end_pass(self) -> None:
        if self._held:  # and nothing has begun since, which would have flushed it
            self._awaited = 0  # who is left takes longer
            self.flush()

    def flush(self) -> None:
        """Write what is held. To be called before anything is done with a connection that may have an answer here."""
        if not self._held:
            return
        held, self._held = self._held, []
        self._held_bytes = 0
        for cycle, head, body, sent in held:
            if cycle.disconnected or cycle.transport.is_closing():
                continue
            if len(body) > _COPIED_MAX_BYTES:
                cycle.transport.writelines((head, body))
            else:
                cycle.transport.write(head + body)
            cycle.message_event.set()
            if not cycle.keep_alive:
                cycle.transport.close()
            sent()
