"""An answer that is a file: sent as fast as the client takes it, and broken off where it cannot be sent whole.

Its length is told first. So whatever ends it early (a client that does not read, a disk that fails, the server's stop)
leaves the client with an answer that is visibly too short.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO, cast

import structlog
from litestar.response.base import ASGIResponse
from litestar.types import Message, Receive, Scope, Send

from gateway.exports.leaving import watching
from gateway.protocol import ABORT
from gateway.whole import Header

PART_BYTES = 256 << 10  # who takes less in the time that a client may stall is too slow

_log = structlog.get_logger("tidepool.exports")


class Download(ASGIResponse):
    """The answer: ``size_bytes`` of ``file``, from where it stands. ``opened`` is closed at the end, whatever that is.

    A client that takes no part of it for ``stall_max_s`` is cut off.
    """

    def __init__(
        self, file: BinaryIO, size_bytes: int, headers: Sequence[Header], stall_max_s: float, opened: ExitStack
    ) -> None:
        self.status_code = 200
        self._file = file
        self._left_bytes = size_bytes
        self._headers = [(b"content-length", b"%d" % size_bytes), *headers]
        self._stall_max_s = stall_max_s
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, as an ASGI application does."""
        with self._opened:
            async with watching(receive) as left:
                try:
                    await self._send_all(send, left)
                except (TimeoutError, OSError, asyncio.CancelledError) as why:
                    if not left.done():
                        _log.warning("export_cut_off", reason=_reason(why), unsent_bytes=self._left_bytes)
                    cast("dict[str, Any]", scope)[ABORT]()
                    # A cancellation ends here: the server stops, and this is all that the task was there for.
                    await asyncio.wait([left], timeout=1)
                finally:
                    await asyncio.to_thread(self._file.close)  # the system frees 100 MB in 10 ms

    async def _send_all(self, send: Send, left: asyncio.Task[None]) -> None:
        await self._give(send, {"type": "http.response.start", "status": 200, "headers": self._headers})
        while not left.done():
            part = await asyncio.to_thread(self._file.read, min(PART_BYTES, self._left_bytes))
            self._left_bytes -= len(part)
            if not part and self._left_bytes:
                raise OSError("the file is shorter than it was")
            more = self._left_bytes > 0
            await self._give(send, {"type": "http.response.body", "body": part, "more_body": more})
            if not more:
                return

    async def _give(self, send: Send, message: Message) -> None:
        async with asyncio.timeout(self._stall_max_s):
            await send(message)


def _reason(why: BaseException) -> str:
    match why:
        case TimeoutError():
            return "the client takes nothing"
        case OSError():
            return f"the file cannot be read: {why}"
    return "the server stops"
