"""The `parameters` text that the Automatic1111 web UI, Forge and others write into their images.

    a prompt, on one line
    or on several
    Negative prompt: what is not wanted,
    on several lines too
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x768, Model: "a, b: c"

The reading is that of the web UI itself (`parse_generation_parameters`): the last line holds the settings if
at least three of them are found in it, else it is part of the prompt; a line that begins with ``Negative
prompt:`` ends the prompt. It differs in cost alone: the web UI's regular expression takes quadratic time on
hostile text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

_NEGATIVE = "Negative prompt:"
_SETTINGS_MIN = 3

_KEY_TAIL = re.compile(r"[\w \-/]*\Z")
_KEY = re.compile(r"\w[\w \-/]+\Z")
_SPACE = re.compile(r"\s*")
_QUOTED = re.compile(r'"(?:\\.|[^\\"])+"(?=,|\Z)')
_KEY_MAX_CHARS = 200


@dataclass(frozen=True, slots=True)
class Parameters:
    """A prompt, a negative prompt and the settings in their order, names and values as they were written."""

    prompt: str
    negative_prompt: str
    settings: dict[str, str]


def parse(text: str) -> Parameters:
    """Take a `parameters` text apart. Every text is one: without settings it is all prompt."""
    *lines, last = text.strip().split("\n")
    settings = list(_settings(last))
    if len(settings) < _SETTINGS_MIN:
        lines.append(last)
        settings = []
    prompt: list[str] = []
    negative: list[str] = []
    part = prompt
    for line in map(str.strip, lines):
        if line.startswith(_NEGATIVE):
            part = negative
        part.append(line.removeprefix(_NEGATIVE).strip())
    return Parameters(
        "\n".join(prompt).lstrip("\n"),
        "\n".join(negative).lstrip("\n"),
        {name: value for name, value in settings if value},
    )


def _settings(line: str) -> Iterator[tuple[str, str]]:
    """Find the ``name: value`` pairs, parted by commas; a value in quotes may hold commas and colons."""
    at = 0
    while (colon := line.find(":", at)) >= 0:
        key = _key(line, at, colon)
        if not key:
            at = colon + 1
            continue
        start = _end(_SPACE, line, colon + 1)
        quoted = _QUOTED.match(line, start)
        if quoted:
            value, at = quoted[0], quoted.end() + 1
        else:
            comma = line.find(",", colon + 1)
            stop = len(line) if comma < 0 else comma
            value, at = line[colon + 1 : stop].strip(), stop + 1
        yield key, _unquoted(value)


def _key(line: str, start: int, colon: int) -> str:
    """Find the name that ends at ``colon``: all letters, digits, spaces, ``-`` and ``/`` before it."""
    tail = _KEY_TAIL.search(line[max(start, line.rfind(",", start, colon) + 1, colon - _KEY_MAX_CHARS) : colon])
    key = _KEY.search(tail[0]) if tail else None
    return key[0].strip() if key else ""


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    found = pattern.match(text, start)
    return found.end() if found else start


def _unquoted(text: str) -> str:
    if not (text.startswith('"') and text.endswith('"')):
        return text
    try:
        return msgspec.json.decode(text, type=str)
    except (msgspec.DecodeError, UnicodeError):
        return text
