"""Writes of what happened to an image: that it was viewed, counted (o), or put to use; and taking an o back.

    counted = await count(write, image_id, "view", Happened(client_event_id="e1"))
    counted.activity.view_count, counted.new

An event is a row of its own, with its time. The totals in image_activity follow from these rows by a trigger
(`primary.gallery.totals`), so nothing here adds up anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, Meta, UnsetType

from primary.gallery import limits
from primary.gallery.activity import CURRENT, OF_IMAGE, STAYS, activity_of
from primary.gallery.errors import EventTaken, Fault, InvalidRecord
from primary.gallery.image import Activity
from primary.gallery.records import Moment, Record, beyond_types
from primary.write import Write

Kind = Literal["view", "o", "usage"]
EventId = Annotated[str, Meta(min_length=1, max_length=limits.NAME_MAX_CHARS, examples=["tab-7f3a-12"])]


class Happened(Record):
    """When something happened, now if not told, and the client's own id for it: a report sent twice counts once."""

    client_event_id: EventId | UnsetType = UNSET
    occurred_at: Moment | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Counted:
    """An event that is counted, and the totals with it. ``new`` is False where it had been reported before."""

    activity: Activity
    new: bool


_INSERT = sa.text(
    f"""
INSERT INTO image_event (user_id, image_id, kind, occurred_at, client_event_id)
SELECT image.user_id, image.id, :kind, coalesce(CAST(:at AS timestamptz), now()), :event {OF_IMAGE}
AND NOT EXISTS (SELECT FROM event_taken_back WHERE user_id = :user AND client_event_id = :event) {STAYS}
ON CONFLICT (user_id, client_event_id) DO NOTHING"""
)
_SAME = sa.text(
    """
SELECT image_id = :image AND kind = :kind FROM image_event WHERE user_id = :user AND client_event_id = :event
UNION ALL
SELECT image_id = :image AND :kind = 'o' FROM event_taken_back WHERE user_id = :user AND client_event_id = :event"""
)
_TAKE_BACK = sa.text(
    """
WITH gone AS (
  DELETE FROM image_event WHERE user_id = :user AND id = (
    SELECT id FROM image_event WHERE user_id = :user AND image_id = :image AND kind = 'o'
    ORDER BY occurred_at DESC, id DESC LIMIT 1)
  RETURNING user_id, client_event_id, image_id)
INSERT INTO event_taken_back (user_id, client_event_id, image_id)
SELECT user_id, client_event_id, image_id FROM gone WHERE client_event_id IS NOT NULL
ON CONFLICT DO NOTHING"""
)


def check_event(happened: msgspec.Struct | None) -> Happened:
    """Give the event if it can be stored. Raises `InvalidRecord`."""
    event = happened if isinstance(happened, Happened) else Happened()
    faults = [Fault(name, reason) for name, reason in beyond_types(event.given())]
    latest = datetime.now(UTC) + timedelta(seconds=limits.EVENT_AHEAD_MAX_S)
    if not faults and isinstance(event.occurred_at, datetime) and event.occurred_at > latest:
        faults.append(Fault("occurred_at", "has not come yet"))  # it would be the last view for as long
    if faults:
        raise InvalidRecord(faults)
    return event


async def count(write: Write, image_id: UUID, kind: Kind, happened: Happened) -> Counted:
    """Count an event of an image, unless it was before, and taken back since or not.

    Raises `NotFound`, and `EventTaken` where its id is of another event.
    """
    asked = {"user": write.user, "image": image_id, "kind": kind, "event": _or_none(happened.client_event_id)}
    inserted, same, current = await write.finish(
        (_INSERT, asked | {"at": _or_none(happened.occurred_at)}), (_SAME, asked), (CURRENT, asked)
    )
    activity, new = activity_of(current), inserted.rowcount == 1
    if not new and not same.value():
        raise EventTaken
    return Counted(activity, new)


async def take_o_back(write: Write, image_id: UUID) -> Activity:
    """Forget the newest o of an image, if there is one. Raises `NotFound`.

    Its client_event_id is kept, so that a report of it that was sent again and comes late does not count.
    """
    asked = {"user": write.user, "image": image_id}
    _, current = await write.finish((_TAKE_BACK, asked), (CURRENT, asked))
    return activity_of(current)


def _or_none(value: str | datetime | UnsetType) -> str | datetime | None:
    return None if value is UNSET else value
