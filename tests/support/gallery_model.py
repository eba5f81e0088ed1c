"""The gallery as a plain Python model of what one user owns, and the same read from their replica, to be compared."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import apsw
from msgspec import UNSET

from primary.gallery import activity, albums, bulk, events, images, places
from primary.gallery.album_records import AlbumPatch, NewAlbum, NewPlace, PlacePatch
from primary.gallery.events import Happened
from primary.gallery.records import ImageChange, ImagePatch, NewImage
from primary.write import Write

COUNTED = {"view": "view_count", "o": "o_count", "usage": "usage_count"}
FIRST = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass
class Album:
    title: str
    cover: str | None = None
    order: list[str] = field(default_factory=list)
    captions: dict[str, str | None] = field(default_factory=dict)


@dataclass
class Model:
    """What a user owns. `step` does something at random, here and in the primary alike, and tells what it was."""

    rng: random.Random
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    edits: list[tuple[str, str, Any, Any]] = field(default_factory=list)
    albums: dict[str, Album] = field(default_factory=dict)

    async def step(self, write: Write) -> str:
        steps = [self._save, self._edit, self._favor, self._rate, self._count, self._count, self._take_back]
        steps += [self._put, self._put, self._move, self._move, self._make, self._cover, self._take_out, self._delete]
        step = self.rng.choice(steps)
        await step(write)
        return step.__name__

    def _image(self) -> str:
        # Sometimes of one that is not there: then nothing happens, here and there.
        return str(uuid4()) if self.rng.random() < 0.1 else self.rng.choice([*self.images] or [""])

    def _album(self) -> str:
        return self.rng.choice([*self.albums] or [""])

    async def _save(self, write: Write) -> None:
        if len(self.images) >= 6:  # few, so that much happens to each
            return
        prompt = f"prompt {self.rng.random()}"
        saved = await images.create(write, NewImage(prompt=prompt, image_url="u", meta={"stash_id": "7"}))
        self.images[saved.image.id] = {"prompt": prompt, "alt_text": None, "is_favorite": False, "rating": None}
        self.events[saved.image.id] = []

    async def _edit(self, write: Write) -> None:
        some = self.rng.sample([*self.images], min(len(self.images), self.rng.randrange(1, 4)))
        texts = {one: self.rng.choice(["a", "b", None]) for one in some}
        if len(some) == 1:
            await images.patch(write, UUID(some[0]), ImagePatch(alt_text=texts[some[0]]))
        elif some:
            await bulk.patch_many(write, [ImageChange(id=UUID(one), alt_text=texts[one]) for one in some])
        for one in some:
            if (before := self.images[one]["alt_text"]) != texts[one]:
                self.images[one]["alt_text"] = texts[one]
                self.edits.append((one, "alt_text", before, texts[one]))

    async def _favor(self, write: Write) -> None:
        if one := self._image():
            if self.rng.random() < 0.5:
                now = await activity.toggle_favorite(write, UUID(one))
                assert now.is_favorite is not self.images[one]["is_favorite"]
            else:
                now = await activity.set_favorite(write, UUID(one), self.rng.random() < 0.5)
            self.images[one]["is_favorite"] = now.is_favorite

    async def _rate(self, write: Write) -> None:
        if one := self._image():
            rating = self.rng.choice([None, 0, 50, 100])
            await activity.rate(write, UUID(one), rating)
            self.images[one]["rating"] = rating

    async def _count(self, write: Write) -> None:
        if one := self._image():
            kind = self.rng.choice(["view", "o", "o", "usage"])
            at = FIRST + timedelta(microseconds=self.rng.randrange(10**15))
            await events.count(write, UUID(one), kind, Happened(occurred_at=at))  # type: ignore[arg-type]
            self.events[one].append((kind, at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")))

    async def _take_back(self, write: Write) -> None:
        if one := self._image():
            await events.take_o_back(write, UUID(one))
            if mine := [event for event in self.events[one] if event[0] == "o"]:
                self.events[one].remove(max(mine))

    async def _make(self, write: Write) -> None:
        if self.albums and self.rng.random() < 0.3:
            gone = self._album()
            await albums.delete(write, UUID(gone))
            del self.albums[gone]
        made = await albums.create(write, NewAlbum(title="t"))
        self.albums[made.album.id] = Album("t")

    async def _cover(self, write: Write) -> None:
        if (one := self._image()) and (album := self._album()):
            title = f"title {self.rng.random()}"
            await albums.patch(write, UUID(album), AlbumPatch(title=title, cover_image_id=UUID(one)))
            self.albums[album].title, self.albums[album].cover = title, one

    async def _put(self, write: Write) -> None:
        some = self.rng.sample([*self.images], min(len(self.images), self.rng.randrange(1, 4)))
        if some and (album := self._album()):
            captions = {one: self.rng.choice([UNSET, None, "c"]) for one in some}
            there = self.albums[album]
            await places.put(write, UUID(album), [NewPlace(image_id=UUID(one), caption=captions[one]) for one in some])
            there.order += [one for one in some if one not in there.order]
            for one in some:
                there.captions.setdefault(one, None)
                if (caption := captions[one]) is not UNSET:
                    there.captions[one] = caption

    async def _move(self, write: Write) -> None:
        if (album := self._album()) and len(order := self.albums[album].order) > 1:
            if self.rng.random() < 0.3:
                self.rng.shuffle(order)
                await places.reorder(write, UUID(album), [UUID(one) for one in order])
                return
            moved, anchor = self.rng.sample(order, 2)
            after = self.rng.random() < 0.5
            patch = PlacePatch(after=UUID(anchor)) if after else PlacePatch(before=UUID(anchor))
            await places.change(write, UUID(album), UUID(moved), patch)
            order.remove(moved)
            order.insert(order.index(anchor) + after, moved)

    async def _take_out(self, write: Write) -> None:
        if (album := self._album()) and (order := self.albums[album].order):
            one = self.rng.choice(order)
            await places.take_out(write, UUID(album), UUID(one))
            self._forget(one, self.albums[album])

    async def _delete(self, write: Write) -> None:
        if len(self.images) > 3:
            some = self.rng.sample([*self.images], self.rng.randrange(1, 3))
            await bulk.delete_many(write, [UUID(one) for one in some])
            for one in some:
                del self.images[one], self.events[one]
                for album in self.albums.values():
                    if one in album.order:
                        self._forget(one, album)
                    album.cover = None if album.cover == one else album.cover
            self.edits = [edit for edit in self.edits if edit[0] not in some]

    @staticmethod
    def _forget(one: str, album: Album) -> None:
        album.order.remove(one)
        del album.captions[one]

    def rated_or_counted(self) -> dict[str, tuple[int | None, int]]:
        """Give the rating and the O count of each image that has either."""
        known = {
            one: (fields["rating"], sum(kind == "o" for kind, _ in self.events[one]))
            for one, fields in self.images.items()
        }
        return {one: told for one, told in known.items() if told != (None, 0)}

    def shown(self) -> dict[str, Any]:
        """Give all that there is, as `shown` reads it from a replica."""
        return {
            "images": {
                one: fields
                | {name: sum(kind == k for k, _ in self.events[one]) for kind, name in COUNTED.items()}
                | {"last_viewed_at": max((at for kind, at in self.events[one] if kind == "view"), default=None)}
                for one, fields in self.images.items()
            },
            "events": {one: sorted(told) for one, told in self.events.items() if told},
            "edits": sorted(self.edits, key=repr),
            "albums": {
                one: (a.title, a.cover, a.order, [a.captions[i] for i in a.order]) for one, a in self.albums.items()
            },
        }


def shown(replica: apsw.Connection) -> dict[str, Any]:
    """Read all that a user owns from their replica."""
    fields = ["prompt", "alt_text", "is_favorite", "rating", *COUNTED.values(), "last_viewed_at"]
    found = replica.execute(
        "SELECT id, prompt, alt_text, ifnull(is_favorite, 0) = 1, rating, ifnull(view_count, 0), ifnull(o_count, 0), "
        "ifnull(usage_count, 0), last_viewed_at FROM image LEFT JOIN image_activity ON image_id = id"
    )
    images = {one: dict(zip(fields, values, strict=True)) for one, *values in found}
    events: dict[str, list[Any]] = {}
    for one, *event in replica.execute("SELECT image_id, kind, occurred_at FROM image_event ORDER BY 2, 3"):
        events.setdefault(one, []).append(tuple(event))
    edits = [
        (one, name, *(text if text is None else text.strip('"') for text in values))
        for one, name, *values in replica.execute("SELECT image_id, field, old_value, new_value FROM image_edit")
    ]
    albums: dict[str, Any] = {
        one: (title, cover, [], [])
        for one, title, cover in replica.execute("SELECT id, title, cover_image_id FROM album")
    }
    placed = replica.execute("SELECT album_id, image_id, caption FROM album_image ORDER BY position, image_id")
    for album, one, caption in placed:
        albums[album][2].append(one)
        albums[album][3].append(caption)
    return {"images": images, "events": events, "edits": sorted(edits, key=repr), "albums": albums}
