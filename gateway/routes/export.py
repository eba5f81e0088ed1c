"""Taking everything along that one owns: as an SQLite file, as lines of JSON, or as CSV."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import parse_qs

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import OpenAPIHeader, OpenAPIMediaType, OpenAPIResponse, Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.response.base import ASGIResponse
from litestar.types import HTTPScope

from gateway.bodies import StrictRequest
from gateway.exports.download import Download
from gateway.exports.leaving import while_there
from gateway.freshness import MIN_VERSION_PARAMETER, weakened
from gateway.openapi import FreshRead, problem_spec
from gateway.parameters import only
from gateway.parts import Parts
from gateway.problems import invalid_request
from gateway.validation import FieldError
from gateway.whole import Header
from primary.cursor import Cursor
from replica.export import FORMATS, Export, Format, export

_DEFAULT = next(iter(FORMATS))
_BINARY = Schema(type=OpenAPIType.STRING)
_FILE = ResponseSpec(
    bytes,
    description="The file: every row that you own, as of the version that it says, and a manifest that tells of it.",
    media_type=FORMATS[_DEFAULT].media_type,
    generate_examples=False,
)
_TOO_MANY = problem_spec(429, "too_many_exports", "you have 2 exports under way, which is as many as a user may have")


@dataclass
class ExportRead(FreshRead):
    """Describes what an export is asked for with, and what it comes as."""

    def __post_init__(self) -> None:
        names = Schema(type=OpenAPIType.STRING, enum=[*FORMATS], default=_DEFAULT)
        told = "An SQLite file; lines of JSON; or a zip with a CSV file for each table."
        self.parameters = [*(self.parameters or []), Parameter("format", "query", description=told, schema=names)]
        super().__post_init__()
        if self.responses and isinstance(answer := self.responses.get("200"), OpenAPIResponse):
            answer.content = {form.media_type: OpenAPIMediaType(schema=_BINARY) for form in FORMATS.values()}
            name = OpenAPIHeader(description="A name for the file.", schema=Schema(type=OpenAPIType.STRING))
            answer.headers = {**(answer.headers or {}), "Content-Disposition": name}


def routes(parts: Parts) -> list[HTTPRouteHandler]:
    """Give the routes, to be mounted below /api."""
    store, freshness, places = parts.store, parts.freshness, parts.exports
    stall_max_s = parts.settings.export_stall_max_s

    async def made(user: str, form: Format) -> Export:
        async with places.turn:
            return await export(store, user, form)

    @get(
        "/export",
        operation_class=ExportRead,
        responses={200: _FILE, 429: _TOO_MANY},
        tags=["sync"],
        summary="Take everything along",
    )
    async def export_all(request: StrictRequest) -> ASGIResponse:
        """Give a file with everything that you own, at one version, which it says; history and all.

        It is made before it is sent: what is answered with 200 is whole if it is as long as it says.
        """
        scope = request.scope
        only(scope, "format", MIN_VERSION_PARAMETER)
        form = _format_asked(scope)
        user = request.user.user
        if (unchanged := await freshness.before(scope, user, weak=True)) is not None:
            return unchanged
        with ExitStack() as opening:
            opening.enter_context(places.place(user))
            whole = await while_there(request.receive, made(user, form))
            opening.callback(whole.close)
            headers = [*_headers(form, whole.version), *weakened(freshness.headers(scope, user, whole.version))]
            return Download(whole.file, whole.size_bytes, headers, stall_max_s, opening.pop_all())

    return [export_all]


def _format_asked(scope: HTTPScope) -> Format:
    """Read which format is wanted. Raises a `Problem`."""
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="replace")
    (name,) = query.get("format", [_DEFAULT])
    if name not in FORMATS:
        raise invalid_request([FieldError("format", f"must be one of {', '.join(FORMATS)}")])
    return FORMATS[name]


def _headers(form: Format, version: Cursor) -> list[Header]:
    return [
        (b"content-type", form.media_type.encode()),
        (b"content-disposition", f'attachment; filename="tidepool-{version}{form.suffix}"'.encode()),
    ]
