"""The server under load: ``python -m tests.benchmarks.target`` is ``tidepool serve`` with three routes more.

    GET /bench/noop       does nothing, with an answer that is made beforehand: what one process can answer at most
    GET /bench/plain      does nothing, as any Litestar handler that returns nothing
    GET /bench/api/newest the page of 20 as one writes it without replicas: SQLAlchemy and psycopg on the primary

They are of the same process, behind the same layers, so that a read can be compared with them. The address is
written to stdout when the server listens.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from unittest.mock import patch

import msgspec
import sqlalchemy as sa
from litestar import Litestar, MediaType, Response, Router, get
from litestar.handlers import HTTPRouteHandler
from sqlalchemy.ext.asyncio import create_async_engine

from gateway import server
from gateway.answers import Answer
from gateway.app import create_app
from gateway.auth import TokenVerifier, asking
from gateway.bodies import StrictRequest
from gateway.events.streams import Streams
from gateway.observe.logs import configure_logs
from gateway.settings import Settings
from primary.declaration import Catalog
from primary.gallery.tables import image, image_activity
from primary.postgres import Primary
from replica.follower import Follower
from replica.store import Store
from tests.benchmarks.narrow import CHOSEN, with_gallery

POOL = 16  # as many as ask at once: nobody waits for a connection


_NOTHING = Answer.json(b"{}")


@get("/bench/noop", include_in_schema=False)
async def noop() -> Answer:
    """Do nothing."""
    return _NOTHING


@get("/bench/plain", include_in_schema=False)
async def plain() -> None:
    """Do nothing."""


def newest_on_primary(database_url: str) -> HTTPRouteHandler:
    """Give the handler that one writes without replicas, as good as that is done.

    One statement on an index of its own, no transaction around it, prepared by the driver, columns and no ORM
    objects, JSON by msgspec.
    """
    engine = create_async_engine(
        database_url.replace("postgresql://", "postgresql+psycopg://", 1),
        pool_size=POOL,
        max_overflow=0,
        isolation_level="AUTOCOMMIT",
    )
    own = [column for column in image.c if column.name != "user_id"]
    activity = [column for column in image_activity.c if column.name not in ("user_id", "image_id")]
    found = sa.and_(image_activity.c.user_id == image.c.user_id, image_activity.c.image_id == image.c.id)
    newest = (
        sa.select(*own, *activity)
        .select_from(image.outerjoin(image_activity, found))
        .where(image.c.user_id == sa.bindparam("user"))
        .order_by(image.c.created_at.desc(), image.c.id.desc())
        .limit(sa.bindparam("limit"))
    )

    @get("/newest", include_in_schema=False)
    async def handler(request: StrictRequest, limit: int = 20) -> Response[bytes]:
        async with engine.connect() as connection:
            rows = await connection.execute(newest, {"user": request.user.user, "limit": limit})
            page = {"images": [dict(row) for row in rows.mappings()]}
        return Response(msgspec.json.encode(page), media_type=MediaType.JSON)

    return handler


def create_bench_app(
    settings: Settings,
    primary: Primary,
    store: Store,
    follower: Follower,
    streams: Streams,
    catalog: Catalog,
    verifier: TokenVerifier,
) -> Litestar:
    """Give the product's application with the routes above."""
    app = create_app(settings, primary, store, follower, streams, catalog, verifier)
    assert settings.database_url is not None
    app.register(noop)
    app.register(plain)
    app.register(
        Router(
            "/bench/api",
            route_handlers=[newest_on_primary(settings.database_url)],
            middleware=[asking(verifier)],
        )
    )
    return app


def main() -> int:
    """Serve, as the product does."""
    settings = Settings.from_environment(os.environ)
    configure_logs(settings.log_level, settings.log_format)
    with patch.object(server, "create_app", create_bench_app), ExitStack() as stack:
        if CHOSEN in os.environ:
            stack.enter_context(patch.object(server, "catalog", with_gallery))
        return server.run(settings, ready=lambda host, port: print(f"http://{host}:{port}", flush=True))


if __name__ == "__main__":
    raise SystemExit(main())
