"""Whether a table can be captured as it is in the database: what its declaration does not show."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from primary.declaration import SyncedTable
from primary.errors import UnsupportedDeclaration

_LOOK = sa.text("""
SELECT c.relkind NOT IN ('r', 'p') AS no_table,
  c.relkind = 'p' OR EXISTS (SELECT FROM pg_inherits AS i WHERE c.oid IN (i.inhparent, i.inhrelid)) AS in_parts,
  c.relpersistence <> 'p' AS fleeting,
  row_security_active(c.oid) AS veiled,
  (SELECT array_agg(a.attname ORDER BY a.attname)
   FROM pg_attribute AS a JOIN pg_collation AS l ON l.oid = a.attcollation
   WHERE a.attrelid = c.oid AND a.attname = ANY (:identifying) AND NOT l.collisdeterministic) AS blurred,
  (SELECT array_agg(a.attname ORDER BY a.attname) FROM pg_attribute AS a
   WHERE a.attrelid = c.oid AND a.attname = ANY (:identifying) AND NOT a.attnotnull) AS optional,
  EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid
    AND i.indpred IS NULL AND i.indexprs IS NULL AND NOT EXISTS (
      SELECT FROM unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
      JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
      WHERE k.place <= i.indnkeyatts AND a.attname <> ALL (:identifying))) AS told_apart
FROM pg_class AS c WHERE c.oid = to_regclass(:table)""")


async def check_fitness(conn: AsyncConnection, table: SyncedTable, name: str) -> None:
    """Raise `UnsupportedDeclaration` where changes of the table could go by uncaptured, or rows be mixed up.

    ``name`` is the table's in SQL.
    """
    identifying = [table.owner, *table.key]
    found = (await conn.execute(_LOOK, {"table": name, "identifying": identifying})).one_or_none()
    if found is None:  # there is no such table, which who locks it is told
        return
    if found.no_table:
        raise UnsupportedDeclaration(
            f"{table.name}: it is a view, or else no table of this database, and no change of it can be captured",
            hint="Declare the tables that it shows.",
        )
    if found.in_parts:
        raise UnsupportedDeclaration(
            f"{table.name}: it is partitioned or inherits, and what is written to a part directly goes by"
        )
    if found.fleeting:
        raise UnsupportedDeclaration(
            f"{table.name}: it is unlogged or temporary, and a crash empties it without a trace"
        )
    if found.veiled:
        raise UnsupportedDeclaration(
            f"{table.name}: row-level security hides rows from the role that tidepool connects as",
            hint="Connect as the table's owner and do not FORCE it, or ALTER ROLE … BYPASSRLS.",
        )
    if found.blurred:
        raise UnsupportedDeclaration(
            f"{table.name}: texts that differ are equal in its key, by the collation of {', '.join(found.blurred)}"
        )
    if found.optional:
        raise UnsupportedDeclaration(
            f"{table.name}: in the database these columns of its key may be NULL: {', '.join(found.optional)}",
            hint="A row is synced to its owner, by its key: ALTER TABLE … ALTER … SET NOT NULL.",
        )
    if not found.told_apart:
        raise UnsupportedDeclaration(
            f"{table.name}: nothing in the database says that its key is unique: {', '.join(identifying)}",
            hint="Make it the primary key, or a unique index of it or of a part of it, whole and of columns alone.",
        )
