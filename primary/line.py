"""A connection of one's own, beside the pool: for what must not wait behind a crowd of requests, and is asked often.

It is libpq's own calls, and waiting for its socket. What psycopg does around them (cursors, types, generators) takes
longer than what is left: a look of the tail's, after the few milliseconds of rest in which a processor forgets
everything, 0.2 ms of this process and not 0.4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGresult

from primary.patience import CANCEL_S, patience

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

Texts = tuple[str | None, ...]
"""A row as Postgres writes it: the text of each value, None for NULL."""

_ANSWERS = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)


class Line:
    """One connection in autocommit mode, made when it is needed, and made again when it broke.

    To be used by one task at a time. ``options`` are psycopg's for connecting; a ``prepare_threshold`` of None says
    that nothing may be prepared. ``meaning`` gives the error of ours that a driver's error is, and any other as it is.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any],
        meaning: Callable[[BaseException], BaseException],
    ) -> None:
        self._url = url
        self._options = options
        self._meaning = meaning
        self._connection: Connection | None = None
        self._encoding = ""
        self._prepared: dict[str, bytes] = {}
        self._waiting: tuple[asyncio.Future[None], Callable[[], object]] | None = None  # with what ends the watch

    async def ask(self, question: str, *values: str, within_s: float) -> list[Texts]:
        """Ask one statement, with ``values`` for its $1, $2…; give the rows. Raises `PrimaryUnavailable`.

        It is planned once for each connection. A connection that does not answer ``within_s`` is given up.
        """
        try:
            async with patience(within_s, asks=False):
                if self._connection is None:
                    await self._connect()
                return await self._ask(question, values)
        except BaseException as error:
            await self._give_up()
            if (meaning := self._meaning(error)) is not error:
                raise meaning from error
            raise

    async def close(self) -> None:
        """Close the connection; the next question makes another. Who waits for an answer is told."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiter, unwatch = waiting
            unwatch()  # now, for the socket's number is soon another's
            if not waiter.done():
                waiter.set_exception(psycopg.OperationalError("the connection was closed"))
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _give_up(self) -> None:
        try:
            if self._connection is not None:
                with suppress(psycopg.Error):  # what goes on may hang on a lock, and so would all that is asked again
                    await self._connection.cancel_safe(timeout=CANCEL_S)
        finally:  # also for who does not wait for that either
            await self.close()

    async def _connect(self) -> None:
        self._connection = await psycopg.AsyncConnection.connect(self._url, **self._options)
        self._encoding = self._connection.info.encoding
        self._prepared.clear()

    async def _ask(self, question: str, values: tuple[str, ...]) -> list[Texts]:
        assert self._connection is not None
        libpq, encoding = self._connection.pgconn, self._encoding
        sent = [value.encode(encoding) for value in values]
        if self._options["prepare_threshold"] is None:
            libpq.send_query_params(question.encode(encoding), sent)
        else:
            name = self._prepared.get(question)
            if name is None:
                name = b"line%d" % len(self._prepared)
                libpq.send_prepare(name, question.encode(encoding))
                await self._answer()
                self._prepared[question] = name
            libpq.send_query_prepared(name, sent)
        result = await self._answer()
        return [
            tuple(
                [
                    None if (value := result.get_value(row, column)) is None else value.decode(encoding)
                    for column in range(result.nfields)
                ]
            )
            for row in range(result.ntuples)
        ]

    async def _answer(self) -> PGresult:
        """Send what was asked, and wait for the answer to its end."""
        assert self._connection is not None
        libpq = self._connection.pgconn
        loop = asyncio.get_running_loop()
        while libpq.flush():
            await self._ready(loop.add_writer, loop.remove_writer, libpq.socket)
        answer: PGresult | None = None
        while True:
            while libpq.is_busy():
                await self._ready(loop.add_reader, loop.remove_reader, libpq.socket)
                libpq.consume_input()
            if (result := libpq.get_result()) is None:
                break
            answer = result
        if answer is None:
            raise psycopg.OperationalError("the connection is no more")
        if answer.status not in _ANSWERS:
            if not answer.error_field(DiagnosticField.SQLSTATE):  # it is libpq that says so: the connection is cut
                raise psycopg.OperationalError(answer.get_error_message(self._encoding))
            raise psycopg.errors.error_from_result(answer, self._encoding)
        return answer

    async def _ready(self, watch: Callable[..., object], unwatch: Callable[[int], object], socket: int) -> None:
        """Wait until more can be read, or written.

        The socket is watched for as long as that, and anew each time: of one that is in error uvloop tells once.
        """
        waiter = asyncio.get_running_loop().create_future()
        watch(socket, _wake, waiter)
        self._waiting = waiter, partial(unwatch, socket)
        try:
            await waiter
        finally:
            if self._waiting is not None:  # else `close` has done it
                self._waiting = None
                unwatch(socket)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
