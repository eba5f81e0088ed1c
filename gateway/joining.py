"""A connection's sending side: the head of an answer goes out with what follows it.

uvicorn writes an answer's head and its body each by itself, and uvloop hands over each write at once. What a short
answer costs is mostly that: the way through the kernel, and waking the other side, who finds half an answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

_HEAD = b"HTTP/1.1 "


class Joining:
    """A transport that keeps a head back until something follows it, for this pass of the loop at most.

    Everything else it passes on to ``transport``, in order.
    """

    __slots__ = ("_head", "_loop", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | None = None
        self.is_closing = transport.is_closing  # asked for each request

    def write(self, data: bytes) -> None:
        """Send, after the head that is kept; one that begins an answer is kept."""
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.writelines((head, data) if data else (head,))
        elif data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self._let_go)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close, when what was written is sent."""
        self._let_go()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _let_go(self) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.write(head)
