"""Which servers may be asked on behalf of a user: by the address that is really connected to."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.outbound.addresses import refusal
from gateway.outbound.endpoint import EndpointRefused, NotFound, check_endpoint, resolve
from gateway.outbound.transport import CheckedTransport
from tests.support.stash import Stash, stash

PUBLIC = ["93.184.215.14", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "2606:4700::1111", "2a00::1"]
PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1"),
    *("::1", "fc00::1", "fd12:3456::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "::ffff:7f00:1"),
]
NEVER = [
    *("0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "224.0.0.1", "239.255.255.255", "255.255.255.255"),
    *("240.0.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.9", "192.88.99.1"),
    *("::", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "::127.0.0.1", "::ffff:169.254.169.254"),
    *("2001:db8::1", "2001::7f00:1", "2002:7f00:1::", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "5f00::1"),
    "::ffff:0:127.0.0.1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_asked(address: str) -> None:
    assert refusal(address, private_allowed=False) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_asked_only_where_the_setting_allows_it(address: str) -> None:
    assert refusal(address, private_allowed=False) is not None
    assert refusal(address, private_allowed=True) is None


@pytest.mark.parametrize("address", NEVER)
def test_addresses_of_no_server_are_never_asked(address: str) -> None:
    assert refusal(address, private_allowed=False) is not None
    assert refusal(address, private_allowed=True) is not None


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://stash.example/graphql",
            "http://stash.example:9999/graphql",
            "https://93.184.215.14",
            "HTTPS://a.b/",
        ),
        *("https://[2606:4700::1111]:443/graphql", "http://localhost:9999/graphql", "https://xn--bcher-kva.example/"),
        "https://a_b.example./x",
    ],
)
def test_an_endpoint_that_looks_like_one_is_taken(url: str) -> None:
    assert check_endpoint(url, private_allowed=False) == url


@pytest.mark.parametrize(
    "url",
    [
        *("", "stash.example", "//stash.example/", "ftp://stash.example/", "file:///etc/passwd", "gopher://x/"),
        *("https://", "https:///graphql", "http:stash.example", "https://stash.example:0/", "https://x:99999/"),
        *("https://user@stash.example/", "https://user:pw@stash.example/", "https://stash.example@127.0.0.1/"),
        *("https://stash.example/?apikey=1", "https://stash.example/#x", "https://stash.example/graphql?"),
        *("http://127.0.0.1/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]:80/"),
        *("http://169.254.169.254/latest/meta-data/", "http://0.0.0.0/", "http://[::]/", "http://[fe80::1%25eth0]/"),
        *("http://2130706433/", "http://017700000001/", "http://0x7f000001/", "http://0x7f.1/", "http://127.1/"),
        *("http://0177.0.0.1/", "http://127.0.0.0x1/", "http://1/", "http://127.0.0.1./", "http://a.b.1/"),
        *("http://１２７.0.0.1/", "http://bücher.example/", "http://stash.example\\@127.0.0.1/", "http://a b/"),
        *(
            "http://stash.example\n/",
            "http://\t127.0.0.1/",
            "http://-x/",
            "http://a..b/",
            "http://[v1.x]/",
            "http://[93.184.215.14]/",
        ),
        *("http://[::1/", "http://::1/", "http://a/" + "x" * 2_048),
    ],
)
@pytest.mark.parametrize("private_allowed", [False, True])
def test_an_endpoint_that_could_be_read_in_two_ways_is_refused(url: str, private_allowed: bool) -> None:
    plainly_private = url.startswith(("http://127.0.0.1/", "http://[::1]/", "http://[::ffff:127", "http://[::ffff:7f"))
    if private_allowed and plainly_private:
        check_endpoint(url, private_allowed=True)
    else:
        with pytest.raises(EndpointRefused):
            check_endpoint(url, private_allowed=private_allowed)


# ── At the moment of connecting ─────────────────────────────────────────────────────────────────────────────────

Names = dict[str, list[str] | Callable[[], list[str]]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """What names lead to; others are not found."""
    known: Names = {}

    async def getaddrinfo(_loop: Any, host: Any, port: Any, **_: Any) -> list[Any]:
        given = known.get(host)
        if given is None:
            try:
                socket.inet_pton(socket.AF_INET, host)
            except OSError:
                raise socket.gaierror from None
            given = [host]
        addresses = given() if callable(given) else given
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return known


@pytest.fixture
async def server() -> AsyncIterator[Stash]:
    async with stash() as running:
        yield running


async def ask(transport: CheckedTransport, url: str) -> int:
    request = httpx.Request("POST", url, json={"query": "{ imageIncrementO }", "variables": {"id": "1"}})
    try:
        answer = await transport.handle_async_request(request)
        await answer.aread()
        await answer.aclose()
        return answer.status_code
    finally:
        await transport.aclose()


async def test_a_name_that_leads_inside_is_refused_whatever_else_it_leads_to(names: Names) -> None:
    names["inside.example"] = ["10.0.0.7"]
    names["both.example"] = ["93.184.215.14", "169.254.169.254"]
    for host in ("inside.example", "both.example"):
        with pytest.raises(EndpointRefused):
            await resolve(host, 443, private_allowed=False)
    names["public.example"] = ["93.184.215.14", "93.184.215.14", "8.8.8.8"]
    assert await resolve("public.example", 443, private_allowed=False) == ["93.184.215.14", "8.8.8.8"]
    names["empty.example"] = []
    for host in ("nowhere.example", "empty.example"):
        with pytest.raises(NotFound):
            await resolve(host, 443, private_allowed=False)


async def test_a_name_that_is_answered_otherwise_a_moment_later_reaches_nothing(names: Names, server: Stash) -> None:
    answers = iter([["93.184.215.14"], ["127.0.0.1"]])
    names["rebind.example"] = lambda: next(answers)
    port = server.url.split(":")[2].split("/")[0]
    await resolve("rebind.example", int(port), private_allowed=False)  # as it is when the settings are saved
    with pytest.raises(EndpointRefused, match=r"127\.0\.0\.1 is a private address"):
        await ask(CheckedTransport(private_allowed=False, connections_max=1), f"http://rebind.example:{port}/graphql")
    assert server.requests == []


async def test_it_is_the_checked_address_that_is_connected_to_under_the_servers_own_name(
    names: Names, server: Stash
) -> None:
    port = server.url.split(":")[2].split("/")[0]
    asked = []

    def once() -> list[str]:
        asked.append(1)
        return ["127.0.0.9", "127.0.0.1"]  # nobody listens at the first

    names["stash.example"] = once
    transport = CheckedTransport(private_allowed=True, connections_max=1)
    assert await ask(transport, f"http://stash.example:{port}/graphql") == 401
    assert (len(asked), server.requests[0]["headers"]["host"]) == (1, f"stash.example:{port}")


async def test_a_servers_certificate_must_be_of_its_name(names: Names, tmp_path: Path) -> None:
    serving, trusting = certificates(tmp_path, "stash.example")
    names["stash.example"] = names["another.example"] = ["127.0.0.1"]
    async with stash(ssl_context=serving) as server:
        port = server.url.split(":")[2].split("/")[0]
        for host in ("stash.example", "another.example"):
            transport = CheckedTransport(private_allowed=True, connections_max=1, ssl_context=trusting)
            if host == "stash.example":
                assert await ask(transport, f"https://{host}:{port}/graphql") == 401
            else:
                with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
                    await ask(transport, f"https://{host}:{port}/graphql")
        assert len(server.requests) == 1


def certificates(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a certificate for a name; give the context that serves with it, and one that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    text = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(text + secret)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(pem)
    return serving, ssl.create_default_context(cadata=text.decode())
