"""Rows as they come, read in a thread that waits for them: a large answer costs the event loop nothing.

The thread that reads is to be the one that uses what it read. With one that reads ahead, or the event loop, it would
hand the interpreter to and fro at every few rows, which takes longer than to wait does.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import waiting

from primary.lent import Lent
from primary.patience import CANCEL_S

Rows = list[tuple[Any, ...]]

_LOOK_UP_S = 1.0  # psycopg's wait is broken off so often; a connection that is cut ends it at once


class Stream:
    """What statements give, one after another, on a lent connection; more of it is waited for ``within_s``."""

    def __init__(self, connection: Lent, within_s: float) -> None:
        self.under_way = False  # there is more of an answer to come, or it broke off: no use for anything else
        self._connection = connection
        self._within_s = within_s
        self._ended = False
        self._receiving = threading.Lock()  # held by who is in libpq
        # Of the stream's own: libpq may close the connection's at any moment, and its number is then another's.
        self._socket = socket.socket(fileno=os.dup(connection.pgconn.socket))

    def rows(self, sql: str, values: Mapping[str, Any], size: int) -> Iterator[Rows]:
        """Give what a statement gives, ``size`` rows at a time, in binary. Waits: for any thread but the event loop's.

        Raises psycopg's errors, and `TimeoutError`.
        """
        cursor = _Cursor(self._connection)
        self._receive(cursor.sending(sql, values, size))
        while (rows := self._receive(cursor.receiving())) is not None:
            yield rows
        self.under_way = False

    def cut(self) -> None:
        """End the connection, from any thread. Whoever waits for rows is told; none will be waited for any more."""
        self._ended = True
        with suppress(OSError):  # it may be gone
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._receiving:  # nobody is in libpq now, and its connection can be freed
            pass

    async def ended(self) -> bool:
        """Have Postgres end what is under way; tell whether it was there to be asked. Else it would go on without us.

        It does not notice that nobody waits any more while it has nothing to send, as when it waits for a lock itself.
        """
        try:
            await self._connection.cancel_safe(timeout=CANCEL_S)
        except psycopg.Error:
            return False
        return True

    def close(self) -> None:
        """Let go of the connection; to be called at the end, and when nobody reads."""
        self._ended = True
        self._socket.close()

    def _receive(self, steps: Generator[Any, Any, Rows | None]) -> Rows | None:
        with self._receiving:
            if self._ended:
                raise psycopg.OperationalError("the connection was given up")
            self.under_way = True
            try:
                return waiting.wait(steps, self._connection.pgconn.socket, _LOOK_UP_S, self._within_s)
            except psycopg.errors._WaitTimeout as error:  # noqa: SLF001 - psycopg raises it here
                raise TimeoutError from error


class _Cursor(psycopg.AsyncCursor[tuple[Any, ...]]):
    """A cursor whose stream is received in chunks, by whoever waits for it.

    psycopg's own `stream` loads and gives each row by itself, which takes longer than all else that is done for it. The
    names of psycopg's that this takes are not for everyone: `pyproject.toml` says of which releases it has them.
    """

    def sending(self, sql: str, values: Mapping[str, Any], size: int) -> Generator[Any, Any, None]:
        """Ask."""
        self._first = True
        return self._stream_send_gen(sql.encode(), values, binary=True, size=size)

    def receiving(self) -> Generator[Any, Any, Rows | None]:
        """Give the next chunk; None at the end."""
        result = yield from self._stream_fetchone_gen(self._first)
        self._first = False
        return None if result is None else self._tx.load_rows(0, result.ntuples, self._make_row)
