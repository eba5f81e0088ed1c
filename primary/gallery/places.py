"""Writes of what is in an album: images put in and taken out, their order and their captions.

    added = await put(write, album_id, [NewPlace(image_id=…)])
    placed = await change(write, album_id, image_id, PlacePatch(before=other_id))
    order = await reorder(write, album_id, [image_id, other_id])
    await take_out(write, album_id, image_id)

The order is that of `position`, then of when the image was made, then of its id, so that it is an order even where a
writer by SQL gave one position twice. All raise `NotFound` where the user has no such album, or no such image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from msgspec import UNSET

from primary.gallery.album_records import NewPlace, PlacePatch
from primary.gallery.errors import Fault, NotFound, OrderIncomplete
from primary.gallery.image import Placed
from primary.gallery.positions import STEP, at_end, between
from primary.gallery.statements import as_rows, selected, values_of
from primary.write import Write

IN_ALBUM = "image in the album"

_HERE = "album_image.user_id = :user AND album_image.album_id = :album"
_VALUES = selected(
    {name: sql for name, sql in values_of("album_image", "album_image").items() if name in Placed.__struct_fields__}
)
_WITH_IMAGE = "album_image JOIN image ON image.user_id = album_image.user_id AND image.id = album_image.image_id"

# What is referred to stays until the write ends, whoever would delete it.
_ALBUM = sa.text("SELECT 1 FROM album WHERE user_id = :user AND id = :album FOR KEY SHARE")
_IMAGES = sa.text("SELECT id FROM image WHERE user_id = :user AND id = ANY (:images) FOR KEY SHARE")

_ALL = sa.text(
    f"SELECT {_VALUES} FROM {_WITH_IMAGE} WHERE {_HERE} ORDER BY position, image.created_at, album_image.image_id"
)
_SOME = sa.text(f"SELECT {_VALUES} FROM album_image WHERE {_HERE} AND image_id = ANY (:images)")
_LAST = sa.text(f"SELECT max(position) FROM album_image WHERE {_HERE}")
_PUT = sa.text(
    """
INSERT INTO album_image (user_id, album_id, image_id, position, caption)
SELECT CAST(:user AS text), :album, r.image_id, r.position, r.caption
FROM json_to_recordset(CAST(:rows AS json)) AS r(image_id uuid, position int, caption text)
ON CONFLICT (user_id, album_id, image_id) DO NOTHING RETURNING image_id"""
)
_CAPTION = sa.text(
    f"""
UPDATE album_image SET caption = r.caption
FROM json_to_recordset(CAST(:rows AS json)) AS r(image_id uuid, caption text)
WHERE {_HERE} AND album_image.image_id = r.image_id AND album_image.caption IS DISTINCT FROM r.caption"""
)
_MOVE = sa.text(f"UPDATE album_image SET position = :position WHERE {_HERE} AND image_id = :image")
_NEIGHBOUR = """
SELECT position FROM {both} WHERE {here} AND image_id <> :image AND ROW(position, image.created_at, image_id) {beyond} (
  SELECT position, image.created_at, image_id FROM {both} WHERE {here} AND image_id = :anchor)
ORDER BY position {order}, image.created_at {order}, image_id {order} LIMIT 1"""
_BEFORE = sa.text(_NEIGHBOUR.format(both=_WITH_IMAGE, here=_HERE, beyond="<", order="DESC"))
_AFTER = sa.text(_NEIGHBOUR.format(both=_WITH_IMAGE, here=_HERE, beyond=">", order="ASC"))
_SPREAD = sa.text(
    f"""
UPDATE album_image SET position = spread.position FROM (
  SELECT image_id, {STEP} * row_number() OVER (ORDER BY position, image.created_at, image_id) AS position
  FROM {_WITH_IMAGE} WHERE {_HERE}
) AS spread WHERE {_HERE} AND album_image.image_id = spread.image_id AND album_image.position <> spread.position"""
)
_ORDER = sa.text(
    f"""
