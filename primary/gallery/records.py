"""What may be written: the records of the gallery and what makes them fit, with every fault named.

    check(msgspec.json.decode(body, type=NewImage))
    convert(NewImage, {"prompt": "a pool", "image_url": "https://…"})

A field that is not given (`UNSET`) is left as it is, or to its default; one that is given as null is emptied.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from json import dumps
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from primary.gallery import limits
from primary.gallery.errors import Fault, InvalidRecord

Id = Annotated[UUID, Meta(examples=["3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c11"])]
Prompt = Annotated[
    str, Meta(min_length=1, max_length=limits.PROMPT_MAX_CHARS, examples=["a tide pool at dawn, watercolour"])
]
NegativePrompt = Annotated[str, Meta(max_length=limits.PROMPT_MAX_CHARS, examples=["text, watermark"])]
Url = Annotated[
    str, Meta(min_length=1, max_length=limits.URL_MAX_CHARS, examples=["https://images.example/3f0c2a52.png"])
]
Model = Annotated[str, Meta(max_length=limits.NAME_MAX_CHARS, examples=["sdxl-1.0"])]
Persona = Annotated[str, Meta(max_length=limits.NAME_MAX_CHARS, examples=["Marina"])]
Source = Annotated[str, Meta(min_length=1, max_length=limits.NAME_MAX_CHARS, examples=["message_response"])]
AltText = Annotated[str, Meta(max_length=limits.ALT_TEXT_MAX_CHARS, examples=["A tide pool at dawn"])]
Description = Annotated[str, Meta(max_length=limits.DESCRIPTION_MAX_CHARS, examples=["The first of a series."])]
Seed = Annotated[int, Meta(ge=limits.SEED_MIN, le=limits.SEED_MAX, examples=[1_234_567])]
Steps = Annotated[int, Meta(ge=1, le=limits.STEPS_MAX, examples=[30])]
Side = Annotated[int, Meta(ge=1, le=limits.SIDE_MAX_PX, examples=[1_024])]
Moment = Annotated[datetime, Meta(tz=True, examples=["2025-03-01T08:00:00Z"])]
RowVersion = Annotated[int, Meta(ge=1, le=2**63 - 1, examples=[1])]
Document = Annotated[dict[str, Any], Meta(examples=[{"sampler": "Euler a"}])]


class Record(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Fields for one row, of which not all need be given."""

    def given(self) -> dict[str, Any]:
        """Give the fields that were given, by column name."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not UNSET}


class NewImage(Record):
    """An image to be saved. With an ``id`` of the client's making it can be sent again without harm."""

    prompt: Prompt
    image_url: Url
    id: Id | UnsetType = UNSET
    negative_prompt: NegativePrompt | UnsetType | None = UNSET
    model: Model | UnsetType | None = UNSET
    seed: Seed | UnsetType | None = UNSET
    steps: Steps | UnsetType | None = UNSET
    width: Side | UnsetType | None = UNSET
    height: Side | UnsetType | None = UNSET
    source: Source | UnsetType = UNSET
    persona_id: Persona | UnsetType | None = UNSET
    persona_name: Persona | UnsetType | None = UNSET
    alt_text: AltText | UnsetType | None = UNSET
    description: Description | UnsetType | None = UNSET
    meta: Document | UnsetType = UNSET
    created_at: Moment | UnsetType = UNSET


class ImagePatch(Record):
    """What is to change of an image: at least one field."""

    prompt: Prompt | UnsetType = UNSET
    image_url: Url | UnsetType = UNSET
    negative_prompt: NegativePrompt | UnsetType | None = UNSET
    model: Model | UnsetType | None = UNSET
    seed: Seed | UnsetType | None = UNSET
    steps: Steps | UnsetType | None = UNSET
    width: Side | UnsetType | None = UNSET
    height: Side | UnsetType | None = UNSET
    source: Source | UnsetType = UNSET
    persona_id: Persona | UnsetType | None = UNSET
    persona_name: Persona | UnsetType | None = UNSET
    alt_text: AltText | UnsetType | None = UNSET
    description: Description | UnsetType | None = UNSET
    meta: Document | UnsetType = UNSET


class ImageBatch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Images to be saved together, all or none, the oldest first."""

    images: Annotated[list[NewImage], Meta(min_length=1)]


class ImageChange(ImagePatch, kw_only=True):
    """An edit among several: of which image, and if told only if that is still at ``row_version``."""

    id: Id
    row_version: RowVersion | UnsetType = UNSET

    def changes(self) -> dict[str, Any]:
        """Give the fields that are to change."""
        return {name: value for name, value in self.given().items() if name not in {"id", "row_version"}}


class ImageChanges(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Images to be edited together, all or none."""

    images: Annotated[list[ImageChange], Meta(min_length=1)]


