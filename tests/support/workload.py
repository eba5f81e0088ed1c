"""Random transactions over the tables of `tests.support.shapes`, of every kind that Postgres knows.

Each writer is a connection of its own. Users and keys are few, so that writers meet: they wait for each other, violate
constraints, deadlock. Statements run in savepoints, some of which are taken back; transactions roll back, or stay open
for a while before they commit, so that they end in another order than they began.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors

USERS = ["ann", "bob", "Bob", "o'neil 🐚", "éva"]

# What random writers may meet, and what each means for the transaction.
REFUSED = (
    errors.UniqueViolation,
    errors.ForeignKeyViolation,
    errors.NotNullViolation,
    errors.CardinalityViolation,
)
LOST = (errors.DeadlockDetected, errors.SerializationFailure)

Statement = tuple[str, dict[str, Any]]


class Choices:
    """Random statements, each as its text and parameters."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._kinds: list[Callable[[], Statement]] = [
            getattr(self, name) for name in sorted(vars(Choices)) if name.startswith(("one_", "many_"))
        ]

    def statement(self) -> Statement:
        """Make one of any kind."""
        return self.rng.choice(self._kinds)()

    def _user(self) -> str:
        return self.rng.choice(USERS)

    def _id(self) -> int:
        return self.rng.randrange(8)

    def _given(self, **more: Any) -> dict[str, Any]:
        word = self.rng.choice(["", "tide", "NULL", "çé🐚", "a\nb", "x" * 300])
        return {"user": self._user(), "other": self._user(), "id": self._id(), "to": self._id(), "word": word} | more

    # ------------------------------------------------------------- single rows

    def one_insert(self) -> Statement:
        return "INSERT INTO shelf (user_id, id, label) VALUES (%(user)s, %(id)s, %(word)s)", self._given()

    def one_insert_with_time(self) -> Statement:
        sql = (
            "INSERT INTO ledger (owner, an_enum, a_bool, a_date, a_timestamptz, a_bytea, amount) VALUES (%(user)s, "
            "%(size)s, %(id)s > 3, date '2026-01-01' + %(id)s, now(), convert_to(%(word)s, 'UTF8'), %(id)s / 3.0)"
        )
        return sql, self._given(size=self.rng.choice(["small", "large", "it's"]))

    def one_child(self) -> Statement:
        sql = (
            "INSERT INTO book (user_id, shelf_id, place, title, before_shelf, after_shelf) "
            "VALUES (%(user)s, %(id)s, %(to)s, %(word)s, %(before)s, %(after)s)"
        )
        return sql, self._given(before=self._id(), after=self._id())

    def one_specimen(self) -> Statement:
        sql = (
            "INSERT INTO specimen (user_id, id, text, double, jsonb, texts, timestamptz, bytea) "
            "OVERRIDING SYSTEM VALUE VALUES (%(user)s, %(id)s, nullif(%(word)s, ''), %(number)s, "
            "to_jsonb(%(word)s::text), ARRAY[%(word)s, NULL], clock_timestamp(), convert_to(%(word)s, 'UTF8')) "
            "ON CONFLICT (user_id, id) DO UPDATE SET text = specimen.text || '+', double = excluded.double"
        )
        return sql, self._given(number=self.rng.choice([float("nan"), float("-inf"), 0.1, -0.0, 5e-324]))

    def one_upsert(self) -> Statement:
        sql = (
            "INSERT INTO mood (user_id, word) VALUES (%(user)s, %(word)s) "
            "ON CONFLICT (user_id) DO UPDATE SET word = excluded.word, since = now()"
        )
        return sql, self._given()

    def one_update(self) -> Statement:
        sql = "UPDATE shelf SET label = %(word)s, updated_at = now() WHERE user_id = %(user)s AND id = %(id)s"
        return sql, self._given()

    def one_key_change(self) -> Statement:
        return "UPDATE shelf SET id = %(to)s WHERE user_id = %(user)s AND id = %(id)s", self._given()

    def one_owner_change(self) -> Statement:
        return "UPDATE shelf SET user_id = %(other)s WHERE user_id = %(user)s AND id = %(id)s", self._given()

    def one_mood_moves(self) -> Statement:
        return "UPDATE mood SET user_id = %(other)s WHERE user_id = %(user)s", self._given()

    def one_delete(self) -> Statement:
        table = self.rng.choice(["shelf", "specimen"])
        return f"DELETE FROM {table} WHERE user_id = %(user)s AND id = %(id)s", self._given()

    def one_delete_alone(self) -> Statement:
        return "DELETE FROM mood WHERE user_id = %(user)s", self._given()

    # ------------------------------------------------------------- many rows, many users

    def many_inserted(self) -> Statement:
        sql = (
            "INSERT INTO shelf (user_id, id, label) SELECT u, i, u || i FROM unnest(%(users)s::text[]) AS u, "
            "generate_series(%(id)s, %(id)s + 4) AS i ON CONFLICT (user_id, id) DO UPDATE SET label = excluded.label"
        )
        return sql, self._given(users=self.rng.sample(USERS, 3))

    def many_inserted_if_new(self) -> Statement:
        sql = (
            "INSERT INTO book (user_id, shelf_id, place, before_shelf, after_shelf) SELECT user_id, id, 1, id, id "
            "FROM shelf WHERE id %% 3 = %(id)s %% 3 ON CONFLICT DO NOTHING"
        )
        return sql, self._given()

    def many_updated(self) -> Statement:
        sql = "UPDATE book SET title = title || %(word)s WHERE place >= %(id)s AND length(title) < 900"
        return sql, self._given()

    def many_keys_changed(self) -> Statement:
        return "UPDATE ledger SET a_date = a_date + 1, a_bool = NOT a_bool WHERE owner <> %(user)s", self._given()

    def many_owners_changed(self) -> Statement:
        return "UPDATE ledger SET owner = %(other)s, amount = amount + 1 WHERE owner = %(user)s", self._given()

    def many_deleted(self) -> Statement:
        return "DELETE FROM shelf WHERE id IN (%(id)s, %(to)s)", self._given()

    def many_merged(self) -> Statement:
        sql = (
            "MERGE INTO shelf AS s USING (SELECT u, %(id)s AS id FROM unnest(%(users)s::text[]) AS u) AS n "
            "ON s.user_id = n.u AND s.id = n.id "
            "WHEN MATCHED AND s.label = %(word)s THEN DELETE "
            "WHEN MATCHED THEN UPDATE SET label = %(word)s, updated_at = now() "
            "WHEN NOT MATCHED THEN INSERT (user_id, id, label) VALUES (n.u, n.id, 'merged')"
        )
        return sql, self._given(users=self.rng.sample(USERS, 3))

    def many_moved_by_one_statement(self) -> Statement:
        sql = (
            "WITH gone AS (DELETE FROM ledger WHERE owner = %(user)s RETURNING *), "
            "noted AS (UPDATE shelf SET label = 'moved' WHERE user_id = %(user)s RETURNING id) "
            "INSERT INTO ledger SELECT %(other)s, (r).* FROM (SELECT gone.a_text, gone.a_varchar, gone.a_collated, "
            "gone.an_enum, gone.a_uuid, gone.a_bool, gone.a_smallint, gone.an_integer, gone.a_bigint, gone.a_date, "
            "gone.a_time, gone.a_timestamp, gone.a_timestamptz, gone.a_bytea, gone.amount FROM gone) AS r"
        )
        return sql.replace("(r).*", "r.*"), self._given()

    def many_cut_and_edited(self) -> Statement:
        # The cascade and the edit are one statement to the triggers of book.
        sql = (
            "WITH gone AS (DELETE FROM shelf WHERE id = %(id)s) UPDATE book SET title = %(word)s "
            "WHERE user_id = %(user)s AND shelf_id <> %(id)s"
        )
        return sql, self._given()


