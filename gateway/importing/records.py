"""From what was found to what can be saved: names, checks, and an id that is the same every time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import msgspec

from gateway.importing.errors import InputError
from gateway.importing.found import Found, Refused
from primary.gallery import records
from primary.gallery.errors import Fault, InvalidRecord
from primary.gallery.records import NewImage

FIELDS = NewImage.__struct_fields__
NUMBERS = frozenset(("seed", "steps", "width", "height"))
DOCUMENTS = frozenset(("meta",))
NEEDED = ("prompt", "image_url")

Unknown = Literal["error", "meta", "ignore"]
"""What becomes of a field that images do not have: refuse the record, keep it in `meta`, or drop it."""

_NAMESPACE = UUID("6f0c7a0a-5f4b-5b0e-9a57-7d1de9001a6e")
"""Ids are made in it for ever: another one would let every import happen a second time."""

_encoder = msgspec.json.Encoder(order="sorted")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


_FIELD_OF = {spelling: name for name in FIELDS for spelling in (name, _camel(name))}


@dataclass(frozen=True, slots=True)
class ImportedRecord:
    """An image that is ready to be saved, its id included, where it came from, and its size as JSON."""

    origin: str
    image: NewImage
    size_bytes: int


def columns(header: Sequence[str], unknown: Unknown) -> list[str]:
    """Name the fields of a table's columns; unknown columns keep their names.

    Raises `InputError` for what would be wrong with every single row.
    """
    names = [_FIELD_OF.get(name, name) for name in header]
    if "" in names:
        raise InputError(f"Column {names.index('') + 1} has no name in the header row.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"The header row names {_listed(twice)} more than once.")
    if missing := [name for name in NEEDED if name not in names]:
        raise InputError(f"The header row does not name {_listed(missing)}, which every image needs.")
    if unknown == "error" and (strange := [name for name in names if name not in FIELDS]):
        raise InputError(
            f"Images have no field {_listed(strange)}.",
            hint="Keep such columns in `meta` with --unknown=meta, or drop them with --unknown=ignore.",
        )
    return names


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


class Recorder:
    """Turns what was found in one input into records of one user.

    The id of a record is, in this order: the one that it names; made from the user and ``content``, where
    the reader gave one; made from the user, the record's values and how many equal records came before it in
    the same input. So a second import of the same input finds every record there already, and equal records
    stay as many as they are.
    """

    def __init__(self, user: str, *, unknown: Unknown = "error") -> None:
        self._user = user
        self._unknown = unknown
        # About 100 bytes for each record without an id, for the length of the import.
        self._seen: set[int] = set()
        self._repeats: dict[int, int] = {}

    def record(self, found: Found) -> ImportedRecord | Refused:
        """Check one record; never raises for what is in it."""
        try:
            image = _checked(self._named(found.values))
        except InvalidRecord as error:
            return Refused(found.origin, error.faults)
        content = _encoder.encode(image)
        if image.id is msgspec.UNSET:
            image.id = self._id(found.content.encode(), 0) if found.content else self._id_of(content)
        return ImportedRecord(found.origin, image, len(content))

    def _named(self, values: dict[str, object]) -> dict[str, object]:
        """Give the values their fields' names, and leave out those that are null."""
        named: dict[str, object] = {}
        strange: dict[str, object] = {}
        for spelling, value in values.items():
            name = _FIELD_OF.get(spelling)
            if name is None:
                strange[spelling] = value
            elif name in named:
                raise InvalidRecord([Fault(name, "is given twice")])
            elif value is not None:
                named[name] = value
        if strange and self._unknown != "ignore":
            if self._unknown == "error":
                raise InvalidRecord([Fault(name, "is not a field of an image") for name in strange])
            named["meta"] = _with(named.get("meta", {}), strange)
        if isinstance(moment := named.get("created_at"), str):
            named["created_at"] = _moment(moment)
        return named

    def _id_of(self, content: bytes) -> UUID:
        id_ = self._id(content, 0)
        key = id_.int >> 64
        if key not in self._seen:
            self._seen.add(key)
            return id_
        self._repeats[key] = repeat = self._repeats.get(key, 0) + 1
        return self._id(content, repeat)

    def _id(self, content: bytes, repeat: int) -> UUID:
        """Make a version 5 UUID (RFC 9562) of the user, the content and its repeat."""
        name = msgspec.json.encode([self._user, repeat]) + content
        digest = hashlib.sha1(_NAMESPACE.bytes + name, usedforsecurity=False).digest()
        return UUID(bytes=digest[:16], version=5)


def _checked(values: dict[str, object]) -> NewImage:
    try:
        image = msgspec.convert(values, NewImage)
    except (msgspec.ValidationError, RecursionError):
        # Slower, and names every fault rather than the first.
        return records.convert(NewImage, values)
    return records.check(image)


def _with(meta: object, strange: dict[str, object]) -> object:
    if not isinstance(meta, dict):
        return meta  # refused by the check that follows
    if both := [name for name in strange if name in meta]:
        raise InvalidRecord([Fault(f"meta.{name}", "is there already, and is given beside it") for name in both])
    return meta | strange


def _moment(text: str) -> datetime:
    """Read an ISO 8601 time; one that does not tell its zone is UTC."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidRecord([Fault("created_at", "is not an ISO 8601 time")]) from None
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise InvalidRecord([Fault("created_at", "must be of the years 1 to 9999 in UTC")]) from None
