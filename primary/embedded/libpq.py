"""What libpq takes from the environment where an address leaves it open.

It is meant for other servers. `PGHOSTADDR` would lead past the socket to one of them, `PGSERVICE` is looked up even
where it decides nothing, `PGSSLMODE=require` and `PGCHANNELBINDING=require` cannot be had at a socket, and `PGOPTIONS`
may hide our tables. An address cannot say that a service is not meant, so the variables have to go.
"""

from __future__ import annotations

import os

from psycopg.pq import Conninfo


def forget_other_servers() -> None:
    """Take libpq's variables out of our environment, and so out of that of the programs that we start."""
    for option in Conninfo.get_defaults():
        if option.envvar is not None:
            os.environ.pop(option.envvar.decode(), None)
