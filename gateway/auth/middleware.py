"""The layer that asks who it is, around every route below /api, matched paths and methods alike."""

from __future__ import annotations

from typing import Any, cast

from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from gateway.auth.tokens import TokenVerifier, Unauthenticated

COOKIE = "tidepool_token"

_COOKIE_PREFIX = COOKIE.encode() + b"="
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class CrossSiteRequest(Exception):
    """A page of another site asked for a change in the name of a browser's user."""


class Authenticate:
    """Puts the `Identity` of whoever asks into the request, or raises `Unauthenticated`.

    A token comes as ``Authorization: Bearer …``. Without that header a browser's cookie counts; then a
    request that may change something has to come from a page of this server, or `CrossSiteRequest` is raised,
    for a browser sends the cookie whichever page asks.

    Used as a Litestar middleware: ``Router("/api", middleware=[Authenticate.by(verifier)])``.
    """

    __slots__ = ("_app", "_verifier")

    def __init__(self, app: ASGIApp, verifier: TokenVerifier) -> None:
        self._app = app
        self._verifier = verifier

    @classmethod
    def by(cls, verifier: TokenVerifier) -> Any:
        """Give the middleware that believes ``verifier``."""

        def layer(app: ASGIApp) -> ASGIApp:
            return cls(app, verifier)

        return layer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate, then hand the request on."""
        token = _bearer(scope)
        if token is None:
            token = _cookie(scope)
            _check_same_site(cast("HTTPScope", scope))
        scope["user"] = self._verifier.seen(token) or await self._verifier.verify(token)
        await self._app(scope, receive, send)


def _bearer(scope: Scope) -> str | None:
    """Give the bearer token; None without an Authorization header."""
    given: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            if given is not None:  # whoever stands in between may have looked at the other one
                raise Unauthenticated("the request has more than one Authorization header")
            given = value
    if given is None:
        return None
    if given[:7].lower() != b"bearer ":
        raise Unauthenticated("the Authorization header holds no bearer token", code="token_missing")
    return given[7:].strip().decode("latin-1")


def _cookie(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"cookie":
            for part in value.split(b";"):
                if (pair := part.strip()).startswith(_COOKIE_PREFIX):
                    return pair[len(_COOKIE_PREFIX) :].strip(b'"').decode("latin-1")
    raise Unauthenticated("the request has no token", code="token_missing")


def _check_same_site(scope: HTTPScope) -> None:
    """Let a request of a cookie's owner pass when it changes nothing, or when no other site can have made it.

    Browsers that are not ancient say where a request comes from in Sec-Fetch-Site, which pages cannot set;
    older ones say so in Origin. Who says neither is refused: there is the Authorization header.
    """
    if scope["method"] in _SAFE_METHODS:
        return
    headers = dict(scope["headers"])
    if (site := headers.get(b"sec-fetch-site")) is not None:
        same = site in (b"same-origin", b"none")  # none: the user's own doing, such as a bookmark
    else:
        # The scheme is left out of it: behind a proxy that speaks TLS, this server cannot tell its own.
        host = headers.get(b"origin", b"").partition(b"://")[2]
        same = host != b"" and host.lower() == headers.get(b"host", b"").lower()
    if not same:
        raise CrossSiteRequest("a change by cookie has to come from a page of this server")
