"""What clients of several nodes may see, and what not: checked from a record of all that they did and saw.

The truth is kept by Postgres itself: a trigger of the test's own notes, with each version of each user's head, all rows
that the user had at it. What was rolled back leaves no note. So each state that anybody read can be compared with what
there was at its version, whatever was writing meanwhile, and whether or not a write that was answered with an error had
happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import psycopg

from primary.cursor import Cursor
from tests.support.http import execute

FRESH_S = 2.0
"""How old an answer may be that is not marked stale.

A look at who moved began at most 1 s ago (`silence_max_s`), and what it told of is taken in, or was heard of less than
1 s ago (`LAG_MAX_S`). So whatever was committed 2 s before a read began, on whichever node, is in its answer.
"""

Rows = dict[str, str]
"""The prompts of a user's images, by their ids."""

Truth = dict[str, dict[int, Rows]]
"""By user and version, all that the user had."""

_WITNESS = """
CREATE SCHEMA witness;
CREATE TABLE witness.state (user_id text, version bigint, rows jsonb, PRIMARY KEY (user_id, version));
CREATE FUNCTION witness.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO witness.state SELECT NEW.user_id, NEW.version, coalesce(jsonb_object_agg(id, prompt), '{}')
  FROM public.image WHERE user_id = NEW.user_id;
  RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON tidepool.head FOR EACH ROW EXECUTE FUNCTION witness.note()"""


async def install_witness(database_url: str) -> None:
    """Have Postgres note what each user has at each version from now on."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(_WITNESS)


async def truth(database_url: str) -> Truth:
    """Give all that was noted."""
    known: Truth = {}
    for user, version, rows in await execute(database_url, "SELECT user_id, version, rows FROM witness.state"):
        known.setdefault(user, {0: {}})[version] = rows
    return known


@dataclass(frozen=True, slots=True)
class Wrote:
    """A write that was acknowledged: what it gave an image (None: it deleted it), and as of which cursor."""

    user: str
    node: str
    version: Cursor
    image: str
    prompt: str | None
    acknowledged_at: float


@dataclass(frozen=True, slots=True)
class Saw:
    """A state that a client was shown: by a read, by a sync (which shows no rows), or as its copy from an event stream.

    ``at_least`` is the cursor that the client had handed over: the last that it had seen, and those of its writes.
    ``asked_at`` is when it began to ask, and None where nothing was promised of how fresh it is.
    """

    how: str
    user: str
    node: str
    version: Cursor
    rows: Rows | None
    at_least: Cursor | None = None
    asked_at: float | None = None


@dataclass
class History:
    """All that the clients did and saw. ``counts`` tells what else became of their requests."""

    wrote: list[Wrote] = field(default_factory=list)
    saw: list[Saw] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def violations(self, known: Truth) -> list[str]:
        """Tell what must not have been, one sentence each."""
        return [*self._lost_writes(known), *self._wrong_states(known), *self._went_back(), *self._not_fresh()]

    def _lost_writes(self, known: Truth) -> Iterable[str]:
        for write in self.wrote:
            rows = known.get(write.user, {}).get(write.version.version)
            if rows is None or rows.get(write.image) != write.prompt:
                yield f"{write} was acknowledged, and at its version there was {rows}"

    def _wrong_states(self, known: Truth) -> Iterable[str]:
        """I1, I5: each state that was shown is its user's at that version, and nobody else's."""
        for seen in self.saw:
            if seen.rows is not None and seen.rows != (
                there := known.get(seen.user, {0: {}}).get(seen.version.version)
            ):
                yield f"{seen} and there was {there}"

    def _went_back(self) -> Iterable[str]:
        """I3: nothing older than what was handed over, one's own writes included."""
        for seen in self.saw:
            if seen.at_least is not None and seen.version < seen.at_least:
                yield f"{seen} is older than it may be"

    def _not_fresh(self) -> Iterable[str]:
        """What is not said to be stale has every write that was acknowledged `FRESH_S` before it was asked for."""
        for seen in self.saw:
            if seen.asked_at is not None:
                for write in self.wrote:
                    early = write.user == seen.user and write.acknowledged_at < seen.asked_at - FRESH_S
                    if early and seen.version < write.version:
                        age_s = seen.asked_at - write.acknowledged_at
                        yield f"{seen} is not marked stale, and lacks what was there {age_s:.1f} s before: {write}"
