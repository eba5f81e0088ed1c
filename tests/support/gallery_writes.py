"""Every write of the gallery over HTTP, as a table that tests go through: no route can be forgotten by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.http import IMAGE, save

IMAGE_ID = "3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c11"
OTHER_ID = "3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c12"
THIRD_ID = "3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c13"
ALBUM_ID = "b3c1d5a0-40f5-4f0e-8e0a-2f2b5d1f7a10"


@dataclass(frozen=True)
class Asked:
    """A write that changes something where `furnish` was called before, and another body for the same route."""

    body: Any = None
    other: Any = None


UPSTREAM = {"endpoint": "https://93.184.215.14/graphql", "api_key": "a-key"}

# Where a route takes no body, another request under its key is another path.
WRITES: dict[str, Asked] = {
    "POST /api/images": Asked(IMAGE, IMAGE | {"prompt": "else"}),
    "POST /api/images/batch": Asked({"images": [IMAGE, IMAGE]}, {"images": [IMAGE]}),
    "PATCH /api/images": Asked(
        {"images": [{"id": IMAGE_ID, "prompt": "else"}]}, {"images": [{"id": IMAGE_ID, "prompt": "other"}]}
    ),
    "DELETE /api/images": Asked({"ids": [IMAGE_ID]}, {"ids": [OTHER_ID]}),
    "PATCH /api/images/{image_id}": Asked({"alt_text": "new"}, {"alt_text": "newer"}),
    "DELETE /api/images/{image_id}": Asked(),
    "PUT /api/images/{image_id}/favorite": Asked({"favorite": True}, {"favorite": False}),
    "POST /api/images/{image_id}/favorite": Asked(),
    "PUT /api/images/{image_id}/rating": Asked({"rating": 85}, {"rating": None}),
    "POST /api/images/{image_id}/views": Asked(None, {"client_event_id": "e"}),
    "POST /api/images/{image_id}/o": Asked({}, {"client_event_id": "e"}),
    "POST /api/images/{image_id}/usage": Asked({"occurred_at": "2025-01-01T00:00:00Z"}, {}),
    "DELETE /api/images/{image_id}/o": Asked(),
    "POST /api/albums": Asked({"title": "High water"}, {"title": "Ebb"}),
    "PATCH /api/albums/{album_id}": Asked({"title": "Ebb"}, {"title": "Flow"}),
    "DELETE /api/albums/{album_id}": Asked(),
    "POST /api/albums/{album_id}/images": Asked(
        {"images": [{"image_id": THIRD_ID}]}, {"images": [{"image_id": THIRD_ID, "caption": "c"}]}
    ),
    "PUT /api/albums/{album_id}/images": Asked(
        {"image_ids": [OTHER_ID, IMAGE_ID]}, {"image_ids": [IMAGE_ID, OTHER_ID]}
    ),
    "PUT /api/albums/{album_id}/images/{image_id}": Asked({"caption": "here"}, {"caption": "there"}),
    "PATCH /api/albums/{album_id}/images/{image_id}": Asked({"after": OTHER_ID}, {"caption": "there"}),
    "DELETE /api/albums/{album_id}/images/{image_id}": Asked(),
    "PUT /api/me/upstream": Asked(UPSTREAM | {"enabled": False}, UPSTREAM),
    "DELETE /api/me/upstream": Asked(),
}

CONDITIONAL = {
    f"{method} /api/{row}" for method in ("PATCH", "DELETE") for row in ("images/{image_id}", "albums/{album_id}")
}
"""Those that look at If-Match: what has a row version is edited or deleted."""


def path_of(route: str) -> tuple[str, str]:
    """Give the method and the path of a route, for the furnished image and album."""
    method, _, path = route.partition(" ")
    return method, path.replace("{image_id}", IMAGE_ID).replace("{album_id}", ALBUM_ID)


async def furnish(client: httpx.AsyncClient) -> None:
    """Make three images, one with an o, an album with two of them, and a mirror that has nothing to do."""
    for id_ in (IMAGE_ID, OTHER_ID, THIRD_ID):
        await save(client, id=id_)
    await asked(client, "POST", f"/api/images/{IMAGE_ID}/o")
    await asked(client, "POST", "/api/albums", {"id": ALBUM_ID, "title": "Low water"})
    await put(client, ALBUM_ID, IMAGE_ID, OTHER_ID)
    await asked(client, "PUT", "/api/me/upstream", UPSTREAM)


async def asked(client: httpx.AsyncClient, method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
    """Ask for something that is done, and give the answer."""
    answer = await client.request(method, path, json=body, headers=headers)
    assert answer.status_code in {200, 201}, f"{method} {path}: {answer.status_code} {answer.text}"
    found: dict[str, Any] = answer.json()
    return found


async def put(client: httpx.AsyncClient, album_id: str, *image_ids: str) -> dict[str, Any]:
    """Put images into an album, in this order."""
    images = [{"image_id": image_id} for image_id in image_ids]
    return await asked(client, "POST", f"/api/albums/{album_id}/images", {"images": images})


async def reads(client: httpx.AsyncClient, image_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sync, as a page does when it is refreshed, and give the image as it is shown by itself, and in the list."""
    await asked(client, "POST", "/api/sync")
    alone = (await client.get(f"/api/images/{image_id}")).json()
    listed = (await client.get("/api/images")).json()["images"]
    return alone, next(image for image in listed if image["id"] == image_id)
