"""A connection's sending side: a whole answer is sent at once, though its head and its body are written apart.

uvicorn writes each by itself, and uvloop hands each write to the kernel. What a short answer costs is mostly that: the
way through the kernel, and waking the other side, who finds half of it.
"""

from __future__ import annotations

import asyncio
from typing import Any

JOIN = "tidepool.join"
"""What in a request's scope keeps the next that is written back, until something is written after it."""

_COPIED_MAX_BYTES = 16 << 10  # a longer body costs less as a piece of its own than to be copied behind its head


class Joining:
    """A transport that sends two writes as one, if it is told so before; all else it leaves to ``transport``."""

    __slots__ = ("_first", "_joins", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._joins = False
        self._first: bytes | None = None
        self.is_closing = transport.is_closing  # which is asked for each request

    def join(self) -> None:
        """Keep what is written next until something, or nothing more, is written after it."""
        self._joins = True

    def write(self, data: bytes) -> None:
        """Send, after what was kept."""
        joins, self._joins = self._joins, False
        if joins and self._first is None:
            self._first = data
            return
        first, self._first = self._first, None
        if first is None:
            self._transport.write(data)
        elif len(data) > _COPIED_MAX_BYTES:
            self._transport.writelines((first, data))
        else:
            self._transport.write(first + data)

    def close(self) -> None:
        """Close, when what was written is sent; a second time it does nothing, as any transport."""
        self._joins = False
        if self._first is not None and not self.is_closing():
            self.write(b"")
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
