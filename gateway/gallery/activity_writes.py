"""The routes for hearts, ratings, and what is counted. All answer with the totals of the image as they are then."""

from __future__ import annotations

from typing import Annotated, Any, get_type_hints

import msgspec
from litestar import delete, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from gateway.answers import Answer
from gateway.bodies import StrictRequest
from gateway.gallery.asked import image_id_asked
from gateway.gallery.documents import IMAGE, NOT_FOUND, told
from gateway.once import Done, WriteOperation
from gateway.openapi import problem_spec
from gateway.parameters import only
from gateway.parts import Parts
from primary.gallery import activity, events, limits
from primary.gallery.events import Happened, Kind
from primary.gallery.image import Activity
from primary.write import Write


class Favorite(msgspec.Struct, forbid_unknown_fields=True):
    """Whether an image is a favourite."""

    favorite: Annotated[bool, Meta(examples=[True])]


class Rating(msgspec.Struct, forbid_unknown_fields=True):
    """How an image is rated; null takes the rating away."""

    rating: Annotated[int, Meta(ge=0, le=limits.RATING_MAX, examples=[85])] | None


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """An empty object. A request that needs no body may send one; what it says in it would be passed over."""


ActivityAnswer: Any = msgspec.defstruct("ActivityAnswer", [*get_type_hints(Activity).items(), ("version", str)])

_EXAMPLE = {name: IMAGE[name] for name in Activity.__struct_fields__}
_NOW = told(ActivityAnswer, "What is known of the image now.", _EXAMPLE | {"is_favorite": True, "rating": 85})
_COUNTED = told(ActivityAnswer, "The totals of the image now.", _EXAMPLE | {"view_count": 1})
_TAKEN = problem_spec(409, "client_event_id_taken", "The client_event_id already belongs to another event.")


def routes(parts: Parts) -> list[HTTPRouteHandler]:
    """Give the routes, to be mounted below /api."""
    writes = parts.writes
    described: dict[str, Any] = {"operation_class": WriteOperation, "responses": {200: _NOW, 404: NOT_FOUND}}

    @put("/images/{image_id:str}/favorite", summary="Make an image a favourite, or no longer", **described)
    async def set_favorite(request: StrictRequest, image_id: FromPath[str], data: JSONBody[Favorite]) -> Answer:
        """Set whether an image is a favourite. To set what is so already changes nothing."""
        only(request.scope)
        image = image_id_asked(image_id)

        async def favor(write: Write) -> Done:
            return _done(await activity.set_favorite(write, image, data.favorite))

        return await writes.answer(request, favor)

    @post("/images/{image_id:str}/favorite", status_code=200, summary="Toggle a favourite", **described)
    async def toggle_favorite(
        request: StrictRequest,
        image_id: FromPath[str],
        data: JSONBody[Nothing | None] = None,  # noqa: ARG001  (read, so that what it says is refused)
    ) -> Answer:
        """Make an image a favourite if it is none, and else no longer."""
        only(request.scope)
        image = image_id_asked(image_id)

        async def toggle(write: Write) -> Done:
            return _done(await activity.toggle_favorite(write, image))

        return await writes.answer(request, toggle)

    @put("/images/{image_id:str}/rating", summary="Rate an image", **described)
    async def rate(request: StrictRequest, image_id: FromPath[str], data: JSONBody[Rating]) -> Answer:
        """Give an image a rating from 0 to 100, or with null none."""
        only(request.scope)
        image = image_id_asked(image_id)

        async def give(write: Write) -> Done:
            return _done(await activity.rate(write, image, data.rating))

        return await writes.answer(request, give)

    def counting(kind: Kind, name: str, summary: str) -> HTTPRouteHandler:
        @post(
            f"/images/{{image_id:str}}/{name}",
            status_code=200,
            operation_class=WriteOperation,
            responses={200: _COUNTED, 404: NOT_FOUND, 409: _TAKEN},
            summary=summary,
        )
        async def count(
            request: StrictRequest, image_id: FromPath[str], data: JSONBody[Happened | None] = None
        ) -> Answer:
            """Count it, and remember when. With a `client_event_id`, what is reported again is counted once."""
            only(request.scope)
            image, happened = image_id_asked(image_id), events.check_event(data)

            async def add(write: Write) -> Done:
                return _done((await events.count(write, image, kind, happened)).activity)

            return await writes.answer(request, add)

        return count

    @delete("/images/{image_id:str}/o", status_code=200, summary="Take an O back", **described)
    async def take_o_back(request: StrictRequest, image_id: FromPath[str]) -> Answer:
        """Forget the newest O of an image; where there is none, nothing changes."""
        only(request.scope)
        image = image_id_asked(image_id)

        async def take(write: Write) -> Done:
            return _done(await events.take_o_back(write, image))

        return await writes.answer(request, take)

    return [
        set_favorite,
        toggle_favorite,
        rate,
        counting("view", "views", "Count a view of an image"),
        counting("o", "o", "Count an O of an image"),
        counting("usage", "usage", "Count a use of an image"),
        take_o_back,
    ]


def _done(now: Activity) -> Done:
    return Done(msgspec.json.encode(now)[1:-1])
