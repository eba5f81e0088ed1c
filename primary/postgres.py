"""The connections to Postgres: one pool, which lends them to feed and writes, and to SQLAlchemy for all else.

Nothing here depends on a session (no SET, no LISTEN, no session lock), so that a transaction pooler may stand between.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.pq import ConnStatus
from psycopg_pool import PoolClosed, PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from primary.cursor import Cursor
from primary.driver_errors import translate
from primary.errors import PrimaryBusy, PrimarySlow, PrimaryUnavailable
from primary.lent import Lent
from primary.line import Connection, Line
from primary.patience import patience
from primary.pool import Pool
from primary.touched import Statements, Touched
from primary.transaction import BEGIN, Behind

Moved = Callable[[str, Cursor], None]
"""Called with a user and the cursor that a write of this process has just committed."""

Look = Callable[[Lent, str, Statements], Behind | None]
"""Called with the connection, the user and the last statements of a write; gives what is to be asked behind them."""

EPOCH_SQL = """
concat_ws('-', to_hex((SELECT system_identifier FROM pg_control_system())),
  ltrim(lower(left(pg_walfile_name(pg_current_wal_lsn()), 8)), '0'),
  to_hex((SELECT oid::bigint FROM pg_database WHERE datname = current_database())),
  to_hex('tidepool.head'::regclass::oid::bigint))"""
"""The epoch: which cluster, which timeline of it, which database, and which making of the head table.

