"""One call to an upstream server: it arrives, or there is one of two failures with a text fit to be shown."""

from __future__ import annotations

import asyncio

import httpx

from gateway.gallery.mirror.graphql import Call, MirrorFailure, ServerFailed, check_answer, check_status
from gateway.gallery.mirror.limits import MirrorLimits
from gateway.gallery.mirror.sealing import ApiKey
from gateway.outbound.endpoint import EndpointRefused, NotFound, check_endpoint
from gateway.outbound.transport import CheckedTransport

_SHOWN_MAX_CHARS = 300


class UpstreamClient:
    """Calls upstream servers, each connection for one call. To be closed with `close`.

    ``private_allowed``: servers on private addresses may be called.
    """

    def __init__(self, limits: MirrorLimits, *, private_allowed: bool = False) -> None:
        self._limits = limits
        self._private_allowed = private_allowed
        self._transport = CheckedTransport(private_allowed=private_allowed, connections_max=limits.concurrency)
        timeout = httpx.Timeout(limits.read_timeout_s, connect=limits.connect_timeout_s)
        self._extensions = {"timeout": timeout.as_dict()}

    async def close(self) -> None:
        """Close what is open."""
        await self._transport.aclose()

    async def tell(self, endpoint: str, key: ApiKey, call: Call) -> None:
        """Make a call, and return when the server says that it is done. Raises `ServerFailed` and `RowRefused`.

        What libraries raise is not passed on and not quoted: a message of theirs could hold a header's value.
        """
        try:
            check_endpoint(endpoint, private_allowed=self._private_allowed)
            async with asyncio.timeout(self._limits.total_timeout_s):
                status, body = await self._post(endpoint, key, call)
        except EndpointRefused as error:
            raise ServerFailed(f"the endpoint {error}", settled=True) from None
        except NotFound as error:
            raise ServerFailed(str(error)) from None
        except (TimeoutError, httpx.TimeoutException):
            raise ServerFailed("the server did not answer in time") from None
        except httpx.ConnectError:
            raise ServerFailed("the server cannot be connected to") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
            raise ServerFailed("the server broke off, or did not answer as HTTP has it") from None
        check_status(status)
        try:
            check_answer(call, status, body)
        except MirrorFailure as error:
            # A server can quote what it was sent. (Cut after that, or a part of the key could stay.)
            shown = key.without(str(error))[:_SHOWN_MAX_CHARS]
            raise type(error)(shown, settled=error.settled) from None

    async def _post(self, endpoint: str, key: ApiKey, call: Call) -> tuple[int, bytes]:
        """Give the status and the body of the answer. Raises what httpx does, and `ServerFailed`."""
        headers = {
            "ApiKey": key.reveal(),
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # a few bytes could unpack to gigabytes
            "User-Agent": "tidepool",
        }
        request = httpx.Request("POST", endpoint, headers=headers, content=call.body, extensions=dict(self._extensions))
        answer = await self._transport.handle_async_request(request)
        try:
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise ServerFailed("the server answers compressed, which it was not asked to")
            body = bytearray()
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > self._limits.answer_max_bytes:
                    raise ServerFailed(f"the server answers with more than {self._limits.answer_max_bytes} bytes")
        finally:
            await answer.aclose()
        return answer.status_code, bytes(body)
