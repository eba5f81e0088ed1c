"""Orders to end: the signals that a program of ours gives way to, in an orderly way."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

ORDERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill` and supervisors, a terminal that is closed."""

End = Callable[[signal.Signals], None]

_ends: ContextVar[Mapping[signal.Signals, End] | None] = ContextVar("ends", default=None)  # whom an order calls


@contextmanager
def orders(end: End, *, but: Collection[signal.Signals] = ()) -> Iterator[None]:
    """Have each order to end call ``end``, where this is the thread that signals come to.

    Inside another such block they are this one's while it lasts, and then that one's again.
    A terminal's end is ignored where the program was started to ignore it: that is what nohup does.
    """
    loop = asyncio.get_running_loop()
    outer = _ends.get() or {}
    taken: list[signal.Signals] = []
    try:
        for order in ORDERS:
            ignored = order is signal.SIGHUP and signal.getsignal(order) is signal.SIG_IGN
            if order not in but and not ignored:
                with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):
                    loop.add_signal_handler(order, end, order)
                    taken.append(order)
        _ends.set({**outer, **dict.fromkeys(taken, end)})
        yield
    finally:
        _ends.set(outer)
        for order in taken:
            if order in outer:
                loop.add_signal_handler(order, outer[order], order)
            else:
                loop.remove_signal_handler(order)
