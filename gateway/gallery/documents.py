"""How the gallery's answers are described to clients, with examples that could be real."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIType

from gateway.once import WriteOperation
from gateway.openapi import EXAMPLE_VERSION, example, problem_spec
from primary.gallery import image

IMAGE: dict[str, Any] = {
    "id": "3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c11",
    "prompt": "a tide pool with anemones at dawn, watercolour",
    "negative_prompt": "text, watermark",
    "image_url": "https://images.example/3f0c2a52.png",
    "model": "sdxl-1.0",
    "seed": 1234567,
    "steps": 30,
    "width": 1024,
    "height": 1024,
    "source": "message_response",
    "persona_id": None,
    "persona_name": None,
    "alt_text": "A tide pool with anemones at dawn",
    "description": None,
    "meta": {"sampler": "Euler a"},
    "created_at": "2025-03-01T08:00:00.000000Z",
    "updated_at": "2025-03-01T08:00:00.000000Z",
    "row_version": 1,
    "is_favorite": False,
    "rating": None,
    "view_count": 0,
    "o_count": 0,
    "usage_count": 0,
    "last_viewed_at": None,
}
CURSOR = "MjAyNS0wMy0wMVQwODowMDowMC4wMDAwMDBaCTNmMGMyYTUyLTdkNWUtNGE4My05ZDBlLTZhNGEwYjZmNmMxMQ"

FIELDS = [(name, dict[str, Any] if name == "meta" else kind) for name, kind in get_type_hints(image.Image).items()]
"""The members of an image, and their types."""

Image = msgspec.defstruct("Image", FIELDS)
ImageAnswer = msgspec.defstruct("ImageAnswer", [*FIELDS, ("version", str)])


class ImagesAnswer(msgspec.Struct):
    """Images that were saved together, in the order of the request."""

    images: list[Image]  # type: ignore[valid-type]
    version: str


class PageAnswer(msgspec.Struct):
    """Some images of a list. ``next_cursor`` asks for those that follow; null at the end."""

    images: list[Image]  # type: ignore[valid-type]
    next_cursor: str | None
    version: str


class DeletedTogetherAnswer(msgspec.Struct):
    """Which images are gone, and from which version on."""

    ids: list[str]
    version: str


class DeletedAnswer(msgspec.Struct):
    """Which image is gone, and from which version on."""

    id: str
    version: str


def told(kind: Any, description: str, value: dict[str, Any]) -> ResponseSpec:
    """Describe an answer, with an example of it to which a version is added."""
    return ResponseSpec(
        kind,
        generate_examples=False,
        description=description,
        examples=[example(value | {"version": EXAMPLE_VERSION})],
    )


SAVED = told(ImageAnswer, "The image as it is stored.", IMAGE)
SAVED_BEFORE = told(ImageAnswer, "The image as it is stored: its id was there before.", IMAGE)
CHANGED = told(ImageAnswer, "The image as it is now.", IMAGE | {"row_version": 2})
SAVED_TOGETHER = told(ImagesAnswer, "The images as they are stored.", {"images": [IMAGE]})
PAGE = told(PageAnswer, "A page of images.", {"images": [IMAGE], "next_cursor": CURSOR})
CHANGED_TOGETHER = told(ImagesAnswer, "The images as they are now.", {"images": [IMAGE | {"row_version": 2}]})
DELETED_TOGETHER = told(DeletedTogetherAnswer, "The images are gone.", {"ids": [IMAGE["id"]]})
DELETED = told(DeletedAnswer, "The image is gone.", {"id": IMAGE["id"]})

NOT_FOUND = problem_spec(404, "not_found", "there is no such image")


@dataclass
class ConditionalEdit(WriteOperation):
    """An edit that can be told which state of the row it is meant for."""

    def __post_init__(self) -> None:
        told = 'The `row_version` that it must still be at, as in `"3"`; otherwise the answer is 412.'
        schema = Schema(type=OpenAPIType.STRING, examples=['"3"'])
        self.parameters = [
            *(self.parameters or []),
            Parameter("If-Match", "header", description=told, schema=schema),
        ]
        super().__post_init__()
