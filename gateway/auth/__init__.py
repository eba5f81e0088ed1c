"""Who is asking: tokens, where their keys come from, and what asks for them."""

from gateway.auth.asking import CrossSiteRequest, asking
from gateway.auth.jwks import JwksKeys
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
    "CrossSiteRequest",
    "Identity",
    "JwksKeys",
    "Keys",
    "KeysUnavailable",
    "SecretKey",
    "TokenVerifier",
    "Unauthenticated",
    "asking",
    "issue",
    "load_or_create_secret",
]
