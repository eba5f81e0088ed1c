"""The description of the API for programs and people, served at /schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
from litestar import Request, Router
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import (
    Components,
    Example,
    OpenAPIHeader,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Schema,
    SecurityScheme,
    Tag,
)

from gateway.auth.asking import COOKIE
from gateway.freshness import MIN_VERSION, MIN_VERSION_PARAMETER
from gateway.problems import MEDIA_TYPE, ProblemBody

EXAMPLE_VERSION = "6b0133b5e2a0f855-1-5-4001.42"

SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"cookie": []}]


def release() -> str:
    """Give the release that runs, as it is installed."""
    try:
        return version("tidepool")
    except PackageNotFoundError:
        return "0"


def openapi_config(application: Sequence[Tag]) -> OpenAPIConfig:
    """Describe the API as a whole, with the tags of the application's routes first; each route describes itself."""
    return OpenAPIConfig(
        title="tidepool",
        version=release(),
        description=(
            "One Postgres to write to, one SQLite file per user to read from. Every write answers with a "
            f"`version`; hand it back as `{MIN_VERSION}` to read at least that state. What goes wrong is "
            f"answered with an `{MEDIA_TYPE}` body whose `code` never changes its meaning."
        ),
        path="/schema",
        render_plugins=[_WithProblems(path=["/", "/openapi.json"])],
        tags=[
            *application,
            Tag(name="sync", description="Bringing a replica up to date, and being told of each change."),
            Tag(name="me", description="Who is asking, and the mirror of theirs."),
            Tag(name="operations", description="For those who run the server; no token needed."),
        ],
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT"),
                "cookie": SecurityScheme(type="apiKey", name=COOKIE, security_scheme_in="cookie"),
            }
        ),
    )


def example(value: Any) -> Example:
    """Give an example as it stands. Litestar would leave members out of it that are null."""
    return Example(value=msgspec.Raw(msgspec.json.encode(value)))


def problem_spec(status: int, code: str, detail: str) -> ResponseSpec:
    """Describe a problem that a route answers with, for its ``responses``."""
    return ResponseSpec(
        ProblemBody,
        generate_examples=False,
        description=HTTPStatus(status).phrase,
        media_type=MEDIA_TYPE,
        examples=[example(_example(status, code, detail))],
    )


@dataclass
class FreshRead(Operation):
    """A read through `gateway.freshness`: say ``@get(…, operation_class=FreshRead)`` and it is described."""

    def __post_init__(self) -> None:
        told = "Wait until the replica is at this version or past it; the `version` of an earlier answer."
        text = Schema(type=OpenAPIType.STRING)
        cursor = Schema(type=OpenAPIType.STRING, examples=[EXAMPLE_VERSION])
        self.parameters = [
            *(self.parameters or []),
            Parameter(MIN_VERSION, "header", description=told, schema=cursor),
            Parameter(MIN_VERSION_PARAMETER, "query", description=told, schema=cursor),
            Parameter("If-None-Match", "header", description="The ETag of what the client has.", schema=text),
        ]
        self.responses = {
            **(self.responses or {}),
            "304": OpenAPIResponse(description="What the client has is what there is."),
        }
        if isinstance(answer := self.responses.get("200"), OpenAPIResponse):
            stale = "`true` when the replica could not be compared with the primary in time: it may be behind."
            answer.headers = {
                **(answer.headers or {}),
                "X-Replica-Version": OpenAPIHeader(description="The version that was read.", schema=cursor),
                "ETag": OpenAPIHeader(description="For If-None-Match.", schema=text),
                "X-Replica-Stale": OpenAPIHeader(description=stale, schema=text),
            }


class _WithProblems(JsonRenderPlugin):
    """Serves the description with the problems in it that this application really answers with."""

    def receive_router(self, router: Router) -> None:
        """Take away Litestar's own page for what is not there, which is HTML: a problem says it."""
        router.routes[:] = [route for route in router.routes if "{" not in route.path]

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Write the description as JSON."""
        return super().render(request, with_problems(openapi_schema))


def with_problems(schema: dict[str, Any]) -> dict[str, Any]:
    """Describe the problems that many routes share, in the place of those that Litestar supposes."""
    _, definitions = msgspec.json.schema_components([ProblemBody], ref_template="#/components/schemas/{name}")
    components = schema.get("components", {})
    paths = {
        path: {
            name: _operation(name, value) if isinstance(value, dict) and "responses" in value else value
            for name, value in item.items()
        }
        for path, item in schema.get("paths", {}).items()
    }
    responses = {str(status): _response(status, *told) for status, told in _SHARED.items()}
    return {
        **schema,
        "paths": paths,
        "components": {
            **components,
            "schemas": {**components.get("schemas", {}), **definitions},
            "responses": {**components.get("responses", {}), **responses},
        },
    }


_SHARED = {
    400: ("malformed_json", "JSON is malformed: invalid character (byte 21)"),
    401: ("token_expired", "the token has expired"),
    403: ("csrf", "a change by cookie has to come from a page of this server"),
    409: ("cursor_epoch_changed", "the cursor is of another primary than the one there is now"),
    413: ("body_too_large", "Request Entity Too Large"),
    415: ("unsupported_media_type", "Content-Type: must be application/json"),
    422: ("invalid_request", "images[3].seed: Expected `int | null`, got `str`"),
    503: ("primary_unavailable", "the primary database cannot be reached"),
    504: ("version_not_reached", "the replica did not get there in time"),
}


def _operation(method: str, operation: dict[str, Any]) -> dict[str, Any]:
    responses = dict(operation["responses"])
    supposed = responses.get("400", {})
    takes = "application/json" in supposed.get("content", {})  # parameters or a body, says Litestar
    if takes:
        del responses["400"]
    body = operation.get("requestBody")
    reads = any(parameter.get("name") == MIN_VERSION for parameter in operation.get("parameters", ()))
    shared = {
        400: body is not None,
        401: bool(operation.get("security")),
        403: bool(operation.get("security")) and method != "get",
        409: reads,
        413: body is not None,
        415: body is not None,
        422: takes or reads,
        503: bool(operation.get("security")),
        504: reads,
    }
    for status, applies in shared.items():
        if applies:
            responses.setdefault(str(status), {"$ref": f"#/components/responses/{status}"})
    described = {**operation, "responses": dict(sorted(responses.items()))}
    if body is not None:
        kinds = body.get("content", {}).get("application/json", {}).get("schema", {}).get("oneOf", [])
        described["requestBody"] = {**body, "required": {"type": "null"} not in kinds}
    return described


def _response(status: int, code: str, detail: str) -> dict[str, Any]:
    content = {
        "schema": {"$ref": "#/components/schemas/ProblemBody"},
        "example": _example(status, code, detail),
    }
    return {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: content}}


def _example(status: int, code: str, detail: str) -> dict[str, Any]:
    return {
        "type": f"urn:tidepool:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
