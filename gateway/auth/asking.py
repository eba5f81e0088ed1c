"""Asking who it is, before every route below /api."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from gateway.auth.tokens import TokenVerifier, Unauthenticated

COOKIE = "tidepool_token"

_COOKIE_PREFIX = COOKIE.encode() + b"="
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class CrossSiteRequest(Exception):
    """A page of another site asked for a change in the name of a browser's user."""


def asking(verifier: TokenVerifier) -> Callable[[ASGIApp], ASGIApp]:
    """Give the middleware that puts the `Identity` of whoever asks into each request, or raises `Unauthenticated`.

    A token comes as ``Authorization: Bearer …``. Without that header a browser's cookie counts; then a
    request that may change something has to come from a page of this server, or `CrossSiteRequest` is raised,
    for a browser sends the cookie whichever page asks.

    ``Router("/api", middleware=[asking(verifier)])``: it stands before every middleware of the routes below.
    """

    def made(app: ASGIApp) -> ASGIApp:
        async def ask(scope: Scope, receive: Receive, send: Send) -> None:
            token = _bearer(scope)
            if token is None:
                token = _cookie(scope)
                _check_same_site(cast("HTTPScope", scope))
            scope["user"] = verifier.seen(token) or await verifier.verify(token)
            await app(scope, receive, send)

        return ask

    return made


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
