"""A folder to work in goes with whoever works in it, and no other does."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from gateway.cli.working_folder import PREFIX, working_folder


def test_it_is_removed_with_all_that_is_in_it(tmp_path: Path) -> None:
    with working_folder(tmp_path) as folder:
        (folder / "made").mkdir()
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not [*tmp_path.iterdir()]


def test_only_what_nobody_works_in_is_cleared_away(tmp_path: Path) -> None:
    left, elsewhere = tmp_path / f"{PREFIX}left", tmp_path / "elsewhere"
    for folder in (left, elsewhere):
        (folder / "made").mkdir(parents=True)
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    (tmp_path / f"{PREFIX}file").touch()
    before = {*tmp_path.iterdir()}
    with working_folder(tmp_path) as first, working_folder(tmp_path) as second:
        assert {*tmp_path.iterdir()} == before - {left} | {first, second}
    assert (elsewhere / "made").exists()


def test_what_is_another_users_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / f"{PREFIX}left"
    left.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    with working_folder(tmp_path):
        pass
    assert left.exists()


def test_one_that_is_cleared_away_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    gone: list[Path] = []

    def too_late(descriptor: int, operation: int) -> None:
        if not gone:
            gone.extend(tmp_path.iterdir())
            gone[0].rmdir()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", too_late)
    with working_folder(tmp_path) as folder:
        assert folder.exists()
        assert folder not in gone


def test_where_folders_cannot_be_locked_none_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(9, "Bad file descriptor")  # as NFS does

    monkeypatch.setattr(fcntl, "flock", refuse)
    with working_folder(tmp_path) as first:
        with working_folder(tmp_path) as second:
            assert {*tmp_path.iterdir()} == {first, second}
        assert first.exists()