class Writers:
    """Some writers at work. ``done`` counts what became of their transactions."""

    def __init__(self, url: str, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._url = url
        self._seed = seed

    async def run(self, writers: int, transactions: int) -> None:
        """Let each of so many writers do so many transactions, all at once."""
        async with asyncio.TaskGroup() as group:
            for number in range(writers):
                group.create_task(self._write(random.Random(f"{self._seed} {number}"), transactions))

    async def _write(self, rng: random.Random, transactions: int) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, options="-c deadlock_timeout=20ms -c TimeZone=America/St_Johns"
        )
        async with connection:
            choices = Choices(rng)
            for _ in range(transactions):
                level = rng.choice(["READ COMMITTED"] * 4 + ["REPEATABLE READ", "SERIALIZABLE"])
                await connection.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
                try:
                    self.done[await self._transact(connection, choices)] += 1
                except LOST:
                    await connection.execute("ROLLBACK")
                    self.done["lost"] += 1

    async def _transact(self, connection: psycopg.AsyncConnection, choices: Choices) -> str:
        rng = choices.rng
        for _ in range(rng.choice([1, 1, 2, 3, 5])):
            await connection.execute("SAVEPOINT step")
            try:
                await self._step(connection, choices)
            except REFUSED:
                await connection.execute("ROLLBACK TO step")
                self.done["refused"] += 1
            if rng.random() < 0.1:
                await connection.execute("ROLLBACK TO step")
        if rng.random() < 0.2:
            await asyncio.sleep(rng.uniform(0, 0.02))
        end = "ROLLBACK" if rng.random() < 0.12 else "COMMIT"
        await connection.execute(end.encode())
        return end.lower()

    async def _step(self, connection: psycopg.AsyncConnection, choices: Choices) -> None:
        rng = choices.rng
        match rng.random():
            case chance if chance < 0.06:
                await self._copy(connection, rng)
            case chance if chance < 0.12:
                # A key that goes and comes back within one transaction.
                given = {"user": rng.choice(USERS), "id": rng.randrange(8)}
                await connection.execute("DELETE FROM shelf WHERE user_id = %(user)s AND id = %(id)s", given)
                await connection.execute("INSERT INTO shelf VALUES (%(user)s, %(id)s, 'back again')", given)
            case _:
                sql, given = choices.statement()
                await connection.execute(sql.encode(), given)

    async def _copy(self, connection: psycopg.AsyncConnection, rng: random.Random) -> None:
        first = rng.randrange(10**6)
        async with (
            connection.cursor() as cursor,
            cursor.copy("COPY ledger (owner, an_integer, a_bytea) FROM STDIN") as copy,
        ):
            for number in range(rng.randrange(6)):
                await copy.write_row((rng.choice(USERS), first + number, b"\x00copied"))
