"""Who is asking: tokens, where their keys come from, and the layer that asks for them."""

from gateway.auth.jwks import JwksKeys
from gateway.auth.middleware import Authenticate, CrossSiteRequest
from gateway.auth.secret import load_or_create_secret
from gateway.auth.tokens import (
    Identity,
    Keys,
    KeysUnavailable,
    SecretKey,
    TokenVerifier,
    Unauthenticated,
    issue,
)

__all__ = [
    "Authenticate",
    "CrossSiteRequest",
    "Identity",
    "JwksKeys",
    "Keys",
    "KeysUnavailable",
    "SecretKey",
    "TokenVerifier",
    "Unauthenticated",
    "issue",
    "load_or_create_secret",
]
