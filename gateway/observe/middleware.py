"""The outermost layer: it names and counts every request, and writes a line about some of them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from time import perf_counter
from typing import Any, cast

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from gateway.observe.metrics import Metrics
from gateway.observe.request_ids import HEADER, is_fit, maker, put_request_id

SLOW_S = 1.0  # a request that took longer is worth a line whatever it was

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = _READS | {"POST", "PUT", "PATCH", "DELETE"}
_UNMATCHED = "unmatched"  # one label for all paths that are no route

_log = structlog.get_logger("tidepool.requests")
_stdlib = logging.getLogger("tidepool.requests")  # only to ask, cheaply, whether debug is wanted


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

        # Not a coroutine of its own: it hands on the one that sends.
        def named(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (HEADER, request_id)]
            return send(message)

        try:
            await self._app(scope, receive, cast("Send", named))
        finally:
            self._close(cast("dict[str, Any]", scope), status, perf_counter() - began)

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
