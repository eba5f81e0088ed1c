"""The seal: how a replica's files looked after the last write that was ours.

SQLite does not notice when a byte of a page is changed under it, when the file is exchanged for another, or when an
older copy is put back: it would answer with wrong rows. So after each write the store notes each file's identity,
size and times of change, and compares before it believes what it reads. Any write that was not ours, even of the same
length and with the time set back, moves the time of the inode's change (ctime), which no program can set. Of the log
that time says nothing: SQLite itself moves it, where it is run by root, each time that someone opens the file to read.
The log's frames carry checksums.
What cannot be seen so is decay below the file system; `verify` compares with the primary itself.
"""

from __future__ import annotations

import errno
import os
import stat

from replica.location import Location, remove

Print = tuple[tuple[int, ...], tuple[int, ...]]
"""How the database and its write-ahead log look: inode, size, and times of change in ns; empty where there is none."""

_WRITING = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
_BYTES = 256  # always as many, written in place: keeping a print takes no room that a full disk would not have


def look(location: Location) -> Print:
    """Take the print of a replica's files as they are now. Raises nothing: what cannot be seen has a print too."""
    database = str(location.database)  # as text: this is done before every transaction of reads
    return _stat(database), _stat(database + "-wal", log=True)


def _stat(path: str, *, log: bool = False) -> tuple[int, ...]:
    try:
        found = os.stat(path)  # noqa: PTH116 - a third of the time that a Path takes
    except FileNotFoundError:
        return ()
    except OSError as error:  # a link to itself, a folder that may not be read
        return (-(error.errno or 1),)
    seen = (found.st_ino, found.st_size, found.st_mtime_ns)
    if not log:
        return *seen, found.st_ctime_ns
    if found.st_size == 0 and stat.S_ISREG(found.st_mode):
        return ()  # an empty log says as much as none
    return seen


def same_files(before: Print, after: Print) -> bool:
    """Tell whether a write of ours can have made one print of the other: it exchanges no file for another."""
    return before[0][:1] == after[0][:1] and (not before[1] or not after[1] or before[1][0] == after[1][0])


def write(location: Location, seen: Print) -> None:
    """Keep a print beside the files. One that is torn by a crash matches nothing, and so means doubt."""
    try:
        descriptor = os.open(location.seal, _WRITING, 0o600)
    except IsADirectoryError:
        remove(location.seal)
        descriptor = os.open(location.seal, _WRITING, 0o600)
    try:
        os.pwrite(descriptor, repr(seen).ljust(_BYTES).encode(), 0)
    finally:
        os.close(descriptor)


def holds(location: Location, seen: Print) -> bool:
    """Tell whether the kept print is this one. Raises OSError where the process is at its limits and cannot know."""
    try:
        return location.seal.read_bytes() == repr(seen).ljust(_BYTES).encode()
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
            raise
        return False
