"""The routes by which a user turns their mirror on and off. How it goes is told by GET /api/me, from the replica."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from litestar import delete, put
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec
from litestar.params import JSONBody

from gateway.answers import Answer
from gateway.bodies import StrictRequest
from gateway.gallery.mirror.sealing import ApiKey, Sealer
from gateway.once import Done, WriteOperation
from gateway.openapi import EXAMPLE_VERSION, example, problem_spec
from gateway.outbound.endpoint import URL_MAX_CHARS, EndpointRefused, NotFound, check_endpoint, resolve
from gateway.parameters import only
from gateway.parts import Parts
from gateway.problems import invalid_request
from gateway.validation import FieldError
from primary.gallery import upstreams
from primary.gallery.upstreams import KeyNeeded
from primary.write import Write

_LOOKUP_TIMEOUT_S = 2  # a name that is not found by then is checked when it is connected to, as every name is
_KEY_MAX_CHARS = 4_096  # Stash's are tokens of some 150; one header must hold it


class UpstreamSettings(msgspec.Struct, forbid_unknown_fields=True):
    """Where to mirror ratings and O counts to. Without a key, the stored one stays, for the same endpoint alone."""

    endpoint: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=URL_MAX_CHARS,
            description="Of a Stash-compatible GraphQL server, by http or https.",
            examples=["https://stash.example/graphql"],
        ),
    ]
    api_key: (
        Annotated[
            str,
            msgspec.Meta(
                min_length=1,
                max_length=_KEY_MAX_CHARS,
                pattern="^[!-~]+$",  # what a header can hold; it is never shown again
                description="Opens the server. It is stored encrypted, and told to nobody else.",
                examples=["a-key-that-stash-made"],
            ),
        ]
        | None
    ) = None
    enabled: Annotated[bool, msgspec.Meta(description="The profile's `sync_upstream`.", examples=[True])] = True

    def __repr__(self) -> str:
        return f"UpstreamSettings(endpoint={self.endpoint!r}, enabled={self.enabled})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("endpoint", self.endpoint), ("enabled", self.enabled)]


class UpstreamSaved(msgspec.Struct):
    """The settings as they are stored, and how many changes wait. ``parked`` is none: saving tries everything again."""

    enabled: bool
    endpoint: str
    pending: int
    parked: int
    version: str


class UpstreamForgotten(msgspec.Struct):
    """There are no such settings from this version on."""

    enabled: bool
    version: str


_SAVED = ResponseSpec(
    UpstreamSaved,
    generate_examples=False,
    description="The settings as they are stored.",
    examples=[
        example(
            {
                "enabled": True,
                "endpoint": "https://stash.example/graphql",
                "pending": 0,
                "parked": 0,
                "version": EXAMPLE_VERSION,
            }
        )
    ],
)
_FORGOTTEN = ResponseSpec(
    UpstreamForgotten,
    generate_examples=False,
    description="There is no mirror.",
    examples=[example({"enabled": False, "version": EXAMPLE_VERSION})],
)

_UNKNOWN = problem_spec(422, "invalid_request", "force: is not a parameter of this route")


def routes(parts: Parts) -> list[HTTPRouteHandler]:
    """Give the routes, to be mounted below /api."""
    writes = parts.writes
    private_allowed = parts.settings.mirror_private_addresses_allowed
    sealer = Sealer.of(parts.settings)

    @put(
        "/me/upstream",
        operation_class=WriteOperation,
        responses={200: _SAVED},
        tags=["me"],
        summary="Mirror to a server of mine",
    )
    async def save_upstream(request: StrictRequest, data: JSONBody[UpstreamSettings]) -> Answer:
        """Mirror what I rate and count from now on, of images whose `meta.stash_id` names them there.

        Whatever failed or was parked is tried again at once. `enabled: false` stops it, and drops what waits; the
        endpoint and its key stay. How it goes is in `GET /api/me`.
        """
        only(request.scope)
        user = request.user.user
        await _check(data.endpoint, private_allowed=private_allowed)
        sealed = sealer.seal(ApiKey(data.api_key), user, data.endpoint) if data.api_key is not None else None

        async def save(write: Write) -> Done:
            saved = await upstreams.save(write, endpoint=data.endpoint, sealed_key=sealed, enabled=data.enabled)
            stored = {"enabled": data.enabled, "endpoint": saved.endpoint}
            return Done(msgspec.json.encode(stored | {"pending": saved.pending, "parked": saved.parked})[1:-1])

        try:
            return await writes.answer(request, save)
        except KeyNeeded:
            raise invalid_request([FieldError("api_key", "must be given for a new endpoint")]) from None

    @delete(
        "/me/upstream",
        status_code=200,
        operation_class=WriteOperation,
        responses={200: _FORGOTTEN, 422: _UNKNOWN},
        tags=["me"],
        summary="Forget my server",
    )
    async def forget_upstream(request: StrictRequest) -> Answer:
        """Stop mirroring, and forget the endpoint, its key and what waits. What arrived there stays there."""
        only(request.scope)

        async def forget(write: Write) -> Done:
            await upstreams.forget(write)
            return Done(b'"enabled":false')

        return await writes.answer(request, forget)

    return [save_upstream, forget_upstream]


async def _check(endpoint: str, *, private_allowed: bool) -> None:
    """Refuse an endpoint that would not be asked. Raises a `Problem`."""
    try:
        check_endpoint(endpoint, private_allowed=private_allowed)
        parts = urlsplit(endpoint)
        with contextlib.suppress(NotFound, TimeoutError):
            async with asyncio.timeout(_LOOKUP_TIMEOUT_S):
                await resolve(parts.hostname or "", parts.port or 0, private_allowed=private_allowed)
    except EndpointRefused as error:
        raise invalid_request([FieldError("endpoint", str(error))]) from None
