"""The texts say what is true: every setting with its default, every command, module and benchmark, and what is linked.

That every route is listed is proved in tests/integration/test_openapi.py, where the routes are known.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from gateway.cli import main
from gateway.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


def test_every_setting_is_listed_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `TIDEPOOL_(\w+)` \| (?:`(.*?)`)? ?\|", README, re.MULTILINE))
    expected = {one.name.upper(): "" if one.default is None else str(one.default).lower() for one in fields(Settings)}
    assert listed == expected


def test_every_command_is_listed() -> None:
    listed = set(re.findall(r"^\| `tidepool ([\w-]+)", README, re.MULTILINE))
    assert listed == {name for name, command in main.commands.items() if not command.hidden}


def test_every_room_is_listed_with_its_modules_and_folders_and_none_that_is_gone() -> None:
    """What lies in a folder of its own is told by the folder's line."""
    listed: dict[str, set[str]] = {}
    names: set[str] = set()
    for line in re.findall(r"^```\n(primary/ .*?)```", ARCHITECTURE, re.MULTILINE | re.DOTALL)[0].splitlines():
        if not line.startswith(" "):
            names = listed.setdefault(line.partition("/")[0], set())
        names.update(re.findall(r"\b\w+\.py\b", line))
        names.update(re.findall(r"\b(\w+)/ ", line.strip()))
    for room in ("primary", "replica", "gateway"):
        there = {one.name for one in (ROOT / room).glob("*.py")} - {"__init__.py"}
        there |= {one.parent.name for one in (ROOT / room).glob("*/__init__.py")}
        assert listed[room] - {room, "mirror"} == there, room


def test_all_that_is_linked_is_there() -> None:
    for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "tests/benchmarks/README.md"):
        text = (ROOT / name).read_text()
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert ((ROOT / name).parent / link).exists(), f"{name}: {link}"
        for path in re.findall(r"`((?:tests|primary|replica|gateway)/[\w/.]+)`", text):
            assert (ROOT / path).exists(), f"{name}: {path}"


def test_every_benchmark_has_its_line_in_both_tables() -> None:
    costs = ARCHITECTURE.partition("## What it costs")[2].partition("## ")[0]
    explained = (ROOT / "tests/benchmarks/README.md").read_text()
    modules = {
        one.stem.replace("_", "-") for one in (ROOT / "tests/benchmarks").glob("*.py") if "\nTITLE" in one.read_text()
    }
    for text in (costs, explained):
        assert set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)) == modules
