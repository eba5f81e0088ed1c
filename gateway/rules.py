"""What a setting's text may be: a rule reads it, and says what it may be when it cannot."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import InvalidKeyError

_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")

SECRET_BYTES_MIN = 32  # as long as the digest of HS256; RFC 7518 §3.2 asks for no less


class Rule(Protocol):
    """Reads the text of one setting."""

    secret: bool
    """Whether the text must never be shown back."""

    def read(self, text: str) -> object:
        """Give the value; raise `ValueError` when the text is none."""
        ...

    def __str__(self) -> str:
        """Say what the setting may be, to go on after "it may be"."""
        ...


@dataclass(frozen=True)
class Whole:
    """A whole number from ``least`` to ``most``."""

    least: int
    most: int
    secret: bool = False

    def read(self, text: str) -> int:
        """See `Rule`."""
        # int() would also take "1_000", " 7 " and the digits of other scripts.
        if not (text.isascii() and text.isdigit() and self.least <= int(text) <= self.most):
            raise ValueError(text)
        return int(text)

    def __str__(self) -> str:
        return f"a whole number from {self.least} to {self.most}"


@dataclass(frozen=True)
class Duration:
    """A number of seconds from ``least`` to ``most``, a fraction or whole."""

    least: float
    most: float
    secret: bool = False

    def read(self, text: str) -> float:
        """See `Rule`."""
        if not _DECIMAL.fullmatch(text):  # float() would also take "1_000", " 7 " and the digits of other scripts
            raise ValueError(text)
        value = float(text)
        if not self.least <= value <= self.most:
            raise ValueError(text)
        return value

    def __str__(self) -> str:
        return f"a number of seconds from {self.least:g} to {self.most:g}"


@dataclass(frozen=True)
class Choice:
    """One of a few words, in any case."""

    words: tuple[str, ...]
    secret: bool = False

    def read(self, text: str) -> str:
        """See `Rule`."""
        if text.lower() not in self.words:
            raise ValueError(text)
        return text.lower()

    def __str__(self) -> str:
        return "one of " + ", ".join(self.words)


@dataclass(frozen=True)
class Switch:
    """True or false."""

    secret: bool = False

    def read(self, text: str) -> bool:
        """See `Rule`."""
        try:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        except KeyError:
            raise ValueError(text) from None

    def __str__(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Words:
    """Any text of one line."""

    secret: bool = False

    def read(self, text: str) -> str:
        """See `Rule`."""
        if not text.isprintable():
            raise ValueError(text)
        return text

    def __str__(self) -> str:
        return "any text of one line"


@dataclass(frozen=True)
class Folder:
    """A folder, which need not exist yet."""

    secret: bool = False

    def read(self, text: str) -> Path:
        """See `Rule`."""
        try:
            path = Path(text).expanduser()
            if "\0" in text or (path.exists() and not path.is_dir()):
                raise ValueError(text)
        except (RuntimeError, OSError):  # "~" of nobody here; longer than a name may be
            raise ValueError(text) from None
        return path

    def __str__(self) -> str:
        return "the path of a folder (it is made if there is none)"


@dataclass(frozen=True)
class Host:
    """An address to listen on, or a name of one."""

    secret: bool = False

    def read(self, text: str) -> str:
        """See `Rule`."""
        bare = text.removeprefix("[").removesuffix("]")
        if not bare or any(c in bare for c in "/ @") or (":" in bare and not _is_address(bare)):
            raise ValueError(text)
        return bare

    def __str__(self) -> str:
        return "an address or a host name without a port, such as 127.0.0.1, ::1 or 0.0.0.0"


@dataclass(frozen=True)
class Url:
    """A URL with a host, of one of ``schemes``."""

    schemes: tuple[str, ...]
    secret: bool = False

    def read(self, text: str) -> str:
        """See `Rule`."""
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError for a bad one
        if parts.scheme not in self.schemes or not parts.hostname:
            raise ValueError(text)
        return text

    def __str__(self) -> str:
        return "a URL that begins with " + " or ".join(f"{scheme}://" for scheme in self.schemes)


@dataclass(frozen=True)
class Database:
    """The URL of a Postgres, as libpq reads it: it may name several hosts, and none."""

    secret: bool = True

    def read(self, text: str) -> str:
        """See `Rule`."""
        from psycopg import Error  # noqa: PLC0415  # many commands and most servers for trial have no such URL
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

        if not text.startswith(("postgresql://", "postgres://")):
            raise ValueError
        try:
            ports = str(conninfo_to_dict(text).get("port") or "").split(",")
        except (Error, UnicodeError):  # whose message can show a part of the password
            raise ValueError from None
        if not all(port == "" or (port.isdecimal() and 0 < int(port) < 1 << 16) for port in ports):
            raise ValueError  # which libpq finds when it connects: a password with a slash ends in it, as a port
        return text

    def __str__(self) -> str:
        return (
            "a URL such as postgresql://user:password@host:5432/database, "
            "in which a character that means something else is percent-encoded (/ is %2F, @ is %40, % is %25)"
        )


@dataclass(frozen=True)
class SigningSecret:
    """The secret of HS256."""

    secret: bool = True

    def read(self, text: str) -> str:
        """See `Rule`."""
        if len(text.encode()) < SECRET_BYTES_MIN:
            raise ValueError
        try:
            # A public key given as the secret would let whoever reads that key sign tokens.
            HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(text)
        except InvalidKeyError:
            raise ValueError from None
        return text

    def __str__(self) -> str:
        return f"a random text of at least {SECRET_BYTES_MIN} bytes that is no PEM, SSH or JWK key"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on ``host``."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
