"""How this process keeps its memory. For one that only serves: each of these is for the whole process, and for good."""

from __future__ import annotations

import contextlib
import ctypes
import gc

# Of mallopt, in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_ARENA_MAX = -1, -2, -8

_TRIM_BYTES = 128 << 10
_AT_HAND_BYTES = 1 << 20  # an answer of 500 images, and what it is put together from
_ARENAS = 2


def settle_allocator() -> None:
    """Have the C library give memory back, but for what every answer takes. To be called before there are threads.

    Left to itself it learns from large allocations to keep megabytes, and what a sync needed for a moment stays: of 100
    users who listen, each of whom had a change, that was 302 KiB each against 246. So what is free above 128 KiB is
    given back; but for 1 MiB, or each page of 100 would get its memory from the system, page by page, and give it back
    (three calls and a quarter of its time). That is kept in each of the places that threads allocate from, so there are
    two, and not one for each thread. (glibc alone knows this.)
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_M_TOP_PAD, _AT_HAND_BYTES)
        mallopt(_M_ARENA_MAX, _ARENAS)


def freeze_startup() -> None:
    """Keep what start-up made out of the garbage collector's rounds. To be called when the process is ready.

    Modules, routes and schemas live as long as the process does. A full round that goes through them all takes 45 ms,
    in which nothing is answered, and under load there is one every second or two: that was the p99 of reads.
    """
    gc.collect()
    gc.freeze()
