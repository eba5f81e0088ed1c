"""The reads that are asked for most, answered as soon as it is known which route is asked for, and by whom.

What Litestar does between a route and its handler (a request, hooks, parameters by name, an answer made of what comes
back) is for routes that use it. A read of a page uses none of that, and it took 16 µs of 110.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from gateway.answers import Answer
from gateway.bodies import StrictRequest

Read = Callable[[HTTPScope], Awaitable[Answer]]


def straight(path: str, **described: Any) -> Callable[[Read], HTTPRouteHandler]:
    """Make a GET route of a function of the request's scope; ``described`` is what `litestar.get` takes.

    @straight("/things", operation_class=FreshRead, responses={200: THINGS}, summary="List things")
    async def list_things(scope: HTTPScope) -> Answer:
        user = scope["user"].user

    The function answers as the innermost middleware of its route: after who asks is known, and in front of Litestar's
    handling of requests, which is never reached. What it raises is answered as everywhere.
    """

    def made(read: Read) -> HTTPRouteHandler:
        def answering(app: ASGIApp) -> ASGIApp:  # noqa: ARG001 - nothing is left for it to do
            async def answer(scope: Scope, receive: Receive, send: Send) -> None:
                await (await read(cast("HTTPScope", scope)))(scope, receive, send)

            return answer

        async def handler(request: StrictRequest) -> Answer:
            return await read(request.scope)

        handler.__name__, handler.__doc__ = read.__name__, read.__doc__
        return get(path, middleware=[answering], **described)(handler)

    return made
