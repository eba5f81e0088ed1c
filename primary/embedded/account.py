"""The system user that Postgres runs as.

Postgres refuses to run as root. So does nobody else: an ordinary user's Postgres runs as that user; root's
runs as the owner of the data directory or, for a new one, as a user made for it. That user must be able to
pass through every folder above its data and its programs; root grants it exactly that, and to no one else,
by an access control list or, where there are none, by the folder's group. And it must be able to read its
programs, which are no secret.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import struct
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from primary.embedded.errors import EmbeddedPostgresError

# The name that other programs with the same wheel use: one account for all of them.
ACCOUNT_NAME = "pgserver"


@dataclass(frozen=True, slots=True)
class Account:
    """A system user. ``switch`` tells whether programs must be started as another user than ours."""

    name: str
    uid: int
    gid: int
    switch: bool

    @property
    def process(self) -> dict[str, Any]:
        """Give the arguments that make `subprocess` start a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}

    def own(self, path: Path) -> None:
        """Hand ``path`` and all beneath it to this user; nothing happens unless we are root."""
        if not self.switch:
            return
        os.chown(path, self.uid, self.gid, follow_symlinks=False)
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(Path(folder) / name, self.uid, self.gid, follow_symlinks=False)

    def let_through(self, path: Path) -> None:
        """Let this user pass through every folder above ``path``; nothing happens unless we are root.

        Folders that everybody may pass stay as they are. Elsewhere this user, alone, gains the right to pass
        (not to list or read). Raises `EmbeddedPostgresError` where that cannot be given to it alone.
        """
        if not self.switch:
            return
        for folder in reversed(path.resolve().parents):
            found = folder.stat()
            if found.st_mode & stat.S_IXOTH or (found.st_uid == self.uid and found.st_mode & stat.S_IXUSR):
                continue
            try:
                _grant_search(folder, self.uid)
            except (OSError, AttributeError) as error:  # no such lists on this file system, or on this system
                if found.st_mode & stat.S_IRWXG and found.st_gid != self.gid:
                    raise EmbeddedPostgresError(
                        f"Postgres runs as the user {self.name}, who may not pass through {folder}.",
                        hint=f"Run: chmod o+x {folder}  (or keep it elsewhere, or do not run as root)",
                    ) from error
                # The group has no rights here, so nobody loses or gains any but the new one.
                os.chown(folder, -1, self.gid)
                folder.chmod(stat.S_IMODE(found.st_mode) | stat.S_IXGRP)

    def let_read(self, programs: Path) -> None:
        """Let everybody who gets there read ``programs`` and all beneath; nothing happens unless we are root.

        They were installed for root alone where its umask is stricter than most.
        """
        if not self.switch or programs.stat().st_mode & stat.S_IROTH:
            return
        with suppress(OSError):  # not ours to change; then the programs say what they miss
            for path in (*programs.rglob("*"), programs):  # itself last: it is what is looked at
                if not path.is_symlink():
                    mode = stat.S_IMODE(path.stat().st_mode)
                    path.chmod(mode | (mode & (stat.S_IRUSR | stat.S_IXUSR)) >> 6)


def account_for(cluster: Path) -> Account:
    """Choose the user that runs the Postgres of the data directory ``cluster``, made if need be.

    Raises `EmbeddedPostgresError` where the directory belongs to another user, or no user can be made.
    """
    owner = cluster.stat().st_uid if cluster.exists() else None
    ours = os.geteuid()
    if ours != 0:
        if owner not in (None, ours):
            raise EmbeddedPostgresError(
                f"The data of the embedded Postgres in {cluster} belongs to the user {_name(owner)}.",
                hint=f"Run as that user, or hand it over: sudo chown -R {_name(ours)} {cluster.parent}",
            )
        return Account(_name(ours), ours, os.getegid(), switch=False)
    entry = _entry(owner) if owner else None
    if entry is None:
        entry = _made()
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=True)


def _entry(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _name(uid: int | None) -> str:
    entry = None if uid is None else _entry(uid)
    return entry.pw_name if entry else str(uid)


def _made() -> pwd.struct_passwd:
    """Find the user made for Postgres, or make it."""
    try:
        return pwd.getpwnam(ACCOUNT_NAME)
    except KeyError:
        pass
    # Debian, Fedora and the like have useradd; Alpine and BusyBox have adduser.
    commands = (
        ["useradd", "--system", "--shell", "/bin/sh", ACCOUNT_NAME],
        ["adduser", "-S", "-D", "-H", ACCOUNT_NAME],
    )
    said = "neither useradd nor adduser is installed"
    for command in commands:
        if shutil.which(command[0]) is None:
            continue
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode == 0:
            return pwd.getpwnam(ACCOUNT_NAME)
        said = done.stderr.strip()
    raise EmbeddedPostgresError(
        f"Postgres does not run as root, and the user {ACCOUNT_NAME} cannot be made: {said}",
        hint=f"Make a system user named {ACCOUNT_NAME}, or run tidepool as a user other than root.",
    )


# The kernel's form of an access control list (linux/posix_acl_xattr.h): a version, then entries sorted by
# tag.
_ACL = "system.posix_acl_access"
_USER_OBJ, _USER, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_SEARCH, _NOBODY = 0x1, 0xFFFFFFFF


def _grant_search(folder: Path, uid: int) -> None:
    """Add the right to search ``folder`` for the user ``uid`` to its access control list."""
    mode = folder.stat().st_mode
    try:
        raw = os.getxattr(folder, _ACL)
        found = [struct.unpack_from("<HHI", raw, at) for at in range(4, len(raw), 8)]
        entries = {(tag, who): rights for tag, rights, who in found}
    except OSError:  # none yet: the list that says what the mode bits say
        entries = {
            (_USER_OBJ, _NOBODY): mode >> 6 & 7,
            (_GROUP_OBJ, _NOBODY): mode >> 3 & 7,
            (_OTHER, _NOBODY): mode & 7,
        }
    group = entries[_GROUP_OBJ, _NOBODY]
    if entries.get((_USER, uid), 0) & entries.get((_MASK, _NOBODY), group) & _SEARCH:
        return
    entries[_USER, uid] = entries.get((_USER, uid), 0) | _SEARCH
    # The mask bounds every entry but the owner's and the others'.
    entries[_MASK, _NOBODY] = entries.get((_MASK, _NOBODY), group) | _SEARCH
    packed = b"".join(struct.pack("<HHI", tag, rights, who) for (tag, who), rights in sorted(entries.items()))
    os.setxattr(folder, _ACL, struct.pack("<I", 2) + packed)
