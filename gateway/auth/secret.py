"""The secret that a server makes for itself when nobody gave it one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from gateway.rules import SigningSecret
from gateway.settings import SettingsError

NAME = "jwt-secret"


def load_or_create_secret(data_dir: Path) -> str:
    """Give the secret that is kept in the data directory, made at the first call; only its owner may read it.

    Two processes that make one at once end with the same. Raises `SettingsError` when the file holds none, or cannot
    be read or made.
    """
    path = data_dir / NAME
    try:
        if not path.exists():
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            _create(path)
        path.chmod(0o600)
        return SigningSecret().read(path.read_text().strip())
    except OSError as error:
        raise SettingsError([f"{path} cannot be read, or made where there is none: {error.strerror}"]) from None
    except ValueError:  # too short, a public key, no text
        told = f"{path} holds no secret: delete it to have a new one made (old tokens end with it)"
        raise SettingsError([told]) from None


def _create(path: Path) -> None:
    """Make the file whole and durable, or not at all; leave one that is there already."""
    draft = path.with_name(f"{NAME}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
