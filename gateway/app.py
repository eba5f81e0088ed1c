"""The application, wired together in one place: which routes there are, and what stands before them."""

from __future__ import annotations

from litestar import Litestar

from gateway.auth.asking import asking
from gateway.auth.tokens import TokenVerifier
from gateway.bodies import StrictRequest
from gateway.events.streams import Streams
from gateway.exports.places import Places
from gateway.freshness import Freshness
from gateway.gallery import me
from gateway.gallery.mirror import routes as mirror
from gateway.gallery.routes import TAGS, gallery_routers
from gateway.mount import Mount
from gateway.observe.metrics import Metrics
from gateway.observe.middleware import Observe
from gateway.once import Writes
from gateway.openapi import SECURITY, openapi_config, release
from gateway.parts import Parts
from gateway.problems import answer
from gateway.routes import events, export, health, sync
from gateway.settings import Settings
from primary.declaration import Catalog
from primary.postgres import Primary
from replica.follower import Follower
from replica.store import Store


def create_app(
    settings: Settings,
    primary: Primary,
    store: Store,
    follower: Follower,
    streams: Streams,
    catalog: Catalog,
    verifier: TokenVerifier,
) -> Litestar:
    """Put the application together. The parts are opened and closed by the caller (see `gateway.server`).

    Everything below /api asks for a token, whatever is mounted there; nothing else does.
    """
    metrics = Metrics()
    exports = Places(per_user_max=settings.exports_per_user_max, node_max=settings.exports_max)
    metrics.watch(store, primary, follower, exports)
    edition = f"{release()} {store.schema.hash}"
    freshness = Freshness(store, follower, primary, wait_ms=settings.min_version_wait_ms, edition=edition)
    writes = Writes(primary, kept_s=settings.idempotency_kept_s)
    parts = Parts(settings, primary, store, follower, streams, catalog, metrics, freshness, writes, exports)
    api = Mount(
        "/api",
        route_handlers=[
            *sync.routes(parts),
            *events.routes(parts),
            *export.routes(parts),
            *me.routes(parts),
            *mirror.routes(parts),
            *gallery_routers(parts),
        ],
        middleware=[asking(verifier)],
        security=SECURITY,
    )
    app = Litestar(
        [api, health.router(parts)],
        exception_handlers={Exception: answer},
        request_class=StrictRequest,
        request_max_body_size=settings.request_body_max_bytes,
        openapi_config=openapi_config(TAGS),
        logging_config=None,  # one handler logs what is unexpected, in `gateway.problems`
    )
    # Around the router itself, so that what is no route gets its id and is counted too.
    app.asgi_handler = Observe(app.asgi_handler, metrics)
    return app
