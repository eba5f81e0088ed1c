"""A transport of httpx that only connects to addresses which were checked.

The name is looked up, its addresses are checked, and one of those is connected to: whoever answers the name with
another address a moment later gains nothing. The server's certificate and the Host header are still of the name.

To be used without httpx's client: that would follow redirects, keep one user's cookies for another, and take
passwords and proxies from the environment.
"""

from __future__ import annotations

import ssl
from functools import cache

import httpx

from gateway.outbound.endpoint import resolve


class CheckedTransport(httpx.AsyncBaseTransport):
    """Connects to public addresses, and to private ones if ``private_allowed``. Raises `EndpointRefused`, `NotFound`.

    And what httpx raises. A connection serves one request: a kept one is known by its address alone, which servers
    of two names can share.
    """

    def __init__(
        self, *, private_allowed: bool, connections_max: int, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._private_allowed = private_allowed
        self._inner = httpx.AsyncHTTPTransport(
            verify=ssl_context or _certificates(),
            trust_env=False,
            limits=httpx.Limits(max_connections=connections_max, max_keepalive_connections=0),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the first of its host's addresses that can be connected to."""
        named = request.url
        port = named.port or (443 if named.scheme == "https" else 80)
        *others, last = await resolve(named.host, port, private_allowed=self._private_allowed)
        request.extensions = {**request.extensions, "sni_hostname": named.host}
        for address in others:
            try:
                return await self._send(request, named.copy_with(host=address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._send(request, named.copy_with(host=last))

    async def _send(self, request: httpx.Request, url: httpx.URL) -> httpx.Response:
        request.url = url  # where to; whom for is in the Host header since the request was made
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close what is open."""
        await self._inner.aclose()


@cache
def _certificates() -> ssl.SSLContext:
    """Give the certificates that everybody believes, read once: that takes 50 ms."""
    return httpx.create_ssl_context(trust_env=False)
