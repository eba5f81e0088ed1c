"""Whether a table can be captured as it is in the database: what its declaration does not show."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from primary.declaration import SyncedTable
from primary.errors import UnsupportedDeclaration

_LOOK = sa.text("""
SELECT c.relkind <> 'r' OR EXISTS (SELECT FROM pg_inherits AS i WHERE c.oid IN (i.inhparent, i.inhrelid)) AS in_parts,
  c.relpersistence <> 'p' AS fleeting,
  row_security_active(c.oid) AS veiled,
  (SELECT array_agg(a.attname ORDER BY a.attname)
   FROM pg_attribute AS a JOIN pg_collation AS l ON l.oid = a.attcollation
   WHERE a.attrelid = c.oid AND a.attname = ANY (:identifying) AND NOT l.collisdeterministic) AS blurred
FROM pg_class AS c WHERE c.oid = :table""")


async def check_fitness(conn: AsyncConnection, table: SyncedTable, oid: int | None) -> None:
    """Raise `UnsupportedDeclaration` where changes of the table could go by uncaptured, or rows be mixed up."""
    identifying = [table.owner, *table.key]
    found = (await conn.execute(_LOOK, {"table": oid, "identifying": identifying})).one_or_none()
    if found is None:  # there is no such table, which who locks it is told
        return
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
