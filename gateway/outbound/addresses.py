"""Which addresses may be asked on behalf of a user. Pure; by what the address is, never by how it is written.

    refusal("93.184.215.14", private_allowed=False)    # None: it may
    refusal("::ffff:10.0.0.1", private_allowed=False)  # "10.0.0.1 is a private address"

Who may name a server that we ask could otherwise reach what only we can: this machine, the network behind it, the
addresses at which clouds hand out credentials.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Global unicast, the only part of IPv6 that is routed; the whole of 2001::/23 and 2002::/16 is for protocols.
_ROUTED = ipaddress.IPv6Network("2000::/3")
_NOT_ROUTED_6 = [ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
_NOT_ROUTED_4 = [ipaddress.IPv4Network(text) for text in ("192.88.99.0/24",)]  # relays of 6to4, given up
_WITHIN_6 = [ipaddress.IPv6Network(text) for text in ("::ffff:0:0/96", "64:ff9b::/96")]
"""Addresses whose last four bytes are one of IPv4: mapped, and translated by NAT64."""

_PRIVATE: list[Network] = [
    *(ipaddress.IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8")),
    ipaddress.IPv4Network("100.64.0.0/10"),  # carriers, and VPNs such as Tailscale
    ipaddress.IPv6Network("fc00::/7"),
    ipaddress.IPv6Network("::1/128"),
]
"""A home's or a company's own, this machine among them. A setting may allow these, and no others."""


def refusal(text: str, *, private_allowed: bool) -> str | None:
    """Say why an address may not be asked, None where it may. Raises `ValueError` for what is no address.

    >>> refusal("169.254.169.254", private_allowed=True)
    '169.254.169.254 is no address of a public server'
    >>> refusal("127.0.0.1", private_allowed=False)
    '127.0.0.1 is a private address'
    >>> refusal("127.0.0.1", private_allowed=True) is None
    True
    """
    address = plain(text)
    if _is_within(address, _PRIVATE):
        return None if private_allowed else f"{address} is a private address"
    return None if _is_public(address) else f"{address} is no address of a public server"


def plain(text: str) -> Address:
    """Give the address that would really be asked: the one of IPv4 within one of IPv6, without a zone."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and _is_within(address, _WITHIN_6):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not _is_within(address, _NOT_ROUTED_4)
    return address in _ROUTED and not _is_within(address, _NOT_ROUTED_6)


def _is_within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
