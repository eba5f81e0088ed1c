"""The address of a server that a user names, as text: what it may look like, and where it leads."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from urllib.parse import urlsplit

from gateway.outbound.addresses import refusal

URL_MAX_CHARS = 2_048
"""The longest that servers are reached by; nothing in it is data."""

_HOST = re.compile(r"(?=.{1,253}\.?$)(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE)
_LAST_IS_NUMBER = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)\.?", re.IGNORECASE)


class EndpointRefused(Exception):
    """An endpoint that is not asked; the text says why, and can be shown to the user."""


class NotFound(Exception):
    """The endpoint's name leads nowhere just now."""


def check_endpoint(url: str, *, private_allowed: bool) -> str:
    """Give an endpoint back that may be asked, as far as its text tells. Raises `EndpointRefused`.

    It is http or https, a host, perhaps a port and a path. No user and no query: a secret there would be shown with
    the address. A host that ends in a number is four plain decimal bytes, for others read 0177.1 or 2130706433 as
    some other address.
    """
    if len(url) > URL_MAX_CHARS or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise EndpointRefused(f"must be a URL of at most {URL_MAX_CHARS} printable ASCII characters, without spaces")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise EndpointRefused("is no URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise EndpointRefused("must be a URL such as https://stash.example/graphql")
    if "@" in parts.netloc:
        raise EndpointRefused("must not have a user or password in it")
    if "?" in url or "#" in url:
        raise EndpointRefused("must not have a query or fragment: the key has a field of its own")
    host, bracketed = parts.hostname, "[" in parts.netloc
    address = _address(host)
    if bracketed != (address is not None and ":" in address) or (
        address is None and (not _HOST.fullmatch(host) or _LAST_IS_NUMBER.fullmatch(host))
    ):
        raise EndpointRefused(
            "must name its host as a name (in its xn-- form), or as an address in its usual way, such as 192.0.2.1"
        )
    if address is not None and (why := refusal(address, private_allowed=private_allowed)) is not None:
        raise EndpointRefused(f"is not asked: {why}")
    return url


async def resolve(host: str, port: int, *, private_allowed: bool) -> list[str]:
    """Give the addresses that a host has just now, each checked: what is to be connected to, and nothing else.

    Raises `EndpointRefused` if one of them may not be asked, and `NotFound`.
    """
    if (given := _address(host)) is not None:
        found = [given]
    else:
        try:
            answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise NotFound(f"the name {host} was not found") from None
        found = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
    if not found:
        raise NotFound(f"the name {host} has no address")
    for address in found:
        if (why := refusal(address, private_allowed=private_allowed)) is not None:
            raise EndpointRefused(f"is not asked: {why}")
    return found


def _address(host: str) -> str | None:
    """Give the host if it is an address, in the one way that everybody reads alike; else None."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None
