"""A Postgres of our own, run from binaries that a Python wheel brings: nothing to set up.

`EmbeddedPostgres` is the whole of it, in `server`. Behind it: `binaries` (where the wheel keeps them), `account`
(which system user they run as), `cluster` (how a data directory is made and checked), `postmaster` (whether a server
runs in it), `locks` (which processes use it), `libpq` (what must not lead elsewhere).
"""

from primary.embedded.binaries import psql_path
from primary.embedded.errors import EmbeddedPostgresError
from primary.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "psql_path"]
