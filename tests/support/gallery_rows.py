"""A gallery twice: as rows of a replica's file, and as plain Python that says what a list of it has to be."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID

import apsw

from primary.gallery.tables import catalog
from replica.gallery.listing import Filters, Listing
from replica.library import connect
from replica.schema import Schema

SCHEMA = Schema(catalog)

WORDS = ("tide", "tidal", "pool", "low", "water", "heron")
MODELS = (None, "sdxl", "flux")
SOURCES = ("message_response", "scheduler")
MISLEADING = (
    '{"n":0,"id":"a","created_at":"b","updated_at":"c","last_viewed_at":"d","rating":1,"o_count":2,"view_count":3,'
    '"usage_count":4,"position":5,"caption":"e"}'
)
"""A document of a user's that has the names of an image's own members."""

NO_ACTIVITY: dict[str, Any] = {
    "is_favorite": 0,
    "rating": None,
    "view_count": 0,
    "o_count": 0,
    "usage_count": 0,
    "last_viewed_at": None,
}


def id_of(number: int) -> str:
    return str(UUID(int=number * 0x9E3779B97F4A7C15 % 2**128, version=4))


def moment(number: int) -> str:
    return f"2024-01-{1 + number // 24 % 28:02}T{number % 24:02}:00:00.000000Z"


def new_replica() -> apsw.Connection:
    connection = connect(":memory:")
    for statement in [*SCHEMA.tables, *SCHEMA.keys]:
        connection.execute(statement)
    for statement in SCHEMA.unfinished(connection):
        connection.execute(statement)
    return connection


def insert(connection: apsw.Connection, table: str, **values: Any) -> None:
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", [*values.values()])


@dataclass
class Gallery:
    """Rows by id. ``connection`` is a replica that has the same; ``with Gallery() as gallery`` closes it."""

    connection: apsw.Connection = field(default_factory=new_replica)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    activity: dict[str, dict[str, Any]] = field(default_factory=dict)
    albums: dict[str, str] = field(default_factory=dict)
    places: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    made: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def add_image(self, choose: random.Random, **values: Any) -> str:
        self.made += 1
        made_at = moment(choose.randrange(40))
        image: dict[str, Any] = {
            "id": id_of(self.made),
            "prompt": _text(choose),
            "negative_prompt": choose.choice([None, _text(choose)]),
            "image_url": "u",
            "model": choose.choice(MODELS),
            "source": choose.choice(SOURCES),
            "alt_text": choose.choice([None, _text(choose)]),
            "description": choose.choice([None, _text(choose)]),
            "meta": choose.choice(("{}", MISLEADING)),
            "created_at": made_at,
            "updated_at": moment(choose.randrange(20, 60)),
            "row_version": 1,
        } | values
        insert(self.connection, "image", **image)
        self.images[image["id"]] = image
        return str(image["id"])

    def tell(self, image: str, **values: Any) -> None:
        self.activity[image] = NO_ACTIVITY | values
        made_at = self.images[image]["created_at"]
        self.connection.execute("DELETE FROM image_activity WHERE image_id = ?", [image])
        insert(self.connection, "image_activity", image_id=image, image_created_at=made_at, **self.activity[image])

    def add_album(self, title: str) -> str:
        self.made += 1
        album = id_of(self.made)
        self.albums[album] = title
        row = {"id": album, "title": title, "created_at": moment(self.made), "updated_at": moment(0), "row_version": 1}
        insert(self.connection, "album", **row)
        return album

    def place(self, album: str, image: str, position: int, caption: str | None = None) -> None:
        if (album, image) in self.places:
            return
        place = {"position": position, "caption": caption, "added_at": moment(0)}
        self.places[album, image] = place
        made_at = self.images[image]["created_at"]
        insert(self.connection, "album_image", album_id=album, image_id=image, image_created_at=made_at, **place)

    def edit_image(self, image: str, **values: Any) -> None:
        """Edit as a replica does: the row is taken out and put in again, behind all others."""
        self.images[image] |= values
        self.connection.execute("DELETE FROM image WHERE id = ?", [image])
        insert(self.connection, "image", **self.images[image])

    def shuffle(self, choose: random.Random) -> None:
        """Lay the rows in another order, with gaps between them."""
        rows = [row for (row,) in self.connection.execute("SELECT rowid FROM image")]
        places = choose.sample(range(1, 5 * len(rows) + 2), len(rows))
        for sign in (-1, 1):  # by way of negative numbers, so that none is taken
            moved = [(place * sign, row if sign < 0 else -place) for place, row in zip(places, rows, strict=True)]
            self.connection.executemany("UPDATE image SET rowid = ? WHERE rowid = ?", moved)

    def remove_image(self, image: str) -> None:
        del self.images[image]
        self.activity.pop(image, None)
        self.places = {key: place for key, place in self.places.items() if key[1] != image}
        for table, column in (("album_image", "image_id"), ("image_activity", "image_id"), ("image", "id")):
            self.connection.execute(f"DELETE FROM {table} WHERE {column} = ?", [image])

    def grow(self, choose: random.Random, images: int) -> None:
        """Add that many images, in every state, some of them in albums."""
        albums = [*self.albums] or [self.add_album(title) for title in ("Low tide", "water", "Else")]
        for _ in range(images):
            image = self.add_image(choose)
            if choose.random() < 0.7:
                self.tell(
                    image,
                    is_favorite=choose.randrange(2),
                    rating=choose.choice([None, 0, 20, 60, 61, 100]),
                    view_count=choose.randrange(3),
                    o_count=choose.choice([0, 0, 1, 5]),
                    usage_count=choose.choice([0, 1]),
                    last_viewed_at=choose.choice([None, moment(3), moment(9)]),
                )
            for album in choose.sample(albums, choose.randrange(3)):
                self.place(album, image, choose.randrange(5), choose.choice([None, "a caption"]))

    # ------------------------------------------------------------- what a list has to be

    def listed(self, listing: Listing) -> list[str]:
        """Give the ids of a list, in order, as anybody would write it down."""
        level = {image: self.level(image, listing.filters.q) for image in self.images}
        chosen = [image for image in self.images if level[image] is not None and self._passes(image, listing.filters)]
        descending = listing.order == "desc"

        def value(image: str) -> Any:
            if listing.sort == "relevance":
                return -(level[image] or 0)
            if listing.sort == "position":
                return self.places[listing.filters.album or "", image]["position"]
            if listing.sort in {"created_at", "updated_at"}:
                return self.images[image][listing.sort]
            return self.activity.get(image, NO_ACTIVITY)[listing.sort]

        def place(image: str) -> Any:
            return value(image), self.images[image]["created_at"], image

        having = [image for image in chosen if value(image) is not None]
        lacking = [image for image in chosen if value(image) is None]
        lacking.sort(key=lambda image: place(image)[1:], reverse=descending)
        return sorted(having, key=place, reverse=descending) + lacking

    def level(self, image: str, q: str | None) -> int | None:
        """Tell how well an image is found: 0 best, None not at all. ``q`` is words, of which the last may have a *."""
        if q is None:
            return 0
        row = self.images[image]
        words = q.split()
        exact = "" if words[-1].endswith("*") and len(words) > 1 else r"\b"
        in_a_row = r"\b" + r"\W+".join(word.rstrip("*") for word in words) + exact
        said = [row["prompt"], row["alt_text"], row["description"]]
        titles = [self.albums[album] for album, held in self.places if held == image]
        if re.search(in_a_row, row["prompt"]):
            return 0
        if _has(words, said):
            return 1
        if _has(words, [*said, row["negative_prompt"]]):
            return 2
        return 3 if any(_has(words, [title.lower()]) for title in titles) else None

    def _passes(self, image: str, filters: Filters) -> bool:
        row, told = self.images[image], self.activity.get(image, NO_ACTIVITY)
        return all(
            (
                filters.favorite is None or bool(told["is_favorite"]) is filters.favorite,
                filters.min_rating is None or (told["rating"] is not None and told["rating"] >= filters.min_rating),
                filters.album is None or (filters.album, image) in self.places,
                filters.source in {None, row["source"]},
                filters.model in {None, row["model"]},
                filters.created_from is None or row["created_at"] >= filters.created_from,
                filters.created_to is None or row["created_at"] < filters.created_to,
            )
        )


def random_listing(choose: random.Random, gallery: Gallery) -> Listing:
    """Give some list: any filters, in any order."""
    album = choose.choice([None, None, *gallery.albums])
    q = choose.choice(
        [None, None, " ".join(choose.sample(WORDS, choose.randrange(1, 3))) + choose.choice(["", "*"]), "ti*"]
    )
    filters = Filters(
        favorite=choose.choice([None, None, True, False]),
        min_rating=choose.choice([None, None, None, 0, 50, 61]),
        album=album,
        source=choose.choice([None, None, *SOURCES]),
        model=choose.choice([None, None, "sdxl"]),
        q=q,
        created_from=choose.choice([None, None, moment(10)]),
        created_to=choose.choice([None, None, moment(30)]),
    )
    sorts = ["created_at", "rating", "o_count", "view_count", "usage_count", "last_viewed_at", "updated_at"]
    sorts += ["position"] * (album is not None) + ["relevance"] * 3 * (q is not None)
    return Listing(filters, choose.choice(sorts), choose.choice(["asc", "desc"]))  # type: ignore[arg-type]


def _text(choose: random.Random) -> str:
    return " ".join(choose.choice(WORDS) for _ in range(choose.randrange(1, 5)))


def _has(words: list[str], texts: list[str | None]) -> bool:
    there = " ".join(text for text in texts if text).split()
    return all(
        any(word.startswith(sought[:-1]) for word in there) if sought.endswith("*") else sought in there
        for sought in words
    )
