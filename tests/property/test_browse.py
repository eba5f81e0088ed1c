"""A list of images is what anybody would write down, page by page, also while images come and go between the pages."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replica.gallery import finding, matches, page_size, walking
from replica.gallery.browse import browse
from replica.gallery.facets import facets
from replica.gallery.listing import Filters, Listing
from replica.gallery.page_cursor import PageCursor
from tests.support.gallery_rows import WORDS, Gallery, random_listing


def page(
    gallery: Gallery, listing: Listing, limit: int, after: PageCursor | None
) -> tuple[list[str], PageCursor | None]:
    found = browse(gallery.connection, listing, limit, after and PageCursor.parse(str(after)))
    return [image["id"] for image in json.loads(b"[%b]" % found.images)], found.next


def walked(gallery: Gallery, listing: Listing, limit: int) -> list[str]:
    ids, after = page(gallery, listing, limit, None)
    while after is not None:
        more, after = page(gallery, listing, limit, after)
        assert more, "a page that was promised is empty"
        assert not {*more} & {*ids}, "a page gives again what another gave"
        ids += more
    return ids


BOUNDS: dict[str, dict[Any, dict[str, int]]] = {
    "as they are": {},
    "nothing is gathered": {walking: {"GATHER_MAX": -1}, matches: {"SET_MAX": -1}},
    "a few at a time, one by one": {
        finding: {"FIRST": 1, "FIRST_OF_PREFIX": 2, "LOT_MAX": 3, "PER_IMAGE": 0},
        matches: {"SET_MAX": -1, "GAP": 0},
    },
    "few are out of order": {finding: {"FIRST": 1, "FIRST_OF_PREFIX": 1, "PER_IMAGE": 0, "OTHERS_MAX": 2}},
    "what few match is known, what many match is not": {
        finding: {"FIRST": 4, "FIRST_OF_PREFIX": 4, "PER_IMAGE": 0, "AHEAD_MAX": -1, "AS_DEAR": 0, "SET_MAX": 12},
        matches: {"SET_MAX": 12, "SPENT_MAX": 0, "MANY": 0, "SPANS_MAX": 2, "GAP": 0},
    },
    "few make a page": {page_size: {"PAGE_MAX_BYTES": 4_000}},
    "what is searched for is gathered": {
        finding: {"FIRST": 1, "FIRST_OF_PREFIX": 1, "PER_IMAGE": 0, "AHEAD_MAX": -1, "AS_DEAR": 0},
        matches: {"SPENT_MAX": 0},
    },
}
"""Every way to read a list, whatever the number of images."""


@pytest.fixture(params=BOUNDS, autouse=True)
def bounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, values in BOUNDS[request.param].items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_pages_join_up_to_the_list_that_was_asked_for(seed: int) -> None:
    choose = random.Random(seed)
    with Gallery() as gallery:
        gallery.grow(choose, choose.randrange(60))
        for _ in range(12):
            listing = random_listing(choose, gallery)
            assert walked(gallery, listing, choose.randrange(1, 12)) == gallery.listed(listing), listing


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_while_images_come_and_go_between_pages_every_one_that_stays_is_met_once(seed: int) -> None:
    choose = random.Random(seed)
    with Gallery() as gallery:
        gallery.grow(choose, 40)
        for _ in range(6):
            listing = random_listing(choose, gallery)
            before = gallery.listed(listing)
            met, after = page(gallery, listing, 3, None)
            while after is not None:
                gallery.grow(choose, 2)
                if met:
                    gallery.remove_image(choose.choice([*gallery.images]))
                more, after = page(gallery, listing, 3, after)
                met += more
            staying = [image for image in before if image in gallery.images]
            assert len(set(met)) == len(met), listing
            assert [image for image in met if image in staying] == staying, listing


def _in_order(choose: random.Random, gallery: Gallery) -> None:
    for image in sorted(gallery.images, key=lambda image: (gallery.images[image]["created_at"], image)):
        gallery.edit_image(image)


def _edit(choose: random.Random, gallery: Gallery) -> None:
    for image in choose.sample([*gallery.images], min(3, len(gallery.images))):
        gallery.edit_image(image, prompt=" ".join(choose.sample(WORDS, 2)), description=choose.choice([None, *WORDS]))


def _remove(choose: random.Random, gallery: Gallery) -> None:
    for image in choose.sample([*gallery.images], min(5, len(gallery.images))):
        gallery.remove_image(image)


LAID: dict[str, tuple[Callable[[random.Random, Gallery], None], ...]] = {
    "as they came": (),
    "in the order in which they were made": (_in_order,),
    "in any order": (lambda choose, gallery: gallery.shuffle(choose),),
    "as they came, some edited": (_edit,),
    "in order, but some edited and gone": (_in_order, _edit, _remove, _edit),
}
"""How the rows of the images may lie, beside the order in which they were made."""


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.sampled_from([*LAID]))
def test_what_is_searched_for_is_found_however_the_rows_lie(seed: int, laid: str) -> None:
    choose = random.Random(seed)
    with Gallery() as gallery:
        gallery.grow(choose, choose.randrange(120))
        for change in LAID[laid]:
            change(choose, gallery)
        for _ in range(8):
            listing = random_listing(choose, gallery)
            q = " ".join(choose.sample(WORDS, choose.randrange(1, 4))) + choose.choice(["", "", "*"])
            listing = replace(listing, filters=replace(listing.filters, q=q))
            if choose.random() < 0.5:  # most filters leave little to be found
                listing = replace(listing, filters=Filters(q=q), sort=choose.choice(["relevance", "created_at"]))
            assert walked(gallery, listing, choose.randrange(1, 25)) == gallery.listed(listing), listing


@settings(max_examples=12)
@given(st.integers(0, 2**32), st.sampled_from([*LAID]))
def test_the_first_page_of_a_search_is_the_beginning_of_its_list_however_the_rows_lie(seed: int, laid: str) -> None:
    choose = random.Random(seed)
    with Gallery() as gallery:
        gallery.grow(choose, 150)
        for change in LAID[laid]:
            change(choose, gallery)
        for _ in range(8):
            q = " ".join(choose.sample(WORDS, choose.randrange(1, 3)))
            listing = Listing(Filters(q=q), "relevance", choose.choice(["desc", "desc", "asc"]))
            found = gallery.listed(listing)
            for limit in (choose.randrange(1, 25), choose.randrange(1, len(found) + 2)):
                first, after = page(gallery, listing, limit, None)
                ends_sooner = page_size.PAGE_MAX_BYTES < 10_000 and after is not None
                assert first == found[: len(first) if ends_sooner else limit], (listing, limit)


def counted(gallery: Gallery, filters: Filters) -> dict[str, Any]:
    """Count as anybody would, over the list of the same images; equal counts come in the order of their names."""
    chosen = gallery.listed(Listing(filters))

    def of(name: str) -> list[tuple[str, int]]:
        values = Counter(value for image in chosen if (value := gallery.images[image][name]) is not None)
        return sorted(values.items(), key=lambda one: (-one[1], one[0]))

    held = Counter(album for album, image in gallery.places if image in set(chosen))
    return {
        "total": len(chosen),
        "favorites": sum(bool(gallery.activity.get(image, {}).get("is_favorite")) for image in chosen),
        "models": of("model"),
        "sources": of("source"),
        "albums": sorted(held.items(), key=lambda one: (-one[1], one[0])),
    }


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_counts_are_those_of_the_list_with_the_same_filters(seed: int) -> None:
    choose = random.Random(seed)
    with Gallery() as gallery:
        gallery.grow(choose, choose.randrange(60))
        for _ in range(12):
            filters = random_listing(choose, gallery).filters
            told = json.loads(b"{%b}" % facets(gallery.connection, filters))
            for name in ("models", "sources"):
                told[name] = [(one["value"], one["count"]) for one in told[name]]
            assert [one["title"] for one in told["albums"]] == [gallery.albums[one["id"]] for one in told["albums"]]
            told["albums"] = [(one["id"], one["count"]) for one in told["albums"]]
            assert told == counted(gallery, filters), filters
