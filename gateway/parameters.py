"""Query parameters. What a route does not know it refuses: who misspells one would never learn of it otherwise."""

from __future__ import annotations

from urllib.parse import parse_qsl

from litestar.types import Scope

from gateway.problems import invalid_request
from gateway.validation import FieldError

_UNKNOWN = "is not a parameter of this route"
_REPEATED = "is given more than once"


def only(scope: Scope, *known: str) -> None:
    """Let a request pass whose query has no parameter but the ``known``, and each at most once. Raises a `Problem`."""
    query: bytes = scope["query_string"]
    if not query:
        return
    seen: set[str] = set()
    errors: list[FieldError] = []
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="replace"):
        if name not in known or name in seen:
            errors.append(FieldError(name, _REPEATED if name in seen else _UNKNOWN))
        seen.add(name)
    if errors:
        raise invalid_request(errors)
