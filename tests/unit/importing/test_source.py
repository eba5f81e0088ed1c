from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.importing.errors import InputError
from gateway.importing.found import Found
from gateway.importing.source import opened
from tests.unit.importing.pngs import png, text


def origins(path: Path, format_: Any = None) -> list[str]:
    with opened(str(path), format_) as source:
        return [found.origin for found in source.found if isinstance(found, Found)]


@pytest.mark.parametrize(
    ("name", "format_"),
    [("a.jsonl", None), ("a.NDJSON", None), ("a.json", "jsonl"), ("a.csv", "jsonl"), ("a", "jsonl")],
)
def test_a_name_says_the_format_unless_it_is_given(tmp_path: Path, name: str, format_: Any):
    (tmp_path / name).write_text('{"prompt": "x"}\n')
    assert origins(tmp_path / name, format_) == ["line 1"]


def test_csv_and_png_are_told_by_their_names_too(tmp_path: Path):
    (tmp_path / "a.csv").write_text("prompt,image_url\nx,y\n")
    (tmp_path / "b.png").write_bytes(png(text("parameters", "x")))
    assert origins(tmp_path / "a.csv") == ["line 2"]
    assert origins(tmp_path / "b.png") == ["b.png"]
    assert origins(tmp_path) == ["b.png"]


@pytest.mark.parametrize(
    ("name", "format_", "reason"),
    [
        ("a.json", None, "no telling the format"),
        ("a", None, "no telling the format"),
        ("missing.jsonl", None, "cannot be read: No such file or directory"),
        ("nul\0.jsonl", None, "cannot be read"),
        ("folder", "csv", "is a folder"),
    ],
)
def test_what_cannot_be_read_is_told_before_anything_is_done(tmp_path: Path, name: str, format_: Any, reason: str):
    (tmp_path / "a.json").touch()
    (tmp_path / "a").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=reason), opened(str(tmp_path / name), format_):
        pass


def test_pictures_do_not_come_from_the_standard_input():
    with pytest.raises(InputError, match="standard input"), opened("-", "png"):
        pass


def test_how_far_the_reader_is_can_be_told_of_a_file(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "x"}\n' * 10)
    with opened(str(path), None) as source:
        assert source.size_bytes == 160
        for _ in source.found:
            pass
        assert source.read_bytes() == 160
