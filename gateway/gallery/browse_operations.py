"""How the parameters of what is browsed are described to clients; they are read by `gateway.gallery.asked`."""

from __future__ import annotations

from dataclasses import dataclass

from litestar.openapi.spec import Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType

from gateway.gallery.browse_documents import ALBUM_ID
from gateway.gallery.documents import CURSOR
from gateway.openapi import FreshRead
from primary.gallery import limits
from replica.gallery.listing import ORDERS, SORTS

_TEXT = OpenAPIType.STRING
_SOUGHT = (
    "Words that are all in the image's texts, or all in the title of an album that it is in. `tide*` is every word "
    'that begins so, `"low water"` these words in a row.'
)
_PAGE = [
    Parameter(
        "limit",
        "query",
        description="How many at most; fewer where they are very large.",
        schema=Schema(type=OpenAPIType.INTEGER, minimum=1),
    ),
    Parameter(
        "cursor",
        "query",
        description="The `next_cursor` of the page before, of the same list.",
        schema=Schema(type=_TEXT, examples=[CURSOR]),
    ),
]


def _filters(*but: str) -> list[Parameter]:
    rating = Schema(type=OpenAPIType.INTEGER, minimum=0, maximum=limits.RATING_MAX)
    moment = Schema(type=_TEXT, examples=["2025-03-01T08:00:00Z", "2025-03-01"])
    told = [
        ("favorite", "Only favourites; `false`: only the others.", Schema(type=OpenAPIType.BOOLEAN)),
        ("min_rating", "Only what is rated so or higher.", rating),
        ("album", "Only what is in this album.", Schema(type=_TEXT, format=OpenAPIFormat.UUID, examples=[ALBUM_ID])),
        ("source", "Only what comes from exactly this.", Schema(type=_TEXT)),
        ("model", "Only what was made by exactly this.", Schema(type=_TEXT)),
        ("q", _SOUGHT, Schema(type=_TEXT, examples=["tide pool", "tid*", '"low water"'])),
        ("created_from", "Only what was made then or later.", moment),
        ("created_to", "Only what was made before.", moment),
    ]
    return [Parameter(name, "query", description=text, schema=kind) for name, text, kind in told if name not in but]


def _order(default: str) -> list[Parameter]:
    return [
        Parameter(
            "sort",
            "query",
            description=f"By what; `relevance` where `q` is given, else `{default}`. Images without it come last.",
            schema=Schema(type=_TEXT, enum=[*SORTS]),
        ),
        Parameter(
            "order",
            "query",
            description="`desc`, but `asc` for `position`.",
            schema=Schema(type=_TEXT, enum=[*ORDERS]),
        ),
    ]


@dataclass
class _Read(FreshRead):
    def __post_init__(self) -> None:
        self.parameters = [*(self.parameters or []), *self._own()]
        super().__post_init__()

    def _own(self) -> list[Parameter]:
        return []


@dataclass
class ListRead(_Read):
    """A read of a page of a list of images."""

    def _own(self) -> list[Parameter]:
        return [*_PAGE, *_filters(), *_order("created_at")]


@dataclass
class AlbumPageRead(_Read):
    """The same within an album."""

    def _own(self) -> list[Parameter]:
        return [*_PAGE, *_filters("album"), *_order("position")]


@dataclass
class FacetsRead(_Read):
    """A read of counts."""

    def _own(self) -> list[Parameter]:
        return _filters()


@dataclass
class PagedRead(_Read):
    """A read of a page of what has one order."""

    def _own(self) -> list[Parameter]:
        return [*_PAGE]


@dataclass
class DetailRead(_Read):
    """A read of one image."""

    def _own(self) -> list[Parameter]:
        told = (
            "What else is told of it, with commas between: `history` (as without this), `events`, `albums`; or empty."
        )
        return [Parameter("include", "query", description=told, schema=Schema(type=_TEXT, examples=["history,albums"]))]
