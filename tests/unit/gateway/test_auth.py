"""I5: who is asking is known by a token that holds, and by nothing else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from litestar import Litestar, Router, delete, get
from litestar.testing import AsyncTestClient

from gateway.auth import Identity, JwksKeys, KeysUnavailable, SecretKey, TokenVerifier, Unauthenticated, asking
from gateway.auth import issue as issue_token
from gateway.auth.jwks import FETCH_PAUSE_S
from gateway.bodies import StrictRequest
from gateway.problems import answer

SECRET = "a-secret-of-at-least-thirty-two-bytes"
OTHER = "another-secret-of-at-least-32-bytes!!"
RSA_KEY = rsa.generate_private_key(65537, 2048)
WEAK_RSA_KEY = rsa.generate_private_key(65537, 1024)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


class Clock:
    """Goes on only when told to."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def verifier(secret: str = SECRET, **given: Any) -> TokenVerifier:
    return TokenVerifier(SecretKey(secret), **given)


def claims(**given: Any) -> dict[str, Any]:
    told = {"sub": "ada", "exp": int(time.time()) + 60, **given}
    return {name: value for name, value in told.items() if value is not None}


def signed(payload: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", **headers: Any) -> str:
    return jwt.encode(payload, key, algorithm=algorithm, headers=headers or None)


def unsigned(header: dict[str, Any], payload: dict[str, Any], signature: str = "") -> str:
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, payload))
    return ".".join([*parts, signature])


async def refusal(token: str, of: TokenVerifier | None = None) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        await (of or verifier()).verify(token)
    return caught.value


# ── Tokens by secret ─────────────────────────────────────────────────────────────────────────────────────────


async def test_an_issued_token_names_its_user():
    identity = await verifier().verify(issue_token(SECRET, "ada", ttl_s=60))
    assert (identity.user, identity.admin) == ("ada", False)
    assert 58 < identity.expires_at - time.time() <= 61
    assert (await verifier().verify(issue_token(SECRET, "root", admin=True, ttl_s=60))).admin


@pytest.mark.parametrize("role", ["Admin", True, ["admin"], "user", 1])
async def test_only_the_role_admin_makes_an_admin(role):
    assert not (await verifier().verify(signed(claims(role=role)))).admin


@pytest.mark.parametrize(
    "user", ["../../etc/passwd", "a/b", "%00", "😀" * 255, "' OR 1=1", "\u202eevil", " ", "\n", "\ufeff"]
)
async def test_a_user_id_is_any_text(user):
    assert (await verifier().verify(issue_token(SECRET, user, ttl_s=60))).user == user


async def test_an_expired_token_is_told_apart():
    error = await refusal(signed(claims(exp=int(time.time()) - 1)))
    assert error.code == "token_expired"


@pytest.mark.parametrize(
    "header", [{"alg": "none"}, {"alg": "None"}, {"alg": "NONE", "typ": "JWT"}, {}, {"alg": ["HS256"]}]
)
@pytest.mark.parametrize("signature", ["", "AAAA"])
async def test_an_unsigned_token_is_refused(header, signature):
    assert (await refusal(unsigned(header, claims(), signature))).code == "token_invalid"


async def test_a_token_with_another_key_is_refused():
    assert "signature" in (await refusal(signed(claims(), OTHER))).reason


async def test_a_token_whose_claims_were_changed_is_refused():
    head, _, signature = signed(claims()).split(".")
    body = unsigned({}, claims(sub="eve")).split(".")[1]
    await refusal(f"{head}.{body}.{signature}")


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
async def test_another_algorithm_with_the_right_secret_is_refused(algorithm):
    long = SECRET * 2
    token = signed(claims(), long, algorithm)
    assert "algorithm" in (await refusal(token, verifier(long))).reason


async def test_an_asymmetric_token_does_not_pass_where_a_secret_is_meant():
    await refusal(signed(claims(), RSA_KEY, "RS256"))
    await refusal(signed(claims(), EC_KEY, "ES256"))


@pytest.mark.parametrize(
    "given",
    [
        {"sub": None},
        {"exp": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": ["ada"]},
        {"sub": "x" * 256},
        {"sub": "😀" * 256},
        {"sub": "a\0b"},
        {"sub": "half \ud83d of a pair"},
        {"exp": "tomorrow"},
        {"exp": str(int(time.time()) + 60)},
        {"exp": True},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": 10**400},
        {"exp": [1]},
        {"nbf": int(time.time()) + 86_400},
        {"nbf": int(time.time()) + 3_600},
        {"nbf": "x"},
        {"aud": "another service"},
    ],
)
async def test_claims_that_do_not_hold_are_refused(given):
    payload = {name: value for name, value in claims(**given).items() if given.get(name, 0) is not None}
    token = unsigned({"alg": "HS256"}, payload)
    signing_input = token.rpartition(".")[0]
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        signing_input.encode(), SECRET.encode()
    )
    token = f"{signing_input}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    assert (await refusal(token)).code == "token_invalid"


