"""What the tests of faults share: ``bay``, a store that can be closed, broken and opened again.

A module that wants other bounds has a fixture ``limits`` of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from primary.declaration import Catalog
from primary.feed import Feed
from primary.postgres import Primary
from replica.results import StoreLimits
from tests.support.bay import Bay, opened


@pytest.fixture
def limits() -> StoreLimits:
    return StoreLimits()


@pytest.fixture
async def bay(primary: Primary, catalog: Catalog, feed: Feed, limits: StoreLimits) -> AsyncIterator[Bay]:
    async with opened(primary, catalog, feed, limits) as made:
        yield made
