"""Keys of upstream servers at rest: sealed with a key made from the server's secret, for one user and one endpoint.

Who reads the database or a backup of it learns no key without the secret, which is not in there. A sealed key that is
moved to another user, or whose endpoint is exchanged for one's own, no longer opens: nobody who can write rows can
have it sent to themselves. (AES-256-GCM; the key by HKDF-SHA256 from the secret; user and endpoint are authenticated.)
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.auth import load_or_create_secret
from gateway.settings import Settings

_FORM = b"\x01"  # of what follows; another way of sealing gets another byte
_NONCE_BYTES = 12
_PURPOSE = b"tidepool: keys of upstream servers"


class CannotOpen(Exception):
    """A sealed key that does not open with this secret, for this user and endpoint."""


class ApiKey:
    """A key that opens an upstream server. It is shown nowhere: only `reveal` gives it out, for the one header."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Give the key itself."""
        return self._text

    def without(self, text: str) -> str:
        """Give a text from elsewhere without the key, should it be in there."""
        return text.replace(self._text, "…")

    def __repr__(self) -> str:
        return "ApiKey(…)"


class Sealer:
    """Seals and opens keys with one secret."""

    def __init__(self, secret: str) -> None:
        derived = HKDF(SHA256(), length=32, salt=None, info=_PURPOSE).derive(secret.encode())
        self._cipher = AESGCM(derived)

    @classmethod
    def of(cls, settings: Settings) -> Sealer:
        """Give the sealer of these settings: by a secret of its own, else by the one that signs tokens.

        Where neither is set it is the one in the data directory, which is made if there is none.
        """
        return cls(settings.mirror_secret or settings.jwt_secret or load_or_create_secret(settings.data_dir))

    def seal(self, key: ApiKey, user: str, endpoint: str) -> bytes:
        """Give the key sealed for that user and endpoint."""
        nonce = os.urandom(_NONCE_BYTES)
        return _FORM + nonce + self._cipher.encrypt(nonce, key.reveal().encode(), _bound_to(user, endpoint))

    def open(self, sealed: bytes, user: str, endpoint: str) -> ApiKey:
        """Give the key. Raises `CannotOpen`."""
        nonce, text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if not sealed.startswith(_FORM):
                raise CannotOpen
            return ApiKey(self._cipher.decrypt(nonce, text, _bound_to(user, endpoint)).decode())
        except (InvalidTag, ValueError):
            raise CannotOpen from None


def _bound_to(user: str, endpoint: str) -> bytes:
    return f"{user}\0{endpoint}".encode()
