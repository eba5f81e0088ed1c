"""Saving what was read, batch by batch, and keeping account of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from gateway.importing.batches import Batch, from_thread, images_of, in_batches
from gateway.importing.found import Refused
from gateway.importing.records import ImportedRecord, Recorder
from gateway.importing.source import Source
from primary.gallery.errors import InvalidRecord
from primary.gallery.images import Many

Save = Callable[[Many], Awaitable[tuple[int, int]]]
"""Saves images, all or none; gives how many were saved and how many were there already."""


@dataclass
class Tally:
    """What became of the records so far. Every record is counted once, when its batch is done with."""

    saved: int = 0
    present: int = 0
    refused: int = 0

    @property
    def read(self) -> int:
        """All records."""
        return self.saved + self.present + self.refused


class Import:
    """One run over a source. ``tally`` is true at any moment, so also after a failure or an interruption."""

    def __init__(self, source: Source, recorder: Recorder, save: Save, tally: Tally) -> None:
        self.tally = tally
        self._source = source
        self._recorder = recorder
        self._save = save

    async def run(self, told: Callable[[Batch], None]) -> None:
        """Save everything; call ``told`` after every batch, with what was left out of it.

        Each batch is saved whole or not at all. Raises `InputError` when the source cannot be read at all,
        and what saving raises, after the batches before it were saved.
        """
        async with aclosing(from_thread(in_batches(self._source, self._recorder))) as batches:
            async for batch in batches:
                if batch.images is not None:
                    batch.refused += await self._saved(batch.records, batch.images)
                self.tally.refused += len(batch.refused)
                told(batch)

    async def _saved(self, records: Sequence[ImportedRecord], images: Many) -> list[Refused]:
        """Save a batch; give the records that the database refused, found by halving the batch."""
        try:
            saved, present = await self._save(images)
        except InvalidRecord as error:
            if len(records) == 1:
                return [Refused(records[0].origin, error.faults)]
            half = len(records) // 2
            halves = records[:half], records[half:]
            return [refused for each in halves for refused in await self._saved(each, images_of(each))]
        self.tally.saved += saved
        self.tally.present += present
        return []