async def test_a_token_of_an_issuer_whose_clock_is_a_little_ahead_is_believed_at_once():
    now = time.time()
    token = signed(claims(nbf=now + 5, iat=now + 3_600))
    assert (await TokenVerifier(SecretKey(SECRET)).verify(token)).user == "ada"


@pytest.mark.parametrize(
    "token", ["", ".", "..", "...", "a.b.c", "é", "x" * 8_193, "x" * 1_000_000, unsigned({"alg": "HS256"}, {})[:-9]]
)
async def test_what_is_no_token_is_refused(token):
    assert (await refusal(token)).code == "token_invalid"


async def test_a_far_too_long_token_is_refused_though_it_is_signed():
    assert "longer" in (await refusal(signed(claims(more="x" * 9_000)))).reason


async def test_a_header_that_names_critical_extensions_is_refused():
    await refusal(signed(claims(), crit=["exp"], exp=1))
    await refusal(unsigned({"alg": "HS256", "kid": 7}, claims(), "AAAA"))


async def test_audience_and_issuer_are_compared_when_they_are_set():
    both = verifier(audience="tidepool", issuer="https://issuer")
    good = claims(aud=["x", "tidepool"], iss="https://issuer")
    assert (await both.verify(signed(good))).user == "ada"
    for wrong in ({"aud": "x"}, {"iss": "x"}, {"aud": None}, {"iss": None}, {"iss": ["https://issuer"]}):
        payload = {name: value for name, value in {**good, **wrong}.items() if value is not None}
        with contextlib.suppress(TypeError):  # PyJWT itself does not sign an issuer that is no text
            await refusal(signed(payload), both)


async def test_a_token_lives_no_shorter_than_was_said():
    clock = Clock(1_000_000.9)  # and a token's times are whole seconds
    token = issue_token(SECRET, "ada", ttl_s=1, now=clock.now)
    clock.now += 0.99
    assert (await verifier(now=clock).verify(token)).user == "ada"


@pytest.mark.parametrize("user", ["", "x" * 256, "a\0b", "\ud800"])
def test_no_token_is_issued_for_what_is_no_user_id(user):
    with pytest.raises(ValueError, match="user id"):
        issue_token(SECRET, user, ttl_s=60)


# ── The tokens seen before ───────────────────────────────────────────────────────────────────────────────────


async def test_a_token_is_known_once_verified_and_until_it_expires():
    clock = Clock()
    subject = verifier(now=clock)
    token = issue_token(SECRET, "ada", ttl_s=60, now=clock.now)
    assert subject.seen(token) is None
    identity = await subject.verify(token)
    assert subject.seen(token) is identity
    clock.now += 59
    assert subject.seen(token) is identity
    clock.now += 1
    assert subject.seen(token) is None
    assert (await refusal(token, subject)).code == "token_expired"


async def test_the_tokens_remembered_are_bounded_and_those_in_use_stay():
    subject = verifier(cache_max=3)
    tokens = [issue_token(SECRET, str(n), ttl_s=60) for n in range(4)]
    for token in tokens[:3]:
        await subject.verify(token)
    subject.seen(tokens[0])
    await subject.verify(tokens[3])
    assert [subject.seen(token) is not None for token in tokens] == [True, False, True, True]


async def test_a_refused_token_is_not_remembered():
    subject = verifier()
    token = signed(claims(), OTHER)
    for _ in range(2):
        await refusal(token, subject)
        assert subject.seen(token) is None


# ── Keys from a URL ──────────────────────────────────────────────────────────────────────────────────────────


def jwk(key: Any, key_id: str | None, **given: Any) -> dict[str, Any]:
    kind = {rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}
    algorithm: Any = next((a for k, a in kind.items() if isinstance(key, k)), OKPAlgorithm)
    data: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    data.pop("key_ops", None)
    return {**data, **({"kid": key_id} if key_id else {}), **given}


