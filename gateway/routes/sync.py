"""Bringing the asking user's replica up to date."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from gateway.bodies import StrictRequest
from gateway.openapi import EXAMPLE_VERSION, problem_spec
from gateway.parameters import only
from gateway.parts import Parts
from gateway.problems import invalid_request
from gateway.validation import FieldError
from primary.cursor import Cursor
from primary.errors import InvalidCursor
from replica.results import SyncResult


class SyncRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Asks for a version; without one, for what there is."""

    min_version: Annotated[str | None, msgspec.Meta(examples=[EXAMPLE_VERSION])] = None


class SyncAnswer(msgspec.Struct):
    """Where the replica stands now, the number of rows written into it, and whether it was built anew."""

    version: Annotated[str, msgspec.Meta(examples=[EXAMPLE_VERSION])]
    applied: Annotated[int, msgspec.Meta(examples=[1])]
    rebuilt: Annotated[bool, msgspec.Meta(examples=[False])]


_OTHER_EPOCH = problem_spec(409, "cursor_epoch_changed", "the cursor is of another primary than the one there is now")
_NOT_REACHED = problem_spec(504, "version_not_reached", "the replica did not get there in time")


def routes(parts: Parts) -> list[HTTPRouteHandler]:
    """Give the routes, to be mounted below /api."""
    store, freshness = parts.store, parts.freshness

    # The second path is the one of the first clients. It is a plain path, which wins over /images/{id}.
    @post(
        ["/sync", "/images/sync"],
        status_code=200,
        responses={409: _OTHER_EPOCH, 504: _NOT_REACHED},
        tags=["sync"],
        summary="Bring the replica up to date",
    )
    async def sync_replica(request: StrictRequest, data: JSONBody[SyncRequest | None] = None) -> SyncAnswer:
        """Pull what changed in the primary since the replica's cursor, and apply it.

        With `min_version` the answer waits, within bounds, until the replica is there.
        """
        only(request.scope)
        user = request.user.user
        wanted = _wanted(data)
        result = await store.sync(user)
        if wanted is not None and not result.version.covers(wanted):
            await freshness.reach(user, wanted)
            result = SyncResult(await store.cursor(user), result.applied, result.rebuilt)
        return SyncAnswer(str(result.version), result.applied, result.rebuilt)

    return [sync_replica]


def _wanted(data: SyncRequest | None) -> Cursor | None:
    if data is None or data.min_version is None:
        return None
    try:
        return Cursor.parse(data.min_version)
    except InvalidCursor as error:
        raise invalid_request([FieldError("min_version", str(error))]) from None