A restored backup or a promoted standby has another timeline, a database loaded from a dump has other object ids: both
can give out version numbers again that replicas have seen, so both must be told apart from what was before.
"""

WRITES_OF_USER_MAX = 2
"""That hold a connection at once: one is done, and one has asked for its turn already; more would only wait there."""

_FAILED_FAST_S = 0.25  # how long to wait for a connection while Postgres is known to be away
_CLOSE_S = 0.25  # for a connection that the pool is making when it is closed: over a dead link that never ends
_RECONNECT_S = 1  # the pool's own attempts end soon, for each request makes a new one: no long pause outlives an outage


class Primary:
    """The primary database.

    ``url`` is a libpq URL (``postgresql://…``). ``pool_max`` bounds the connections; `ping` and each
    `line` have one more.
    ``answer_timeout_s`` bounds a write transaction, and each wait for the next rows of a read: a connection that
    went dumb is given up then. ``prepared_statements`` is to be off behind a pooler that does not keep them.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_max: int = 10,
        connect_timeout_s: float = 5,
        pool_timeout_s: float = 5,
        answer_timeout_s: float = 15,
        prepared_statements: bool = True,
    ) -> None:
        self.url = url
        self.answer_timeout_s = answer_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._pool_timeout_s = pool_timeout_s
        self.touched = Touched()
        self._reachable = True
        self._waiting: set[asyncio.Timeout] = set()  # for a connection, in the belief that there will be one
        self._places: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()
        self._watchers: list[Moved] = []
        self._look: Look | None = None
        self._options: dict[str, Any] = {
            "autocommit": True,
            # Texts are UTF-8 to us, whatever the database keeps them in, or PGCLIENTENCODING says.
            "client_encoding": "UTF8",
            "prepare_threshold": 5 if prepared_statements else None,
            "connect_timeout": max(2, round(connect_timeout_s)),  # libpq takes no less
        }
        self._handed: dict[asyncio.Task[Any] | None, Lent] = {}  # what SQLAlchemy is to use, by who asks
        self._lines: list[Line] = []
        self._ping_lock = asyncio.Lock()
        self._ping_line = self.line()
        self._pool = Pool(
            url,
            connection_class=Lent,
            kwargs=self._options,
            min_size=1,
            max_size=pool_max,
            timeout=pool_timeout_s,
            reconnect_timeout=_RECONNECT_S,
            open=False,
        )
        self._engine: AsyncEngine = create_async_engine(
            "postgresql+psycopg://",
            poolclass=NullPool,
            async_creator=self._hand,
            use_native_hstore=False,
            query_cache_size=0,  # it would fill with Alembic's statements, which are of another table each time: 15 MB
        )

    @property
    def reachable(self) -> bool:
        """Whether the last contact found Postgres."""
        return self._reachable

    async def open(self) -> None:
        """Start the pool. Does not fail, and does not wait, when Postgres is away."""
        await self._pool.open()

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()
        for line in self._lines:
            await line.close()
        await self._pool.close(_CLOSE_S)

    def line(self) -> Line:
        """Give a connection of the caller's own, made at its first use and closed with the primary."""
        line = Line(self.url, self._options, self._meaning)
        self._lines.append(line)
        return line

    def watch(self, moved: Moved) -> None:
        """Have ``moved`` called after each commit of a write (`primary.write`)."""
        self._watchers.append(moved)

    def look_behind(self, look: Look) -> None:
        """Have what ``look`` gives asked in the round trip of a write's commit."""
        self._look = look

    def behind(self, connection: Lent, user: str, statements: Statements) -> Behind | None:
        """Give what is to be asked behind the commit of these statements."""
        return self._look and self._look(connection, user, statements)

    def moved(self, user: str, cursor: Cursor, tables: Sequence[str], statements: Statements) -> None:
        """Tell who watches of a write that was just committed; note which tables it touched, by these statements."""
        self.touched.note(user, tables, statements)
        for told in self._watchers:
            told(user, cursor)

    async def ping(self) -> None:
        """Ask Postgres for a sign of life on a connection of its own. Raises `PrimaryUnavailable`.

        When Postgres is back, connections that did not survive are replaced before they fail a request.
        """
        was_reachable = self._reachable
        async with self._ping_lock:
            await self._ping_line.ask("SELECT 1", within_s=self._connect_timeout_s)
            if not was_reachable:
                async with self._translated(), patience(self._connect_timeout_s, asks=False):
                    await self._pool.check()
            self._reachable = True

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Lent]:
        """Lend a psycopg connection in autocommit mode. Raises `PrimaryUnavailable`, also from within."""
        async with self._translated(), self._lent() as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self, within_s: float | None = None) -> AsyncIterator[AsyncConnection]:
        """Run a transaction of SQLAlchemy's: committed at the end, rolled back when the block raises.

        For all but the writes of users (`primary.write`). It may take ``within_s``, else as long as a write. Raises
        `PrimaryUnavailable` (the commit may then have happened or not), and `InvalidValue` where Postgres refuses a
        value.
        """
        async with (
            self._translated(),
            patience(within_s or self.answer_timeout_s),
            self._lent() as lent,
        ):
            asking = asyncio.current_task()
            self._handed[asking] = lent
            try:
                async with self._engine.begin() as connection:  # which asks Postgres for nothing yet
                    await lent.execute(BEGIN)
                    yield connection
            finally:
                self._handed.pop(asking, None)

    @asynccontextmanager
    async def place(self, user: str) -> AsyncIterator[None]:
        """Take one of the user's places among those who write, and keep it for the block.

        Who waits for another write of the same user holds no connection meanwhile: one user's crowd, or one write of
        theirs that is held up, leaves the pool to others. Raises `PrimaryBusy`.
        """
        places = self._places.get(user)
        if places is None:
            places = self._places[user] = asyncio.Semaphore(WRITES_OF_USER_MAX)
        if places.locked():
            async with self._translated(), self._hoping(self._wait_s):
                await places.acquire()
        else:
            await places.acquire()  # which is not to wait
        try:
            yield
        finally:
            places.release()

    async def _take(self) -> Lent:
        """Take a connection that is alive as far as can be told without asking Postgres.

        So who asks first after a restart of Postgres does not pay for the connections that it ended.
        """
        connection = await self._taken()
        while not _is_alive(connection):
            await self._pool.putconn(connection)  # another is made in its place
            try:
                connection = await self._pool.getconn(_FAILED_FAST_S)
            except PoolTimeout:
                self._lose()
                raise
        return connection

    async def _taken(self) -> Lent:
        if self._pool.has_free or not self._reachable:
            return await self._pool.getconn(self._wait_s)
        async with self._hoping(None):
            return await self._pool.getconn(self._wait_s)

    @property
    def _wait_s(self) -> float:
        """How long to wait for a connection, or for a place among those who want one."""
        return self._pool_timeout_s if self._reachable else _FAILED_FAST_S

    @asynccontextmanager
    async def _hoping(self, within_s: float | None) -> AsyncIterator[None]:
        """Bound a wait for what takes a connection: by ``within_s``, and by `_lose`."""
        try:
            async with asyncio.timeout(within_s) as waiting:
                self._waiting.add(waiting)
                try:
                    yield
                finally:
                    self._waiting.discard(waiting)
        except TimeoutError as error:
            raise PoolTimeout("Postgres was lost, or was busy, while a connection was waited for") from error

    def _lose(self) -> None:
        """Note that Postgres is away. Who waits for a connection already waits no longer than who asks now."""
        self._reachable = False
        soon = asyncio.get_running_loop().time() + _FAILED_FAST_S
        for waiting in self._waiting:
            if not waiting.expired():  # else who waits is about to be told so
                waiting.reschedule(soon)
        self._waiting.clear()

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Lent]:
        connection = await self._take()
        try:
            yield connection
        finally:
            await asyncio.shield(self._pool.putconn(connection))  # else a request that is broken off could keep it

    async def _hand(self) -> Lent:
        return self._handed[asyncio.current_task()]

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except Exception as error:
            if (meaning := self._meaning(error)) is error:
                raise
            raise meaning from error

    def _meaning(self, error: BaseException) -> BaseException:
        """Give the error of ours that a driver's error is, and any other as it is; note where Postgres is lost."""
        if not isinstance(error, psycopg.Error | sa.exc.DBAPIError | TimeoutError | PoolClosed):
            return error
        meaning = translate(error.orig if isinstance(error, sa.exc.DBAPIError) else error)
        if isinstance(error, PoolTimeout) and not self._reachable:  # none became free, for none can be made
            meaning = PrimaryUnavailable()
        if isinstance(meaning, PrimaryUnavailable) and not isinstance(meaning, PrimaryBusy | PrimarySlow):
            self._lose()
        return meaning or error


def _is_alive(connection: Connection) -> bool:
    """Say whether a connection that nobody used lately is there, by what has come over it meanwhile."""
    try:
        for _ in range(2):  # a server that ends a connection says why, and then closes it; neither is waited for
            connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return connection.pgconn.status == ConnStatus.OK


def give_up(connection: Connection) -> None:
    """Break a lent connection off, whatever it is in the middle of; the pool replaces it when it is returned."""
    # Not close(), which who has it on loan cannot do.
    connection.pgconn.finish()