class Issuer:
    """A little HTTP server that hands out a key set, or whatever it is told to."""

    def __init__(self) -> None:
        self.keys: list[Any] = [jwk(RSA_KEY, "r"), jwk(EC_KEY, "e"), jwk(ED_KEY, "o")]
        self.body: bytes | None = None
        self.status = "200 OK"
        self.asked = 0
        self.held = asyncio.Event()
        self.held.set()
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            await self.held.wait()
            body = self.body if self.body is not None else json.dumps({"keys": self.keys}).encode()
            head = f"HTTP/1.1 {self.status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    subject = Issuer()
    server = await asyncio.start_server(subject.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    subject.url = f"http://127.0.0.1:{port}/keys"
    yield subject
    subject.held.set()
    server.close()
    await server.wait_closed()


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
async def keys(issuer: Issuer, clock: Clock) -> AsyncIterator[JwksKeys]:
    subject = JwksKeys(issuer.url, cache_s=300, clock=clock)
    yield subject
    await subject.close()


@pytest.fixture
def by_url(keys: JwksKeys) -> TokenVerifier:
    return TokenVerifier(keys, cache_max=0)


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(RSA_KEY, "RS256", "r"), (EC_KEY, "ES256", "e"), (ED_KEY, "EdDSA", "o")]
)
async def test_each_kind_of_public_key_verifies_its_algorithm(by_url, issuer, key, algorithm, kid):
    assert (await by_url.verify(signed(claims(), key, algorithm, kid=kid))).user == "ada"
    assert (await by_url.verify(signed(claims(sub="bob"), key, algorithm, kid=kid))).user == "bob"
    assert issuer.asked == 1


async def test_a_public_key_is_no_secret(by_url):
    """Algorithm confusion: what everybody can read must not sign."""
    pem = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem, pem.strip(), json.dumps(jwk(RSA_KEY, "r")).encode()):
        head = unsigned({"alg": "HS256", "kid": "r"}, claims()).rpartition(".")[0]
        mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(head.encode(), secret)
        token = f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
        assert "algorithm" in (await refusal(token, by_url)).reason


async def test_a_token_cannot_choose_an_algorithm_that_is_not_its_keys(by_url):
    await refusal(signed(claims(), RSA_KEY, "RS256", kid="e"), by_url)
    await refusal(signed(claims(), EC_KEY, "ES256", kid="r"), by_url)
    await refusal(signed(claims(), RSA_KEY, "RS512", kid="r"), by_url)
    await refusal(signed(claims(), RSA_KEY, "PS256", kid="r"), by_url)
    await refusal(unsigned({"alg": "none", "kid": "r"}, claims()), by_url)


async def test_a_token_that_cannot_hold_makes_nobody_fetch_keys(by_url, issuer):
    await refusal(signed(claims()), by_url)
    await refusal("x" * 9_000, by_url)
    await refusal("a.b.c", by_url)
    assert issuer.asked == 0


async def test_keys_of_other_kinds_are_passed_over(by_url, issuer):
    secret = base64.urlsafe_b64encode(SECRET.encode()).rstrip(b"=").decode()
    issuer.keys = [
        {"kty": "oct", "k": secret, "kid": "s"},
        jwk(RSA_KEY, "enc", use="enc"),
        jwk(RSA_KEY, "ops", key_ops=["encrypt"]),
        jwk(RSA_KEY, "512", alg="RS512"),
        {"kty": "RSA", "kid": "broken"},
        {"kty": "EC", "crv": "P-256", "x": "!", "y": 7, "kid": "broken too"},
        {"kty": "RSA", "n": "", "e": "AQAB", "kid": "empty"},
        "no key",
        None,
        jwk(WEAK_RSA_KEY, "weak"),
        jwk(EC_KEY, "good"),
    ]
    assert (await by_url.verify(signed(claims(), EC_KEY, "ES256", kid="good"))).user == "ada"
    for kid in ("enc", "ops", "512"):
        await refusal(signed(claims(), RSA_KEY, "RS256", kid=kid), by_url)
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        weak = signed(claims(), WEAK_RSA_KEY, "RS256", kid="weak")
    await refusal(weak, by_url)


async def test_without_a_key_id_a_lone_key_is_meant(by_url, issuer, clock):
    token = signed(claims(), EC_KEY, "ES256")
    await refusal(token, by_url)
    issuer.keys = [jwk(EC_KEY, None)]
    clock.now += 301
    assert (await by_url.verify(token)).user == "ada"


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)


async def test_a_new_key_is_fetched_when_a_token_names_it(by_url, issuer, clock):
    await by_url.verify(signed(claims(), RSA_KEY, "RS256", kid="r"))
    new = ed25519.Ed25519PrivateKey.generate()
    issuer.keys.append(jwk(new, "new"))
    clock.now += FETCH_PAUSE_S
    assert (await by_url.verify(signed(claims(), new, "EdDSA", kid="new"))).user == "ada"
    assert issuer.asked == 2


