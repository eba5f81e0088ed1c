"""Is it alive, is it ready, what has it done: for balancers, Kubernetes and Prometheus. No token needed."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar import Response, get
from litestar.openapi import ResponseSpec

from gateway.mount import Mount
from gateway.observe.metrics import CONTENT_TYPE
from gateway.parts import Parts
from gateway.readiness import Check, Readiness


class Alive(msgspec.Struct):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(msgspec.Struct):
    """Whether all is there that the server needs, by name."""

    status: Literal["ready", "not_ready"]
    checks: Annotated[
        dict[str, Check],
        msgspec.Meta(
            examples=[
                {
                    "primary": {"ok": True, "detail": "reachable"},
                    "migrations": {"ok": True, "detail": "current"},
                    "data_directory": {"ok": True, "detail": "writable"},
                }
            ]
        ),
    ]


def router(parts: Parts) -> Mount:
    """Give the routes of those who run the server."""
    readiness = Readiness.of(parts.primary, parts.catalog, parts.settings.data_dir)

    @get("/health/live", summary="Is the process alive?")
    async def live() -> Alive:
        """Answer. Restart what does not."""
        return Alive()

    @get(
        "/health/ready",
        summary="Can it do all of its work?",
        responses={
            503: ResponseSpec(Ready, description="Something that is needed is missing.", generate_examples=False)
        },
    )
    async def ready() -> Response[Ready]:
        """Check what is needed. With the primary away this is 503; reads are served still."""
        checks = await readiness.check()
        if all(check.ok for check in checks.values()):
            return Response(Ready("ready", checks), status_code=200)
        return Response(Ready("not_ready", checks), status_code=503)

    @get("/metrics", summary="What has it done?", media_type="text/plain")
    async def metrics() -> Response[bytes]:
        """Give the metrics in Prometheus' text format."""
        return Response(parts.metrics.text(), media_type=CONTENT_TYPE)

    return Mount("/", route_handlers=[live, ready, metrics], tags=["operations"])
