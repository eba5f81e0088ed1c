"""The seal: how a replica's files looked after the last write that was ours.

SQLite does not notice when a byte of a page is changed under it, when the file is exchanged for another, or when an
older copy is put back: it would answer with wrong rows. So after each write the store notes each file's identity,
size and times of change, and compares before it believes what it reads. Any write that was not ours, even of the same
length and with the time set back, moves the time of the inode's change (ctime), which no program can set.
What cannot be seen so is decay below the file system; `verify` compares with the primary itself.
"""

from __future__ import annotations

from pathlib import Path

from replica.location import Location

Print = tuple[tuple[int, ...], tuple[int, ...]]
"""How the database and its write-ahead log look: inode, size, and times of change in ns; empty where there is none."""


def look(location: Location) -> Print:
    """Take the print of a replica's files as they are now."""
    return _stat(location.database), _stat(location.wal)


def _stat(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    if found.st_size == 0 and path.suffix != ".db":
        return ()  # an empty log says as much as none
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def write(location: Location, seen: Print) -> None:
    """Keep a print beside the files. One that is torn by a crash matches nothing, and so means doubt."""
    location.seal.write_text(repr(seen))


def holds(location: Location, seen: Print) -> bool:
    """Tell whether the kept print is this one."""
    try:
        return location.seal.read_text() == repr(seen)
    except (OSError, UnicodeDecodeError):
        return False