UPDATE album_image SET position = {STEP} * o.place
FROM unnest(CAST(:images AS uuid[])) WITH ORDINALITY AS o(image_id, place)
WHERE {_HERE} AND album_image.image_id = o.image_id AND album_image.position <> {STEP} * o.place"""
)
_TAKE_OUT = sa.text(f"DELETE FROM album_image WHERE {_HERE} AND image_id = :image")


@dataclass(frozen=True, slots=True)
class Added:
    """Places in the order of the request. ``new`` counts those that were not there already."""

    places: list[Placed]
    new: int


async def put(write: Write, album_id: UUID, places: Sequence[NewPlace]) -> Added:
    """Put images at the end of an album. Those in it keep their place; a caption that is given is theirs then."""
    here = await _here(write, album_id)
    ids = [place.image_id for place in places]
    there = {row.id for row in await write.execute(_IMAGES, here | {"images": ids})}
    if missing := [n for n, image_id in enumerate(ids) if image_id not in there]:
        raise NotFound(faults=[Fault(f"images[{n}].image_id", "there is no such image") for n in missing])
    positions = at_end(await _last(write, album_id), len(ids))
    if positions is None:
        await write.execute(_SPREAD, here)
        positions = at_end(await _last(write, album_id), len(ids))
        assert positions is not None  # two million images would have to be in one album
    given = [(str(place.image_id), place.given()) for place in places]
    rows = [
        {"image_id": image_id, "position": position, "caption": fields.get("caption")}
        for (image_id, fields), position in zip(given, positions, strict=True)
    ]
    told = [{"image_id": image_id, "caption": fields["caption"]} for image_id, fields in given if "caption" in fields]
    put, _, some = await write.finish(
        (_PUT, here | {"rows": as_rows(rows)}),
        (_CAPTION, here | {"rows": as_rows(told)}),
        (_SOME, here | {"images": ids}),
    )
    placed = {UUID(row.image_id): Placed(**row._asdict()) for row in some}
    return Added([placed[image_id] for image_id in ids], put.rowcount)


async def change(write: Write, album_id: UUID, image_id: UUID, patch: PlacePatch) -> Placed:
    """Change the caption of an image in an album, or put it right before or after another one there."""
    here = await _here(write, album_id)
    await _placed(write, album_id, image_id)
    if patch.caption is not UNSET:
        rows = [{"image_id": str(image_id), "caption": patch.caption}]
        await write.execute(_CAPTION, here | {"rows": as_rows(rows)})
    for field in ("before", "after"):
        anchor = getattr(patch, field)
        if anchor is not UNSET and anchor != image_id:
            await _move(write, album_id, image_id, field, anchor)
    return await _placed(write, album_id, image_id)


async def reorder(write: Write, album_id: UUID, image_ids: Sequence[UUID]) -> list[Placed]:
    """Give all images of an album a new order; give their places in it.

    Raises `OrderIncomplete` where the album has images that are not named, so that nobody puts in order what they
    have not seen.
    """
    here = await _here(write, album_id)
    there = {UUID(row.image_id) for row in await write.execute(_ALL, here)}
    if missing := [n for n, image_id in enumerate(image_ids) if image_id not in there]:
        faults = [Fault(f"image_ids[{n}]", f"there is no such {IN_ALBUM}") for n in missing]
        raise NotFound(IN_ALBUM, faults)
    if len(there) > len(image_ids):
        raise OrderIncomplete(len(there) - len(image_ids))
    _, now = await write.finish((_ORDER, here | {"images": list(image_ids)}), (_ALL, here))
    return [Placed(**row._asdict()) for row in now]


async def take_out(write: Write, album_id: UUID, image_id: UUID) -> None:
    """Take an image out of an album; the image itself stays."""
    here = {"user": write.user, "album": album_id}
    album, gone = await write.finish((_ALBUM, here), (_TAKE_OUT, here | {"image": image_id}))
    if not album.rows:
        raise NotFound("album")
    if gone.rowcount == 0:
        raise NotFound(IN_ALBUM)


async def _move(write: Write, album_id: UUID, image_id: UUID, field: str, anchor_id: UUID) -> None:
    here = {"user": write.user, "album": album_id}
    for room_made in (False, True):
        try:
            anchor = (await _placed(write, album_id, anchor_id)).position
        except NotFound:
            raise NotFound(IN_ALBUM, [Fault(field, f"there is no such {IN_ALBUM}")]) from None
        asked = here | {"image": image_id, "anchor": anchor_id}
        beyond = (await write.execute(_BEFORE if field == "before" else _AFTER, asked)).value()
        position = between(beyond, anchor) if field == "before" else between(anchor, beyond)
        if position is not None:
            await write.execute(_MOVE, here | {"image": image_id, "position": position})
            return
        assert not room_made
        await write.execute(_SPREAD, here)


async def _here(write: Write, album_id: UUID) -> dict[str, object]:
    """Give what names the album to a statement, if there is one."""
    here = {"user": write.user, "album": album_id}
    if (await write.execute(_ALBUM, here)).one_or_none() is None:
        raise NotFound("album")
    return here


async def _placed(write: Write, album_id: UUID, image_id: UUID) -> Placed:
    asked = {"user": write.user, "album": album_id, "images": [image_id]}
    row = (await write.execute(_SOME, asked)).one_or_none()
    if row is None:
        raise NotFound(IN_ALBUM)
    return Placed(**row._asdict())


async def _last(write: Write, album_id: UUID) -> int | None:
    last: int | None = (await write.execute(_LAST, {"user": write.user, "album": album_id})).value()
    return last