async def test_unknown_keys_cannot_make_the_server_fetch_at_will(by_url, issuer, clock):
    await by_url.verify(signed(claims(), RSA_KEY, "RS256", kid="r"))
    for n in range(20):
        await refusal(signed(claims(), RSA_KEY, "RS256", kid=f"made up {n}"), by_url)
    assert issuer.asked == 1
    clock.now += FETCH_PAUSE_S
    for n in range(20):
        await refusal(signed(claims(), RSA_KEY, "RS256", kid=f"made up {n}"), by_url)
    assert issuer.asked == 2


async def test_all_who_need_the_keys_share_one_fetch(by_url, issuer):
    issuer.held.clear()
    tokens = [signed(claims(sub=str(n)), RSA_KEY, "RS256", kid="r") for n in range(20)]
    waiting = asyncio.gather(*(by_url.verify(token) for token in tokens))
    await until(lambda: issuer.asked == 1)
    issuer.held.set()
    assert [identity.user for identity in await waiting] == [str(n) for n in range(20)]
    assert issuer.asked == 1


async def test_who_leaves_while_the_keys_are_fetched_takes_them_from_nobody(by_url, issuer):
    issuer.held.clear()
    leaving, staying = (
        asyncio.create_task(by_url.verify(signed(claims(sub=user), RSA_KEY, "RS256", kid="r"))) for user in "ab"
    )
    await until(lambda: issuer.asked == 1)
    leaving.cancel()
    await asyncio.wait([leaving])
    issuer.held.set()
    assert (await staying).user == "b"
    assert issuer.asked == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("500 Internal Server Error", None),
        ("500 Internal Server Error", json.dumps({"keys": [jwk(EC_KEY, "e")]}).encode()),
        ("302 Found", None),
        ("200 OK", b"no json"),
        ("200 OK", b"[]"),
        ("200 OK", b'{"keys": []}'),
        ("200 OK", b'{"keys": {"kty": "RSA"}}'),
        ("200 OK", b"[" * 100_000),
        ("200 OK", b" " * (1 << 20) + json.dumps({"keys": [jwk(EC_KEY, "e")]}).encode()),
    ],
)
async def test_the_keys_known_stay_in_use_while_the_issuer_is_out_of_order(by_url, issuer, clock, status, body):
    token = signed(claims(), RSA_KEY, "RS256", kid="r")
    await by_url.verify(token)
    issuer.status, issuer.body = status, body
    clock.now += 10_000
    assert (await by_url.verify(token)).user == "ada"
    await until(lambda: issuer.asked == 2)
    assert (await by_url.verify(token)).user == "ada"


async def test_a_withdrawn_key_ends_when_the_set_is_fetched_again(by_url, issuer, clock):
    token = signed(claims(), RSA_KEY, "RS256", kid="r")
    await by_url.verify(token)
    issuer.keys = [jwk(EC_KEY, "e")]
    clock.now += 301
    await by_url.verify(token)  # the last time, while the new set is on its way
    await until(lambda: issuer.asked == 2)
    await refusal(token, by_url)


async def test_a_token_is_remembered_no_longer_than_its_key_is_trusted(keys):
    now = Clock()
    subject = TokenVerifier(keys, now=now)
    token = signed(claims(exp=int(now()) + 10_000), RSA_KEY, "RS256", kid="r")
    await subject.verify(token)
    now.now += 299
    assert subject.seen(token)
    now.now += 1
    assert subject.seen(token) is None


async def test_without_any_keys_nobody_is_called_unauthenticated(unused_url):
    keys = JwksKeys(unused_url, cache_s=300)
    with pytest.raises(KeysUnavailable):
        await TokenVerifier(keys).verify(signed(claims(), RSA_KEY, "RS256", kid="r"))
    await keys.close()


@pytest.mark.parametrize("body", [b"no json", b"[" * 100_000])
async def test_a_first_answer_that_is_no_key_set_is_not_asked_for_again_at_will(by_url, issuer, body):
    issuer.body = body
    for _ in range(2):
        with pytest.raises(KeysUnavailable):
            await by_url.verify(signed(claims(), RSA_KEY, "RS256", kid="r"))
    assert issuer.asked == 1


async def test_keys_that_come_ever_so_slowly_are_not_waited_for(issuer, monkeypatch):
    """Each part may come in time, and the whole never."""
    monkeypatch.setattr("gateway.auth.jwks.FETCH_TIMEOUT_S", 0.05)
    issuer.held.clear()
    async with httpx.AsyncClient(timeout=None) as client:
        keys = JwksKeys(issuer.url, cache_s=300, client=client)
        async with asyncio.timeout(5):
            with pytest.raises(KeysUnavailable):
                await TokenVerifier(keys).verify(signed(claims(), RSA_KEY, "RS256", kid="r"))