class ImageIds(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Images that are meant together."""

    ids: Annotated[list[Id], Meta(min_length=1, examples=[["3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c11"]])]


R = TypeVar("R", bound=Record)


def convert(kind: type[R], values: dict[str, Any]) -> R:
    """Make a record of values, dates as ISO 8601 text, ids as text. Raises `InvalidRecord`."""
    if faults := list(_misfits(kind, values)):
        raise InvalidRecord(faults)
    return check(msgspec.convert(values, kind))


def check(record: R) -> R:
    """Give the record if it can be stored. Raises `InvalidRecord`.

    The types of its values must be right, as they are in a record that msgspec made; this looks at the rest.
    """
    given = record.given()
    faults = [Fault(name, reason) for name, reason in beyond_types(given)]
    if not given:  # a patch, for nothing in it is required
        faults.append(Fault("", "names no field to change"))
    if faults:
        raise InvalidRecord(faults)
    return record


def check_batch(records: Sequence[NewImage]) -> None:
    """Check images that are to be saved together, ids that repeat included. Raises `InvalidRecord`.

    Fields are named as in ``images[3].prompt``.
    """
    faults = []
    for place, record in enumerate(records):
        faults += [Fault(f"images[{place}].{name}", reason) for name, reason in beyond_types(record.given())]
    faults += repeated([record.id for record in records], "images[{}].id")
    if faults:
        raise InvalidRecord(faults)


def check_changes(records: Sequence[ImageChange]) -> None:
    """Check edits that are to be made together, as `check_batch` does images."""
    faults = []
    for place, record in enumerate(records):
        faults += [Fault(f"images[{place}].{name}", reason) for name, reason in beyond_types(record.given())]
        if not record.changes():
            faults.append(Fault(f"images[{place}]", "names no field to change"))
    faults += repeated([record.id for record in records], "images[{}].id")
    if faults:
        raise InvalidRecord(faults)


def repeated(ids: Sequence[UUID | UnsetType], field: str) -> list[Fault]:
    """Find ids that are given again; ``field`` says where one is, as in ``ids[{}]``."""
    first: dict[UUID, int] = {}
    return [
        Fault(field.format(place), f"is the id of {field.format(first[one]).removesuffix('.id')} too")
        for place, one in enumerate(ids)
        if one is not UNSET and first.setdefault(one, place) != place
    ]


def _misfits(kind: type[msgspec.Struct], values: dict[str, Any]) -> Iterator[Fault]:
    """Check each field by itself, so that all that are wrong are named (source: the types of the record)."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for name, field in fields.items():
        if name in values:
            try:
                value = msgspec.convert(values[name], field.type)
            except (msgspec.ValidationError, RecursionError) as error:
                reason = _words(error)
            else:
                reason = _refusal(name, value)
            if reason:
                yield Fault(name, reason)
        elif field.required:
            yield Fault(name, "is missing")
    yield from (Fault(name, "is not a field that can be given") for name in values if name not in fields)


def _words(error: BaseException) -> str:
    """Give msgspec's message without the place, which the fault's field says."""
    message = str(error).partition(" - at ")[0].replace("`", "")
    return message[:1].lower() + message[1:]


def beyond_types(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give each of a record's given fields that cannot be stored although its type is right, and why."""
    for name, value in given.items():
        if reason := _refusal(name, value):
            yield name, reason


def _refusal(name: str, value: Any) -> str:
    """Check what types cannot say: blanks, texts and times that Postgres has no place for, deep documents."""
    match value:
        case str():
            if name in {"prompt", "image_url", "title"} and not value.strip():
                return "must not be blank"
            return _unstorable(value)
        case datetime():
            try:
                value.astimezone(UTC)
            except OverflowError:
                return "must be of the years 1 to 9999 in UTC"
        case dict() if value:
            return _misfit(value, limits.META_MAX_DEPTH) or _oversize(value)
    return ""


def _oversize(document: Document) -> str:
    try:
        size_bytes = len(dumps(document, ensure_ascii=False, separators=(",", ":")).encode())
    except (TypeError, ValueError) as error:
        return f"cannot be written as JSON: {error}"
    if size_bytes > limits.META_MAX_BYTES:
        return f"must be at most {limits.META_MAX_BYTES} bytes of JSON, not {size_bytes}"
    return ""


def _unstorable(text: str) -> str:
    if "\0" in text:
        return "must not hold the character U+0000"
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        return f"must be Unicode text, without the lone surrogate at position {error.start}"
    return ""


def _misfit(value: Any, depth_left: int) -> str:
    match value:
        case str():
            return _unstorable(value)
        case float() if not math.isfinite(value):
            return "must not hold NaN or Infinity"
        case dict() | list():
            if depth_left == 0:
                return f"must not be nested deeper than {limits.META_MAX_DEPTH}"
            members = [*value, *value.values()] if isinstance(value, dict) else value
            return next(filter(None, (_misfit(member, depth_left - 1) for member in members)), "")
    return ""
