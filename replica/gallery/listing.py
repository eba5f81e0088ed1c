"""What a list of images is: which of them, and in which order."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

Sort = Literal[
    "created_at",
    "relevance",
    "rating",
    "o_count",
    "view_count",
    "usage_count",
    "last_viewed_at",
    "updated_at",
    "position",
]
SORTS: tuple[Sort, ...] = get_args(Sort)

Order = Literal["asc", "desc"]
ORDERS: tuple[Order, ...] = get_args(Order)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which images: those for which all that is given holds.

    ``favorite`` as they are marked; ``min_rating``: rated so or higher; ``album``: an album's id, in canonical form;
    ``source`` and ``model``: exactly this; ``q``: what is searched for (see `replica.gallery.search`);
    ``created_from``, ``created_to``: made at or after the one and before the other, both as replicas write times.
    """

    favorite: bool | None = None
    min_rating: int | None = None
    album: str | None = None
    source: str | None = None
    model: str | None = None
    q: str | None = None
    created_from: str | None = None
    created_to: str | None = None

    def given(self) -> dict[str, bool | int | str]:
        """Give those that are given, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Listing:
    """Some images, in an order.

    Images without what they are sorted by (a rating, a last view) come last either way; those that are the same in it
    are in the order of ``created_at``. ``position`` needs an album and ``relevance`` a ``q``.
    """

    filters: Filters = field(default_factory=Filters)
    sort: Sort = "created_at"
    order: Order = "desc"

    @property
    def is_plain(self) -> bool:
        """Whether it is all images, the newest first."""
        return self == _PLAIN

    @property
    def name(self) -> str:
        """Name the list, to tell its page cursors from those of others; empty for the plain one."""
        if self.is_plain:
            return ""
        told = json.dumps([self.filters.given(), self.sort, self.order], sort_keys=True)
        return hashlib.blake2b(told.encode(), digest_size=5).hexdigest()


_PLAIN = Listing()
