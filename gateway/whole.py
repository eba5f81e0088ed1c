"""Whole answers: their head and their body are one write, made by the connection itself.

ASGI hands on an answer in two messages, through whatever stands in between, and uvicorn writes each by itself, after
it has looked at each header. Of a short answer that is a tenth of all that the process does, and the other side is
woken for half of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

Header = tuple[bytes, bytes]

WHOLE = "tidepool.whole"
"""What in a request's scope sends a whole answer; a `SendWhole`."""

SendWhole = Callable[[int, Sequence[Header], bytes], bool]
"""Sends a status, headers (names in lower case, content-length included where there is a body) and a body.

Gives False, and sends nothing, where the answer has to go ASGI's way: it has to wait, or is one to HEAD.
"""

_COPIED_MAX_BYTES = 16 << 10  # a longer body costs less as a piece of its own than to be copied behind its head


def send_whole(cycle: RequestResponseCycle, status: int, headers: Sequence[Header], body: bytes) -> bool:
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
    if len(body) > _COPIED_MAX_BYTES:
        cycle.transport.writelines((head, body))
    else:
        cycle.transport.write(head + body)
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
