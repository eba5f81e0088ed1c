"""The outermost layer: it names and counts every request, and writes a line about some of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from time import perf_counter
from typing import Any, cast

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from gateway.observe.metrics import Metrics
from gateway.observe.request_ids import HEADER, is_fit, maker, put_request_id
from gateway.problems import MEDIA_TYPE, Problem, body_of
from gateway.whole import WHOLE, Header, SendWhole

SLOW_S = 1.0  # a request that took longer is worth a line whatever it was

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = _READS | {"POST", "PUT", "PATCH", "DELETE"}
_UNMATCHED = "unmatched"  # one label for all paths that are no route

_STOPPING = Problem(
    503,
    "stopping",
    "the server stops",
    hint="Try again: a write that was under way may have been done or not.",
    headers={"retry-after": "1"},
)

_log = structlog.get_logger("tidepool.requests")
_stdlib = logging.getLogger("tidepool.requests")  # only to ask, cheaply, whether debug is wanted


async def _tell_of_the_stop(send: Send, request_id: str) -> None:
    body = body_of(_STOPPING, request_id)
    headers = [(name.encode(), value.encode()) for name, value in _STOPPING.headers.items()]
    headers += [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": _STOPPING.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class Observe:
    """Gives each request its id, its place in the metrics and its log line.

    The line is at info for writes, for failures (status 500 and up) and for requests slower than `SLOW_S`,
    and at debug for ordinary reads: writing a line would cost a good part of what the read itself does.
    """

    __slots__ = ("_app", "_metrics", "_new_id")

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._new_id = maker()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and see it to its end."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        request_id = b""
        for name, value in scope["headers"]:
            if name == HEADER:
                request_id = value if is_fit(value) else b""
                break
        request_id = request_id or self._new_id()
        put_request_id(scope, request_id)
        status = 500  # until the answer begins: what uvicorn makes of an exception
        begun = False

        # Not a coroutine of its own: it hands on the one that sends.
        def named(message: Message) -> Awaitable[None]:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message["headers"] = [*message["headers"], (HEADER, request_id)]
            return send(message)

        extended = cast("dict[str, Any]", scope)
        whole: SendWhole | None = extended.get(WHOLE)
        if whole is not None:

            def named_whole(code: int, headers: Sequence[Header], body: bytes) -> bool:
                nonlocal status, begun
                if not whole(code, [*headers, (HEADER, request_id)], body):
                    return False
                status, begun = code, True
                return True

            extended[WHOLE] = named_whole

        try:
            await self._app(scope, receive, cast("Send", named))
        except asyncio.CancelledError:  # the server stops, and has waited for this request as long as it may
            if begun:
                raise
            await _tell_of_the_stop(cast("Send", named), request_id.decode())
        finally:
            extended.pop(WHOLE, None)  # it leads to the scope again: a request is freed when it ends
            self._close(extended, status, perf_counter() - began)

    def _close(self, scope: dict[str, Any], status: int, seconds: float) -> None:
        method = scope["method"]
        route = scope.get("path_template", _UNMATCHED)
        self._metrics.request(route, method if method in _METHODS else "other", status, seconds)
        told = method not in _READS or status >= 500 or seconds > SLOW_S
        if told or _stdlib.isEnabledFor(logging.DEBUG):
            user = scope.get("user")
            (_log.info if told else _log.debug)(
                "request",
                method=method,
                route=route,
                status=status,
                ms=round(seconds * 1000, 3),
                user=user.user if user is not None else None,
            )
