"""How large the values of the gallery may be. The database and the API refuse alike what is beyond them."""

from __future__ import annotations

USER_ID_MAX_CHARS = 255
"""Enough for every identity provider's subject, short enough to lead every index."""

PROMPT_MAX_CHARS = 32_768
"""Ten times the longest prompts that generators accept, workflows pasted as text included."""

URL_MAX_CHARS = 8_192
"""The longest address that browsers and proxies pass on; signed storage addresses are long."""

NAME_MAX_CHARS = 255
"""Of a model, source, persona, title or client event id: one line of text."""

ALT_TEXT_MAX_CHARS = 4_096
"""Screen readers lose their listeners far earlier."""

DESCRIPTION_MAX_CHARS = 32_768
"""A few pages of text."""

SEED_MIN, SEED_MAX = -(2**63), 2**63 - 1
"""A Postgres bigint. Generators use -1 for a random seed."""

STEPS_MAX = 10_000
"""Samplers stop at 150; experiments go further."""

SIDE_MAX_PX = 65_535
"""The largest side that JPEG can hold."""

RATING_MAX = 100
"""Ratings go from 0 to 100, in the manner of Stash's `rating100`."""

META_MAX_BYTES = 65_536
"""Of the whole object as JSON. Larger documents belong beside the image, with a link in `meta`."""

DOCUMENT_MAX_BYTES = 2 * META_MAX_BYTES
"""Of a document as Postgres writes it: with a space after each comma, and numbers like 1e300 in full."""

META_MAX_DEPTH = 32
"""Of objects and arrays within each other, the outer object included."""

EVENT_AHEAD_MAX_S = 300
"""How far in the future an event may be said to have happened: clients' clocks differ."""

ALBUM_ORDER_MAX = 10_000
"""Images whose order is given whole; in a larger album they are moved. It is one statement that holds its user up."""
