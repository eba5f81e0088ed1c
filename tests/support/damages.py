"""What others may do to the files of a replica."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from replica import seal
from replica.library import connect
from replica.location import Location

TICK_S = 0.01
"""The clock of a file system may stand still for so long; a damage within the same tick as our write is not seen."""


@dataclass
class Scene:
    """A replica in some state of use, and what a damage may need."""

    location: Location
    other: Location
    older: Path  # a folder with a copy of the replica's files and seal, as they were some syncs ago


def cut(keep: Callable[[int], int]) -> Callable[[Scene], None]:
    def damage(scene: Scene) -> None:
        os.truncate(scene.location.database, keep(scene.location.database.stat().st_size))

    return damage


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << place % 8]))


def flip_in_a_row(scene: Scene) -> None:
    """Change a letter of a prompt, which no structure of the file depends on."""
    place = scene.location.database.read_bytes().rindex(b"basalt")
    flip(scene.location.database, place)


def flip_and_hide_it(scene: Scene) -> None:
    """Change a letter, and set the time of the change back."""
    before = scene.location.database.stat()
    flip_in_a_row(scene)
    os.utime(scene.location.database, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip_in_the_log(scene: Scene) -> None:
    path = (
        scene.location.wal
        if scene.location.wal.exists() and scene.location.wal.stat().st_size
        else scene.location.database
    )
    flip(path, path.stat().st_size // 2)


def by_sql(statement: str) -> Callable[[Scene], None]:
    def damage(scene: Scene) -> None:
        with contextlib.closing(connect(scene.location.uri("rwc"))) as connection, connection:
            connection.execute(statement)

    return damage


def delete_file(scene: Scene) -> None:
    scene.location.database.unlink()


def delete_all(scene: Scene) -> None:
    for path in (scene.location.database, *scene.location.beside()):
        path.unlink(missing_ok=True)


def delete_log(scene: Scene) -> None:
    scene.location.wal.unlink(missing_ok=True)


def delete_log_index(scene: Scene) -> None:
    scene.location.shm.unlink(missing_ok=True)


def delete_seal(scene: Scene) -> None:
    scene.location.seal.unlink()


def spoil_seal(scene: Scene) -> None:
    scene.location.seal.write_bytes(b"\xff\xfe\0" * 40)


def other_users_file(scene: Scene) -> None:
    shutil.copy2(scene.other.database, scene.location.database)


def other_users_file_sealed(scene: Scene) -> None:
    other_users_file(scene)
    seal.write(scene.location, seal.look(scene.location))


def older_copy(scene: Scene) -> None:
    """Put an older copy in its place, as a restored backup would."""
    for path in (scene.location.database, *scene.location.beside()):
        path.unlink(missing_ok=True)
    for copy in scene.older.iterdir():
        shutil.copy2(copy, scene.location.database.parent / copy.name)


def older_content(scene: Scene) -> None:
    """Write the older bytes into the same files, with the older times and the older seal."""
    for copy in scene.older.iterdir():
        place = scene.location.database.parent / copy.name
        place.write_bytes(copy.read_bytes())
        shutil.copystat(copy, place)


def directory_instead(scene: Scene) -> None:
    scene.location.database.unlink()
    scene.location.database.mkdir()
    (scene.location.database / "something").write_text("in it")


def directory_for_log(scene: Scene) -> None:
    scene.location.wal.unlink(missing_ok=True)
    scene.location.wal.mkdir()


def pipe_for_log(scene: Scene) -> None:
    scene.location.wal.unlink(missing_ok=True)
    os.mkfifo(scene.location.wal)


def directory_for_seal(scene: Scene) -> None:
    scene.location.seal.unlink()
    scene.location.seal.mkdir()


def link_to_itself_moved(scene: Scene) -> None:
    elsewhere = scene.older / "moved.db"
    scene.location.database.replace(elsewhere)
    scene.location.database.symlink_to(elsewhere)


def link_to_other(scene: Scene) -> None:
    scene.location.database.unlink()
    scene.location.database.symlink_to(scene.other.database)


def link_to_nowhere(scene: Scene) -> None:
    scene.location.database.unlink()
    scene.location.database.symlink_to(scene.older / "nothing")


def link_to_itself(scene: Scene) -> None:
    scene.location.database.unlink()
    scene.location.database.symlink_to(scene.location.database)


def pipe_instead(scene: Scene) -> None:
    scene.location.database.unlink()
    os.mkfifo(scene.location.database)


def text_instead(scene: Scene) -> None:
    scene.location.database.write_text("This is no database. " * 1000)


DAMAGES: dict[str, Callable[[Scene], None]] = {
    "truncated to nothing": cut(lambda size: 0),
    "truncated to half": cut(lambda size: size // 2),
    "one byte less": cut(lambda size: size - 1),
    "a letter of a row changed": flip_in_a_row,
    "a letter of a row changed, and the time set back": flip_and_hide_it,
    "a byte of the header changed": lambda scene: flip(scene.location.database, 27),
    "a byte of the log changed": flip_in_the_log,
    "the file deleted": delete_file,
    "all files deleted": delete_all,
    "the log deleted": delete_log,
    "the log's index deleted": delete_log_index,
    "the seal deleted": delete_seal,
    "the seal spoiled": spoil_seal,
    "another user's file in its place": other_users_file,
    "another user's file in its place, sealed": other_users_file_sealed,
    "an older copy in its place": older_copy,
    "older content in the same file": older_content,
    "the version lowered": by_sql("UPDATE _replica SET version = version - 1"),
    "the version raised": by_sql("UPDATE _replica SET version = version + 7"),
    "the epoch changed": by_sql("UPDATE _replica SET epoch = '1-1-1-1'"),
    "a column added": by_sql("ALTER TABLE image ADD COLUMN colour TEXT"),
    "a row deleted": by_sql("DELETE FROM image WHERE rowid = (SELECT min(rowid) FROM image)"),
    "a directory in its place": directory_instead,
    "a directory in its log's place": directory_for_log,
    "a pipe in its log's place": pipe_for_log,
    "a directory in its seal's place": directory_for_seal,
    "moved, and a link to it": link_to_itself_moved,
    "a link to another user's": link_to_other,
    "a link to nowhere": link_to_nowhere,
    "a link to itself": link_to_itself,
    "a pipe in its place": pipe_instead,
    "a text in its place": text_instead,
}
