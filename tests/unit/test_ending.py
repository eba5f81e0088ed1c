"""What may not be left half way comes to its end."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from replica.ending import to_its_end


async def test_what_fails_after_its_caller_was_cancelled_is_no_error_that_nobody_looked_at() -> None:
    ended = []
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def work() -> None:
        await asyncio.sleep(0.02)
        ended.append(True)
        raise OSError

    caller = asyncio.create_task(to_its_end(work()))
    for _ in range(2):
        await asyncio.sleep(0)
        caller.cancel()
    await asyncio.wait([caller])
    assert caller.cancelled()
    del caller
    gc.collect()
    assert (ended, complaints) == ([True], [])
