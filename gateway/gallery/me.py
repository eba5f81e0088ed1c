"""Who is asking: the profile, and the state of the replica that their reads are served from."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec

from gateway.answers import Answer
from gateway.bodies import StrictRequest
from gateway.freshness import MIN_VERSION_PARAMETER
from gateway.openapi import EXAMPLE_VERSION, FreshRead, example
from gateway.parameters import only
from gateway.parts import Parts
from replica.gallery.profiles import profile_and_upstream


class ReplicaState(msgspec.Struct):
    """A replica: the version it is at and since when, the bytes of its files, the rows of each table."""

    version: str
    synced_at: str
    size_bytes: int
    rows: dict[str, int]


class Profile(msgspec.Struct):
    """What a user tells of themselves."""

    username: str | None
    first_name: str | None
    sync_upstream: bool
    settings: dict[str, Any]
    created_at: str
    updated_at: str


class UpstreamState(msgspec.Struct):
    """Where changes are mirrored to, how many wait, how many are parked until they are re-armed, and what failed."""

    enabled: bool
    endpoint: str
    pending: int
    parked: int
    last_error: str | None
    last_error_at: str | None


class Me(msgspec.Struct):
    """Who is asking. ``profile`` is null for a user who has told nothing of themselves, ``upstream`` without one."""

    user: str
    admin: bool
    profile: Profile | None
    upstream: UpstreamState | None
    replica: ReplicaState
    version: str


_EXAMPLE = {
    "user": "ada",
    "admin": False,
    "profile": {
        "username": "ada",
        "first_name": "Ada",
        "sync_upstream": False,
        "settings": {},
        "created_at": "2025-03-01T08:00:00.000000Z",
        "updated_at": "2025-03-01T08:00:00.000000Z",
    },
    "upstream": None,
    "replica": {
        "version": EXAMPLE_VERSION,
        "synced_at": "2025-03-01T08:00:01.250+00:00",
        "size_bytes": 1_257_472,
        "rows": {"image": 1_000, "image_activity": 12, "profile": 1},
    },
    "version": EXAMPLE_VERSION,
}
_ANSWER = ResponseSpec(Me, generate_examples=False, description="Who is asking.", examples=[example(_EXAMPLE)])


def routes(parts: Parts) -> list[HTTPRouteHandler]:
    """Give the routes, to be mounted below /api."""
    store, freshness = parts.store, parts.freshness

    @get("/me", operation_class=FreshRead, responses={200: _ANSWER}, tags=["me"], summary="Who am I?")
    async def me(request: StrictRequest) -> Answer:
        """Give the profile, and the state of the replica that reads are served from."""
        only(request.scope, MIN_VERSION_PARAMETER)
        identity = request.user
        user = identity.user
        if (unchanged := await freshness.before(request.scope, user)) is not None:
            return unchanged
        # The profile first: if a sync comes in between, the answer's version is the older of the two states.
        reading = await store.read(user, profile_and_upstream)
        told, mirrored = reading.value
        replica = await store.describe(user)
        body = msgspec.json.encode(
            {
                "user": user,
                "admin": identity.admin,
                "profile": msgspec.Raw(told or b"null"),
                "upstream": msgspec.Raw(mirrored or b"null"),
                "replica": ReplicaState(str(replica.version), replica.synced_at, replica.bytes, replica.rows),
                "version": str(reading.version),
            }
        )
        return freshness.answer(request.scope, user, reading.version, body)

    return [me]
