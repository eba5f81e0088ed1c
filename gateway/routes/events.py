"""Being told of changes as they happen, instead of asking for them."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import parse_qs

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Operation, Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.types import HTTPScope

from gateway.bodies import StrictRequest
from gateway.events.stream import EventStream, Pace
from gateway.openapi import EXAMPLE_VERSION, problem_spec
from gateway.parameters import only
from gateway.parts import Parts
from gateway.problems import invalid_request
from gateway.validation import FieldError
from primary.cursor import Cursor
from primary.errors import InvalidCursor
from replica import changes
from replica.changes import Changes, Position
from replica.follower import Follower
from replica.store import Store

CHANGES_OF_EVENT_MAX = 500  # of one event; what is more comes in the next one
FEW_CHANGES_MAX = 20  # so many are read on the event loop; of more, it would be held for milliseconds

_TOLD = (
    "A stream of server-sent events: `version` with the cursor of the replica, on connection and after each advance; "
    "with `changes=true` then `changes`, with the rows; `reset` where a client has to read everything again."
)
_NO_CURSOR = problem_spec(422, "invalid_request", "Last-Event-ID: 'x' is not a cursor")
_TOO_MANY = problem_spec(429, "too_many_event_streams", "you have 100 event streams open")


@dataclass
class Listening(Operation):
    """Describes what an event stream is asked for with."""

    def __post_init__(self) -> None:
        cursor = Schema(type=OpenAPIType.STRING, examples=[EXAMPLE_VERSION])
        self.parameters = [
            Parameter("changes", "query", description="Tell the rows too.", schema=Schema(type=OpenAPIType.BOOLEAN)),
            Parameter("since", "query", description="What Last-Event-ID says, for who cannot send it.", schema=cursor),
            Parameter("Last-Event-ID", "header", description="The `id` of the last event.", schema=cursor),
        ]


class _Replica:
    """The replica that a stream tells of."""

    def __init__(self, store: Store, follower: Follower, user: str) -> None:
        self._store = store
        self._follower = follower
        self._user = user

    async def changes(self, position: Position) -> Changes | None:
        if not position.table:  # else there were more than fit into one event
            few = await self._read(position, FEW_CHANGES_MAX, long=False)
            if few is None or few.whole:
                return few
        return await self._read(position, CHANGES_OF_EVENT_MAX, long=True)

    async def _read(self, position: Position, limit: int, *, long: bool) -> Changes | None:
        catalog = self._store.schema.catalog
        read = await self._store.read(
            self._user, lambda connection: changes.since(connection, catalog, position, limit), long=long
        )
        return read.value

    async def checked(self) -> Cursor | None:
        return await self._store.cursor(self._user) if await self._follower.check(self._user) else None


def routes(parts: Parts) -> list[HTTPRouteHandler]:
    """Give the routes, to be mounted below /api."""
    store, follower, streams, settings = parts.store, parts.follower, parts.streams, parts.settings

    @get(
        "/events",
        operation_class=Listening,
        media_type="text/event-stream",
        responses={
            200: ResponseSpec(str, description=_TOLD, media_type="text/event-stream", generate_examples=False),
            422: _NO_CURSOR,
            429: _TOO_MANY,
        },
        tags=["sync"],
        summary="Be told of each change",
    )
    async def events(request: StrictRequest) -> EventStream:
        """Open a stream that tells of each advance of the replica; who connects anew goes on where they were."""
        scope = request.scope
        only(scope, "changes", "since")
        with_changes, told = _asked(scope)
        user = request.user.user
        with ExitStack() as opening:
            watch = opening.enter_context(streams.listen(user))
            await follower.check(user)
            start = await store.cursor(user)
            # A little apart, so that those who came together (after a restart, say) do not come back together.
            age_max_s = settings.event_age_max_s * random.uniform(0.9, 1)  # noqa: S311
            pace = Pace(
                settings.event_heartbeat_s,
                min(age_max_s, request.user.expires_at - time.time()),
                settings.event_stall_max_s,
            )
            replica = _Replica(store, follower, user)
            return EventStream(watch, start, told, pace, opening.pop_all(), replica, with_changes=with_changes)

    return [events]


def _asked(scope: HTTPScope) -> tuple[bool, Cursor | None]:
    """Read whether rows are wanted, and what the client has. Raises a `Problem`."""
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="replace")
    (wanted,) = query.get("changes", ["false"])
    if wanted not in {"true", "false"}:
        raise invalid_request([FieldError("changes", "must be true or false")])
    field, given = "Last-Event-ID", [value for name, value in scope["headers"] if name == b"last-event-id"]
    if not given and "since" in query:
        field, given = "since", [query["since"][0].encode()]
    if not given or given == [b""]:  # a browser that was told no id yet may send an empty one
        return wanted == "true", None
    try:
        return wanted == "true", Cursor.parse(b",".join(given).decode("latin-1"))
    except InvalidCursor as error:
        raise invalid_request([FieldError(field, str(error))]) from None
