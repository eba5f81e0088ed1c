"""What the feed asks Postgres: where a user stands, what changed since, and everything.

The values are ``%(user)s`` and ``%(since)s``. See `primary.postgres_feed` for when which is asked.
"""

from __future__ import annotations

from functools import lru_cache

from primary.capture import SCHEMA, quoted, table_sql
from primary.declaration import SyncedTable
from primary.postgres import EPOCH_SQL
from primary.types import mapping_of

PIPELINED_ROWS_MAX = 2_000  # so many changes are asked for at once, in one round trip; more are streamed

# One statement, so one snapshot: where the user stands, and which tables have news for it, as far as it looks.
STAND = f"""
SELECT {EPOCH_SQL} AS epoch, coalesce(h.version, 0) AS version, coalesce(h.floor, 0) AS floor, news.tables, news.total,
  (pg_current_wal_insert_lsn() - '0/0')::bigint AS position
FROM (SELECT %(user)s::text AS user_id, %(since)s::bigint AS since OFFSET 0) AS asked
LEFT JOIN {SCHEMA}.head AS h ON h.user_id = asked.user_id COLLATE "C"
CROSS JOIN LATERAL (
  SELECT array_agg(DISTINCT t.table_name) AS tables, count(*) AS total
  FROM (SELECT c.table_name FROM {SCHEMA}.change AS c
        WHERE c.user_id = asked.user_id COLLATE "C" AND c.version > asked.since
        ORDER BY c.version LIMIT {PIPELINED_ROWS_MAX + 1}) AS t) AS news"""

# How many changes there are of each table.
COMING = f"""
SELECT table_name, count(*) FROM {SCHEMA}.change WHERE user_id = %(user)s AND version > %(since)s GROUP BY table_name"""

BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

# Where row-level security would hide rows from us, reading them fails: a replica that lacks them would be wrong.
_ALL_ROWS = "set_config('row_security', 'off', true)"

# How long a first copy takes is a matter of its rows, and of how soon they are taken; each wait for more has its bound.
HELD = f"SELECT {_ALL_ROWS}, set_config('statement_timeout', '0', true)"

# To plan a small pull takes Postgres longer than to answer it. So its statements are prepared, and their values fenced
# in (OFFSET 0, a SELECT of its own): then a plan for any values seems as good as one for these, and is kept. It is as
# good as long as it goes by the indexes, however small the tables were when it was made.
BY_INDEX = f"SELECT {_ALL_ROWS}, set_config('enable_seqscan', 'off', true)"

# A snapshot's rows come as they lie in the table, which is about as they were made: a replica in that order finds what
# is newest close together. (An index gives them by key, in none; and a scan may join another one half way.)
AS_THEY_LIE = "SELECT set_config('enable_indexscan', 'off', true), set_config('synchronize_seqscans', 'off', true)"


def _values(table: SyncedTable, alias: str) -> list[str]:
    return [column.mapping.wire.replace("{}", f"{alias}.{quoted(column.name)}") for column in table.columns]


def snapshot_sql(table: SyncedTable) -> str:
    """Give every `Row` of the user's."""
    return (
        f"SELECT {', '.join(_values(table, 'r'))} FROM {table_sql(table)} AS r WHERE r.{quoted(table.owner)} = %(user)s"
    )


@lru_cache(maxsize=256)  # to write it takes as long as Postgres takes to answer it
def changes_sql(table: SyncedTable, most: int | None = None) -> str:
    """Give the `Change` of each touched row (source: the marks, then the table).

    Of all tables together no more than ``most`` marks are looked at.
    """
    parts = {name: f"c.row_key[{place}]" for place, name in enumerate(table.key, start=1)}
    key = {name: table.column(name).mapping.from_key.replace("{}", part) for name, part in parts.items()}
    # The owner, too, is looked for by the collation of its column: only then does the key's index begin with it.
    found_by = {table.owner: mapping_of(table.table.c[table.owner]).from_key.replace("{}", "c.user_id"), **key}
    matches = " AND ".join(f"r.{quoted(name)} = {value}" for name, value in found_by.items())
    named = "".join(f", {value} AS v{place}" for place, value in enumerate(_values(table, "r")))
    values = "".join(
        f", coalesce(v{place}, {column.mapping.wire.replace('{}', key[column.name])})"
        if column.name in key
        else f", v{place}"
        for place, column in enumerate(table.columns)
    )
    user, since, bound = "%(user)s", "%(since)s", "OFFSET 0"
    if most is not None:  # to be prepared, see `BY_INDEX`; in the order of the index that it is to go by
        user, since, bound = f"(SELECT {user}::text)", f"(SELECT {since}::bigint)", f"ORDER BY version LIMIT {most}"
    # OFFSET 0 fences the planner in: first the marks, by user and version, then one look at the key of each. Left to
    # itself it may read all that the user owns, when its statistics are old or its plan is another pull's.
    # (The owner is the mark's and not a constant, of which old statistics know no row: an index of the owner and of
    # something else would then seem as good as the key's, and all that the user owns be read for each mark.)
    return (
        f"SELECT json_build_array({', '.join(parts.values())})::text, c.version, r.lives IS NULL{values} "
        f"FROM (SELECT * FROM {SCHEMA}.change WHERE user_id = {user} AND version > {since} {bound}) AS c "
        f"LEFT JOIN LATERAL (SELECT true AS lives{named} FROM {table_sql(table)} AS r WHERE {matches} OFFSET 0) AS r "
        f"ON true WHERE c.table_name = '{table.name}'"
    )
