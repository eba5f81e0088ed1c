from __future__ import annotations

import asyncio
import threading
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from gateway.importing.batches import AHEAD, BATCH_MAX_BYTES, BATCH_MAX_RECORDS, Batch, from_thread, in_batches
from gateway.importing.errors import InputError
from gateway.importing.found import Found, Refused
from gateway.importing.records import Recorder
from gateway.importing.saving import Import, Tally
from gateway.importing.source import Source
from primary.errors import PrimaryUnavailable
from primary.gallery.errors import Fault, InvalidRecord
from primary.gallery.images import Many
from primary.gallery.records import NewImage


def found(count: int, prompt: str = "x") -> Iterator[Found | Refused]:
    for number in range(1, count + 1):
        yield Found(f"line {number}", {"prompt": prompt, "image_url": f"https://x/{number}"})


def batches(records: Iterator[Found | Refused]) -> list[Batch]:
    return list(in_batches(Source(records), Recorder("ada")))


def test_batches_have_a_bounded_number_of_records():
    made = batches(found(2 * BATCH_MAX_RECORDS + 1))
    assert [len(batch.records) for batch in made] == [BATCH_MAX_RECORDS, BATCH_MAX_RECORDS, 1]
    assert batches(found(0)) == []


def test_batches_have_a_bounded_size():
    made = batches(found(500, prompt="x" * 30_000))
    assert len(made) == 4
    assert all(sum(record.size_bytes for record in batch.records) < BATCH_MAX_BYTES + 40_000 for batch in made)


def test_records_that_are_refused_fill_batches_too():
    made = batches(Refused.at(f"line {number}", "", "is bad") for number in range(BATCH_MAX_RECORDS + 5))
    assert [len(batch.refused) for batch in made] == [BATCH_MAX_RECORDS, 5]


def test_a_long_input_takes_no_more_memory_than_a_batch_and_its_ids():
    tracemalloc.start()
    try:
        for _ in in_batches(Source(found(20_000, prompt="x" * 500)), Recorder("ada")):
            pass
        assert tracemalloc.get_traced_memory()[1] < 12 * 1024 * 1024  # the records alone are 10 MB of text
    finally:
        tracemalloc.stop()


async def test_a_thread_makes_items_ready_while_others_are_worked_on_and_not_too_many():
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number

    taken = from_thread(items())
    assert await anext(taken) == 0
    await asyncio.sleep(0.1)
    assert 2 <= len(made) <= AHEAD + 2
    assert [number async for number in taken] == list(range(1, 10))


async def test_what_an_iterator_raises_is_raised_after_its_items():
    def items() -> Iterator[int]:
        yield 1
        raise InputError("no more")

    taken = from_thread(items())
    assert await anext(taken) == 1
    with pytest.raises(InputError, match="no more"):
        await anext(taken)


async def test_closing_ends_the_thread_at_its_next_item():
    ended = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(10_000_000)
        finally:
            ended.set()

    taken = from_thread(items())
    await anext(taken)
    await taken.aclose()
    assert await asyncio.to_thread(ended.wait, 5)


async def test_a_reader_that_waits_for_ever_does_not_hold_up_a_cancelled_import():
    asked = threading.Event()

    def items() -> Iterator[Found | Refused]:
        yield from found(BATCH_MAX_RECORDS)
        asked.wait(20)

    tally = Tally()

    async def save(images: Many) -> tuple[int, int]:
        return len(images.records), 0

    importing = Import(Source(items()), Recorder("ada"), save, tally)
    running = asyncio.ensure_future(importing.run(lambda _: None))
    while tally.saved < BATCH_MAX_RECORDS:
        await asyncio.sleep(0.01)
    begun = time.perf_counter()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert time.perf_counter() - begun < 5
    asked.set()


async def run(records: Iterator[Found | Refused], save: Saving) -> tuple[Tally, list[Refused]]:
    tally, refused = Tally(), list[Refused]()
    await Import(Source(records), Recorder("ada"), save, tally).run(lambda batch: refused.extend(batch.refused))
    return tally, refused


class Saving:
    """A database that refuses some prompts and goes away after some batches."""

    def __init__(self, refusing: str = "", *, last: int = 10**9) -> None:
        self.images: list[NewImage] = []
        self._refusing = refusing
        self._left = last

    async def __call__(self, images: Many) -> tuple[int, int]:
        if self._left == 0:
            raise PrimaryUnavailable
        if self._refusing and any(image.prompt == self._refusing for image in images.records):
            raise InvalidRecord([Fault("prompt", "is refused by the database")])
        self._left -= 1
        self.images.extend(images.records)
        return len(images.records) - 1, 1


async def test_every_record_is_counted_once_and_saved_in_order():
    save = Saving()
    tally, refused = await run(found(2_500), save)
    assert tally == Tally(saved=2_497, present=3)
    assert tally.read == 2_500
    assert [image.image_url for image in save.images] == [f"https://x/{number}" for number in range(1, 2_501)]
    assert refused == []


async def test_records_that_only_the_database_refuses_are_found_in_their_batch():
    def records() -> Iterator[Found | Refused]:
        for one in found(1_000):
            if one.origin in {"line 1", "line 500", "line 1000"}:
                assert isinstance(one, Found)
                one.values["prompt"] = "bad"
            yield one

    save = Saving("bad")
    tally, refused = await run(records(), save)
    assert list(map(str, refused)) == [
        f"line {number}: prompt: is refused by the database" for number in (1, 500, 1000)
    ]
    assert (tally.read, tally.refused, len(save.images)) == (1_000, 3, 997)


async def test_a_database_that_goes_away_leaves_the_batches_before():
    save = Saving(last=2)
    tally = Tally()
    with pytest.raises(PrimaryUnavailable):
        await Import(Source(found(5_000)), Recorder("ada"), save, tally).run(lambda _: None)
    assert tally.read == len(save.images) == 2_000
