"""The public keys behind a JWKS URL, fetched when they are needed and kept while they are."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import jwt
import structlog

from gateway.auth.tokens import KeysUnavailable, Unauthenticated

FETCH_TIMEOUT_S = 5.0
FETCH_PAUSE_S = 10.0  # between two fetches, however many tokens name unknown keys
FIRST_FETCH_PAUSE_S = 1.0  # while no key is known at all, and every request has to be turned away
BODY_MAX_BYTES = 1 << 20  # a key set has a few kilobytes

_log = structlog.stdlib.get_logger("tidepool.auth")


class JwksKeys:
    """Public keys from a URL: RS256, ES256 and EdDSA, each only with a key made for it.

    A set is fetched at the first token, again when it is older than ``cache_s``, and when a token names a key
    that is not in it (which is how a new key announces itself), but not more often than `FETCH_PAUSE_S`.
    All who wait share one fetch. While the URL does not answer, the keys of the last good answer stay in use.
    """

    algorithms: Sequence[str] = ("RS256", "ES256", "EdDSA")

    def __init__(
        self,
        url: str,
        *,
        cache_s: float,
        client: httpx.AsyncClient | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._cache_s = cache_s
        self._client = client or httpx.AsyncClient(timeout=FETCH_TIMEOUT_S)
        self._clock = clock
        self._keys: tuple[jwt.PyJWK, ...] = ()
        self._fresh_until = float("-inf")
        self._no_fetch_before = float("-inf")
        self._fetch: asyncio.Task[None] | None = None

    async def key_for(self, key_id: str | None) -> tuple[jwt.PyJWK, float]:
        """See `Keys`."""
        key = self._find(key_id)
        if key is None:
            # Nobody can be let in without a key that is not here yet, so this waits.
            if (fetch := self._fetching()) is not None:
                await asyncio.shield(fetch)
            key = self._find(key_id)
        elif self._clock() >= self._fresh_until:
            # The key has served and the set is due: it serves on while the new set is fetched.
            self._fetching()
        if key is None and not self._keys:
            raise KeysUnavailable("no key set could be fetched")
        if key is None:
            raise Unauthenticated("the token is signed with an unknown key")
        return key, max(self._fresh_until - self._clock(), FETCH_PAUSE_S)

    async def close(self) -> None:
        """See `Keys`."""
        if self._fetch is not None:
            self._fetch.cancel()
        await self._client.aclose()

    def _find(self, key_id: str | None) -> jwt.PyJWK | None:
        if key_id is None:  # then only a set of one key says which
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.key_id == key_id), None)

    def _fetching(self) -> asyncio.Task[None] | None:
        """Give the fetch that is under way, or begin one; None when it is too early for another."""
        if self._fetch is not None and not self._fetch.done():
            return self._fetch
        if self._clock() < self._no_fetch_before:
            return None
        self._fetch = asyncio.create_task(self._refresh(), name="jwks-fetch")
        return self._fetch

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                keys = usable_keys(await self._download(), self.algorithms)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, RecursionError) as error:
            _log.warning("jwks_fetch_failed", error=str(error) or type(error).__name__, keys_kept=len(self._keys))
        else:
            self._keys = keys
            self._fresh_until = self._clock() + self._cache_s
            _log.info("jwks_fetched", keys=len(keys))
        self._no_fetch_before = self._clock() + (FETCH_PAUSE_S if self._keys else FIRST_FETCH_PAUSE_S)

    async def _download(self) -> Any:
        async with self._client.stream("GET", self._url, headers={"accept": "application/json"}) as answer:
            answer.raise_for_status()
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > BODY_MAX_BYTES:
                    raise ValueError(f"the key set is larger than {BODY_MAX_BYTES} bytes")
        return json.loads(bytes(body))


def usable_keys(key_set: Any, algorithms: Sequence[str]) -> tuple[jwt.PyJWK, ...]:
    """Pick the keys of a JWK set that verify one of ``algorithms``; pass over all others, broken ones too.

    Raises `ValueError` when that leaves none: an answer without keys must not take the place of keys.
    """
    listed = key_set.get("keys") if isinstance(key_set, dict) else None
    keys = tuple(key for data in (listed if isinstance(listed, list) else ()) if (key := _usable(data, algorithms)))
    if not keys:
        raise ValueError("the answer is not a JWK set with a usable key")
    return keys


def _usable(data: Any, algorithms: Sequence[str]) -> jwt.PyJWK | None:
    if not isinstance(data, dict) or data.get("use", "sig") != "sig" or "verify" not in data.get("key_ops", ["verify"]):
        return None
    try:
        key = jwt.PyJWK(data)
    except (jwt.PyJWTError, ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        return None  # what PyJWT lets through of a malformed key is not only its own kind of error
    return key if key.algorithm_name in algorithms else None
