"""The parts that routes are made of, put together once and handed to each."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.events.streams import Streams
from gateway.exports.places import Places
from gateway.freshness import Freshness
from gateway.observe.metrics import Metrics
from gateway.once import Writes
from gateway.settings import Settings
from primary.declaration import Catalog
from primary.postgres import Primary
from replica.follower import Follower
from replica.store import Store


@dataclass(frozen=True, slots=True)
class Parts:
    """What a handler works with. A module of routes is a function that takes the parts and gives handlers.

    def routes(parts: Parts) -> list[HTTPRouteHandler]:
        @get("/things", operation_class=FreshRead)
        async def things(request: StrictRequest) -> Answer:
            user = request.user.user
    """

    settings: Settings
    primary: Primary
    store: Store
    follower: Follower
    streams: Streams
    catalog: Catalog
    metrics: Metrics
    freshness: Freshness
    writes: Writes
    exports: Places
