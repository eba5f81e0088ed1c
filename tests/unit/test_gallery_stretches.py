"""How a list is read, and what is kept of that."""

from __future__ import annotations

import gc
import tracemalloc

import msgspec
import pytest

from replica.gallery.listing import Filters, Listing
from replica.gallery.stretches import Asked


def test_a_list_that_is_asked_for_again_is_not_read_again() -> None:
    listing = Listing(Filters(q="tide pool", source="s"), sort="relevance")
    assert Asked.of(listing) is Asked.of(Listing(Filters(q="tide pool", source="s"), sort="relevance"))


@pytest.mark.parametrize("name", ["q", "source", "model"])
def test_a_list_of_texts_as_long_as_a_request_leaves_nothing_behind(name: str) -> None:
    def ask(number: int) -> None:
        text = " ".join(f"w{number}x{word}" for word in range(5_000))
        Asked.of(Listing(msgspec.convert({name: text}, Filters)))

    ask(-1)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(20):
            ask(number)
        gc.collect()
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 100_000
