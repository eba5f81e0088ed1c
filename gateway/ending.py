"""Orders to end: the signals that a program of ours gives way to, in an orderly way."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

ORDERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill` and supervisors, a terminal that is closed."""


@contextmanager
def orders(end: Callable[[signal.Signals], None], *, but: Collection[signal.Signals] = ()) -> Iterator[None]:
    """Have each order to end call ``end``, where this is the thread that signals come to.

    A terminal's end is ignored where the program was started to ignore it: that is what nohup does.
    """
    loop = asyncio.get_running_loop()
    taken: list[signal.Signals] = []
    try:
        for order in ORDERS:
            ignored = order is signal.SIGHUP and signal.getsignal(order) is signal.SIG_IGN
            if order not in but and not ignored:
                with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):
                    loop.add_signal_handler(order, end, order)
                    taken.append(order)
        yield
    finally:
        for order in taken:
            loop.remove_signal_handler(order)
