"""The README says what is true: every setting with its default, every command, every route."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from gateway.cli import main
from gateway.settings import Settings

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_every_setting_is_listed_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `TIDEPOOL_(\w+)` \| (?:`(.*?)`)? ?\|", README, re.MULTILINE))
    expected = {one.name.upper(): "" if one.default is None else str(one.default).lower() for one in fields(Settings)}
    assert listed == expected


def test_every_command_is_listed() -> None:
    listed = set(re.findall(r"^\| `tidepool ([\w-]+)", README, re.MULTILINE))
    assert listed == {name for name, command in main.commands.items() if not command.hidden}