@pytest.fixture
async def unused_url() -> str:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return f"http://127.0.0.1:{port}/keys"


# ── Over HTTP ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def client() -> AsyncIterator[AsyncTestClient[Litestar]]:
    @get("/who")
    async def who(request: StrictRequest) -> dict[str, Any]:
        identity: Identity = request.user
        return {"user": identity.user}

    @delete("/who", status_code=200)
    async def forget(request: StrictRequest) -> dict[str, Any]:
        return {"user": request.user.user}

    @get("/open")
    async def public() -> str:
        return "open"

    api = Router("/api", route_handlers=[who, forget], middleware=[asking(verifier())])
    app = Litestar(
        [api, public],
        exception_handlers={Exception: answer},
        request_class=StrictRequest,
        openapi_config=None,
        logging_config=None,
    )
    async with AsyncTestClient(app, base_url="http://tidepool.test", raise_server_exceptions=False) as subject:
        yield subject


TOKEN = issue_token(SECRET, "ada", ttl_s=3_600)
COOKIE = {"Cookie": f"theme=dark; tidepool_token={TOKEN}"}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_bearer_token_is_believed(client, scheme):
    answered = await client.get("/api/who", headers={"Authorization": f"{scheme} {TOKEN}"})
    assert answered.json() == {"user": "ada"}


@pytest.mark.parametrize("path", ["/api/who", "/api//who", "//api/who/", "/api/who/"])
async def test_no_spelling_of_a_path_goes_round_the_question(client, path):
    assert (await client.get(f"http://tidepool.test{path}")).status_code == 401


async def test_outside_the_api_nobody_is_asked(client):
    assert (await client.get("/open")).text == "open"


@pytest.mark.parametrize(
    ("headers", "code", "challenge"),
    [
        ({}, "token_missing", "Bearer"),
        ({"Authorization": "Basic YTpi"}, "token_missing", "Bearer"),
        ({"Authorization": "Bearer"}, "token_missing", "Bearer"),
        ({"Cookie": "tidepool_tokenx=1; other=2"}, "token_missing", "Bearer"),
        ({"Authorization": "Bearer x.y.z"}, "token_invalid", 'Bearer error="invalid_token"'),
        ({"Authorization": "Bearer x.y.z", **COOKIE}, "token_invalid", 'Bearer error="invalid_token"'),
        ({"Cookie": "tidepool_token=x.y.z"}, "token_invalid", 'Bearer error="invalid_token"'),
    ],
)
async def test_who_cannot_show_a_token_gets_401(client, headers, code, challenge):
    answered = await client.get("/api/who", headers=headers)
    assert answered.status_code == 401
    assert answered.json()["code"] == code
    assert answered.headers["www-authenticate"] == challenge
    assert answered.headers["content-type"] == "application/problem+json"


async def test_a_cookie_is_enough_to_read(client):
    assert (await client.get("/api/who", headers=COOKIE)).json() == {"user": "ada"}
    quoted = {"Cookie": f'tidepool_token="{TOKEN}"'}
    assert (await client.get("/api/who", headers=quoted)).json() == {"user": "ada"}
    elsewhere = {**COOKIE, "Sec-Fetch-Site": "cross-site"}
    assert (await client.get("/api/who", headers=elsewhere)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
        {"Origin": "http://tidepool.test"},
        {"Origin": "https://TIDEPOOL.test"},
    ],
)
async def test_a_page_of_this_server_may_change_things_by_cookie(client, headers):
    assert (await client.delete("/api/who", headers={**COOKIE, **headers})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://tidepool.test"},
        {"Origin": "http://evil.test"},
        {"Origin": "http://tidepool.test:8080"},
        {"Origin": "http://tidepool.test.evil.test"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Host": ""},
        {"Host": "", "Origin": "null"},
        {"Referer": "http://tidepool.test/"},
    ],
)
async def test_a_page_of_another_site_may_not(client, headers):
    answered = await client.delete("/api/who", headers={**COOKIE, **headers})
    assert answered.status_code == 403
    assert answered.json()["code"] == "csrf"


async def test_a_bearer_token_needs_no_origin(client):
    headers = {"Authorization": f"Bearer {TOKEN}", "Sec-Fetch-Site": "cross-site"}
    assert (await client.delete("/api/who", headers=headers)).status_code == 200
