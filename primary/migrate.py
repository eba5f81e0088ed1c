"""Migrating: the chain of steps up to its head, then the capture of every synced table.

    await migrate(primary, catalog)    # ["0001 The first tables: …", "capture of …"]; [] if nothing was to do

All of it is one transaction, so that a migration that fails, or is killed, leaves the database as it was.
Two that run at once wait for each other; the lock ends with the transaction, which a pooler does not mind.
Steps go forward only; the way back is a restored backup.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection

from primary.as_declared import OtherSchema, check_as_declared
from primary.capture import SCHEMA, capture_pending, engine_tables, install_capture, table_sql
from primary.declaration import Catalog
from primary.driver_errors import translate
from primary.errors import NotAllowed, PrimaryError, PrimaryUnavailable
from primary.fitness import check_fitness
from primary.postgres import Primary

VERSION_TABLE = "alembic_version"

_LOCK = 7_166_021_977_354_217_584
"""Of `pg_advisory_xact_lock`: any number that nobody else takes."""

_SCHEMA = sa.text("SELECT current_schema(), has_schema_privilege(to_regnamespace('public'), 'USAGE')")
"""Where new tables would lie. What the role may not use is passed over without a word."""

_MIGRATION_MAX_S = 24 * 3600.0
"""A step that writes a large table anew takes as long as it takes; who will not wait for it stops it."""


class UnknownRevision(PrimaryError):
    """The database was migrated by a newer program than this one."""

    hint = "Run the release of tidepool that migrated this database, or a later one."


class StepFailed(PrimaryError):
    """Postgres refused what a step of the chain asked for; the database is as it was."""

    hint = "Mend the step, or what is in its way in the database, and run: tidepool migrate"


async def migrate(primary: Primary, catalog: Catalog) -> list[str]:
    """Bring the database to what is declared; give what was done, in order, and [] when it was so already.

    The steps of the chain are followed by the triggers of every table of ``catalog`` that has not got them as
    its declaration has them now. Raises `PrimaryUnavailable`, `UnknownRevision` when the database is
    ahead of this program, `StepFailed`, `NotAsDeclared` when no step makes what is declared, `OtherSchema`,
    `UnsupportedDeclaration` for a table that cannot be captured as it is in the database, and `NotAllowed`.
    """
    async with primary.transaction(_MIGRATION_MAX_S) as conn:
        await conn.execute(sa.select(sa.func.set_config("statement_timeout", "0", True)))  # a role may have one
        await conn.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        # Behind who waits for a table wait all who come later; so what has it is not waited for as long as it likes.
        wait_ms = round(primary.answer_timeout_s * 1000)
        await conn.execute(sa.select(sa.func.set_config("lock_timeout", str(wait_ms), True)))
        steps = await conn.run_sync(_upgrade)
        await check_as_declared(conn, catalog)
        return steps + _told(await install_capture(conn, catalog))


async def pending(primary: Primary, catalog: Catalog) -> list[str]:
    """Say what `migrate` would do, and [] when it has nothing to do. Raises as `migrate` does.

    But while steps are to be done, nothing is said of the tables: what they lack may come with the steps.
    """
    async with primary.transaction() as conn:
        steps = await conn.run_sync(_steps_to_do)
        if not steps:
            await check_as_declared(conn, catalog)
        captures = await _captures_to_do(conn, catalog)
        for table in catalog:
            if not steps and table_sql(table) in captures:
                await check_fitness(conn, table, table_sql(table))
        return steps + _told(captures)


async def write_step(primary: Primary, message: str, declared: Sequence[sa.MetaData]) -> str:
    """Write the step that brings a database at the head of the chain to what is ``declared``; give its path.

    For the engineer who changed a declaration. Alembic compares tables, columns, defaults, indexes and
    foreign keys; check constraints, triggers, the moving of data, a column that was renamed and the type of an enum
    column that is added are to be written by hand.
    """
    engine = sa.MetaData()
    engine_tables(engine)
    async with primary.transaction() as conn:
        return await conn.run_sync(_write_step, message, [engine, *declared])


async def _captures_to_do(conn: AsyncConnection, catalog: Catalog) -> list[str]:
    if await conn.scalar(sa.text(f"SELECT to_regclass('{SCHEMA}.captured')")) is None:
        return [table_sql(table) for table in catalog]
    return await capture_pending(conn, catalog)


def _told(captures: Sequence[str]) -> list[str]:
    return ["capture of " + name.replace('"', "") for name in sorted(captures)]


def _config(**handed: Any) -> Config:
    config = Config()
    config.set_main_option("script_location", "primary:migrations")
    config.attributes.update(handed)
    return config


def _steps_to_do(conn: sa.Connection) -> list[str]:
    """List the steps between the database and the head of the chain, the next one first."""
    context = MigrationContext.configure(conn, opts={"version_table": VERSION_TABLE, "version_table_schema": SCHEMA})
    at = context.get_current_revision()
    todo: list[str] = []
    for step in ScriptDirectory.from_config(_config()).walk_revisions():  # the head first
        if step.revision == at:
            break
        todo.insert(0, f"{step.revision} {step.doc.rstrip('.')}")
    else:
        if at is not None:
            raise UnknownRevision(f"the database is at step {at}, which this program does not know")
    return todo


def _upgrade(conn: sa.Connection) -> list[str]:
    """Take the steps that are to do, and give them."""
    todo = _steps_to_do(conn)
    if todo:
        schema, usable = conn.execute(_SCHEMA).one()
        if usable is False:
            raise NotAllowed("permission denied for schema public")
        if schema != "public":  # whose tables are captured and read
            place = "no schema" if schema is None else f"the schema {schema}"
            raise OtherSchema(f"new tables would lie in {place}, not in public, by the role's search_path")
        # Before any step, for the table that counts them lies in it.
        conn.execute(sa.schema.CreateSchema(SCHEMA, if_not_exists=True))
        try:
            command.upgrade(_config(connection=conn), "head")
        except sa.exc.DBAPIError as error:
            if isinstance(translate(error.orig), PrimaryUnavailable | NotAllowed):
                raise  # which is not the step's fault
            reason = error.orig.diag.message_primary if isinstance(error.orig, psycopg.Error) else None
            raise StepFailed(f"{_place(error)}: {reason or error.orig}") from error
    return todo


def _place(error: Exception) -> str:
    """Say at which line of which step it came to an error."""
    steps = {Path(step.path).resolve() for step in ScriptDirectory.from_config(_config()).walk_revisions()}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if (path := Path(frame.filename).resolve()) in steps:
            return f"{path.name}, line {frame.lineno}"
    return "the chain of steps"


def _write_step(conn: sa.Connection, message: str, declared: Sequence[sa.MetaData]) -> str:
    config = _config(connection=conn, target_metadata=declared)
    number = len(list(ScriptDirectory.from_config(config).walk_revisions())) + 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Did not recognize type 'xid8'")  # nor need it: it never changes
        script = command.revision(config, message, autogenerate=True, rev_id=f"{number:04}")
    assert script is not None
    assert not isinstance(script, list)
    return script.path
