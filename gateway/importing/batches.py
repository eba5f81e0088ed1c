"""Records in batches, made ready in a thread while the batches before them are being saved."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.importing.found import Refused
from gateway.importing.records import ImportedRecord, Recorder
from gateway.importing.source import Source
from primary.gallery.images import Many

BATCH_MAX_RECORDS = 1_000
"""One statement and one transaction, of some tens of milliseconds."""

BATCH_MAX_BYTES = 4 * 1024 * 1024
"""Of records as JSON; bounds the memory of a batch of large records, which is several times that."""

AHEAD = 2
"""Batches that wait; enough that neither the reader nor Postgres waits for the other."""

_SWITCH_S = 0.0005
"""After which the thread lets the event loop go on, for which Postgres waits: a quarter less time than with 5 ms."""

T = TypeVar("T")


@dataclass(slots=True)
class Batch:
    """Records to be saved together, those left out between them, and how far into the source they end.

    ``images`` is what to save of a batch that is whole: None where all records were left out.
    """

    records: list[ImportedRecord] = field(default_factory=list)
    images: Many | None = None
    refused: list[Refused] = field(default_factory=list)
    read_bytes: int = 0


def in_batches(source: Source, recorder: Recorder) -> Iterator[Batch]:
    """Check every record of a source and yield them in order, in batches of bounded number and size."""
    batch, size_bytes = Batch(), 0
    for found in source.found:
        record = found if isinstance(found, Refused) else recorder.record(found)
        if isinstance(record, Refused):
            batch.refused.append(record)
        else:
            batch.records.append(record)
            size_bytes += record.size_bytes
        if len(batch.records) + len(batch.refused) >= BATCH_MAX_RECORDS or size_bytes >= BATCH_MAX_BYTES:
            yield _whole(batch, source)
            batch, size_bytes = Batch(), 0
    if batch.records or batch.refused:
        yield _whole(batch, source)


def images_of(records: Sequence[ImportedRecord]) -> Many:
    """Give the images of records."""
    return Many.of([record.image for record in records])


def _whole(batch: Batch, source: Source) -> Batch:
    batch.read_bytes = source.read_bytes()
    batch.images = images_of(batch.records) if batch.records else None
    return batch


async def from_thread(items: Iterator[T]) -> AsyncGenerator[T]:
    """Yield what an iterator yields; it runs in a thread of its own, at most `AHEAD` items ahead.

    Raises what the iterator raises. When this generator is closed the thread ends at its next item; one that
    waits for input that never comes ends with the program, and does not hold it up.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Queue[T | BaseException] = asyncio.Queue()
    room = threading.Semaphore(AHEAD)
    closed = threading.Event()

    def hand_over(item: T | BaseException) -> bool:
        room.acquire()
        if closed.is_set():
            return False
        try:
            loop.call_soon_threadsafe(ready.put_nowait, item)
        except RuntimeError:  # the loop is gone, and whoever waited with it
            return False
        return True

    def run() -> None:
        try:
            for item in items:
                if not hand_over(item):
                    return
        except BaseException as error:  # noqa: BLE001  (raised where the items are asked for)
            hand_over(error)
        else:
            hand_over(StopAsyncIteration())

    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    threading.Thread(target=run, name="import-reader", daemon=True).start()
    try:
        while True:
            item = await ready.get()
            room.release()
            if isinstance(item, StopAsyncIteration):
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        room.release()
        sys.setswitchinterval(switch_s)
