"""Tokens: who a JSON Web Token says is asking, believed only when its signature and its claims hold.

    verifier = TokenVerifier(SecretKey(secret))
    identity = verifier.seen(token) or await verifier.verify(token)

Where the keys come from decides which algorithms count (`Keys.algorithms`); a token's header has no say.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jwt
from jwt.exceptions import InvalidSubjectError
from jwt.types import Options
from jwt.utils import base64url_encode

from gateway.auth.cache import TokenCache
from replica.location import USER_ID_MAX_CHARS

TOKEN_LENGTH_MAX = 8_192  # what a proxy lets through as one header; more is an attempt to make us work
FOREVER_S = 1 << 53  # past it are only NaN, the infinities and numbers that no clock reaches
NOT_BEFORE_LEEWAY_S = 60  # an issuer whose clock is ahead hands out tokens that begin in a moment
ADMIN = "admin"


class Unauthenticated(Exception):
    """The request does not show who is asking. ``code`` is stable, the text is for people."""

    def __init__(self, reason: str, *, code: str = "token_invalid") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class KeysUnavailable(Exception):
    """The keys that tokens are signed with cannot be fetched, and none are known."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is asking: ``user`` owns what the request may touch; ``expires_at`` is in seconds since 1970."""

    user: str
    admin: bool
    expires_at: float


class Keys(Protocol):
    """Where the keys come from that tokens are signed with."""

    algorithms: Sequence[str]

    async def key_for(self, key_id: str | None) -> tuple[jwt.PyJWK, float]:
        """Give the key, and for how many seconds it may be trusted without asking again.

        Raises `Unauthenticated` when there is no such key, `KeysUnavailable` when that cannot be told.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class SecretKey:
    """One secret shared with whoever issues the tokens: HS256."""

    algorithms: Sequence[str] = ("HS256",)

    def __init__(self, secret: str) -> None:
        self._key = _secret_key(secret)

    async def key_for(self, key_id: str | None) -> tuple[jwt.PyJWK, float]:  # noqa: ARG002
        """See `Keys`."""
        return self._key, math.inf

    async def close(self) -> None:
        """See `Keys`."""


class TokenVerifier:
    """Tells who a token speaks for, and remembers the tokens that it has verified.

    ``audience`` and ``issuer`` are compared with the token's when given; a token made out to an audience is
    refused when there is none to compare it with. ``now`` gives the seconds since 1970.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        audience: str | None = None,
        issuer: str | None = None,
        cache_max: int = 10_000,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._audience = audience
        self._issuer = issuer
        self._now = now
        self._cache: TokenCache[Identity] = TokenCache(cache_max, now)
        self.seen: Callable[[str], Identity | None] = self._cache.get
        """Give the identity of a token verified before and still good, else None. Costs well under 1 µs."""

    async def verify(self, token: str) -> Identity:
        """Give the token's identity; raise `Unauthenticated` for a token that does not hold."""
        if (known := self.seen(token)) is not None:
            return known
        if len(token) > TOKEN_LENGTH_MAX:
            raise Unauthenticated(f"the token is longer than {TOKEN_LENGTH_MAX} characters")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in self._keys.algorithms:
                # Before any key is looked up: a token that cannot hold must not make us fetch keys.
                raise Unauthenticated("the token's algorithm is none of " + ", ".join(self._keys.algorithms))
            key, good_for_s = await self._keys.key_for(header.get("kid"))
            claims = jwt.decode(
                token,
                key,
                algorithms=self._keys.algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=NOT_BEFORE_LEEWAY_S,  # of nbf alone: the other times are not looked at there
                options=_OPTIONS,
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(_reason(error)) from error
        now = self._now()
        identity = identity_of(claims, now)
        self._cache.put(token, identity, min(identity.expires_at, now + good_for_s))
        return identity

    async def close(self) -> None:
        """Let go of what the keys hold."""
        await self._keys.close()


_OPTIONS: Options = {
    "require": ["exp", "sub"],
    "enforce_minimum_key_length": True,  # PyJWT only warns of a 1024-bit RSA key otherwise
    "verify_exp": False,  # done in `identity_of`, by the clock that the cache goes by
    "verify_iat": False,  # says nothing of validity, and an issuer's clock may be a second ahead
}


def identity_of(claims: dict[str, Any], now: float) -> Identity:
    """Read the identity out of claims whose signature holds; raise `Unauthenticated` when they name none."""
    user, expires_at = claims.get("sub"), claims.get("exp")
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float) or not expires_at < FOREVER_S:
        raise Unauthenticated("the token's exp is not a time")
    if expires_at <= now:
        raise Unauthenticated("the token has expired", code="token_expired")
    if not isinstance(user, str) or not 1 <= len(user) <= USER_ID_MAX_CHARS:
        raise Unauthenticated(f"the token's sub is not a text of 1 to {USER_ID_MAX_CHARS} characters")
    if "\0" in user or any("\ud800" <= c <= "\udfff" for c in user):
        raise Unauthenticated("the token's sub holds a character that cannot be stored")
    return Identity(user, claims.get("role") == ADMIN, float(expires_at))


def issue(
    secret: str,
    user: str,
    *,
    admin: bool = False,
    ttl_s: float,
    audience: str | None = None,
    issuer: str | None = None,
    now: float | None = None,
) -> str:
    """Sign a token that lets its holder be ``user`` for ``ttl_s`` seconds; `ValueError` for a bad user id."""
    issued_at = time.time() if now is None else now
    claims: dict[str, Any] = {"sub": user, "iat": int(issued_at), "exp": math.ceil(issued_at + ttl_s)}
    if admin:
        claims["role"] = ADMIN
    claims |= {name: value for name, value in (("aud", audience), ("iss", issuer)) if value is not None}
    try:
        identity_of(claims, issued_at)
    except Unauthenticated as error:
        raise ValueError(error.reason.replace("the token's sub", "the user id")) from None
    return jwt.encode(claims, _secret_key(secret), algorithm="HS256")


def _secret_key(secret: str) -> jwt.PyJWK:
    # As a JWK the key is bound to its algorithm, whatever a token's header says.
    text = base64url_encode(secret.encode()).decode()
    return jwt.PyJWK({"kty": "oct", "k": text}, algorithm="HS256")


def _reason(error: jwt.PyJWTError) -> str:
    match error:
        case jwt.InvalidSignatureError():
            return "the token's signature does not hold"
        case jwt.MissingRequiredClaimError():
            return f"the token has no {error.claim}"
        case jwt.ImmatureSignatureError():
            return "the token is not valid yet"
        case jwt.InvalidAudienceError():
            return "the token is made out to another audience"
        case jwt.InvalidIssuerError():
            return "the token is from another issuer"
        case jwt.InvalidAlgorithmError():
            return "the token's algorithm is not its key's"
        case InvalidSubjectError():
            return f"the token's sub is not a text of 1 to {USER_ID_MAX_CHARS} characters"
    return "the token is not a signed JSON Web Token"
