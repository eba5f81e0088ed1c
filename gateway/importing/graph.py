"""A ComfyUI prompt graph: nodes by id, whose inputs are values or links to other nodes' outputs.

    {"3": {"class_type": "KSampler", "inputs": {"seed": 8566257, "positive": ["6", 0]}}, "6": {…}}

Any JSON object is a graph here: what is not a node is not there, a link to a node that is not there leads
nowhere, a walk takes every link once, and all walks of a graph together have a bound, so that hostile graphs
end as well.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gateway.importing.errors import RecordError

EFFORT_MAX = 1_000_000
"""Links followed and characters put together, of one graph. Real ones take some thousands."""


class Link(NamedTuple):
    """A link to one output, by its number, of a node."""

    node: str
    slot: int


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its class, its inputs that are values, and its inputs that are links."""

    kind: str
    values: dict[str, object]
    links: dict[str, Link]

    def has(self, *names: str) -> bool:
        """Tell whether the node has all of these inputs, as values or as links."""
        return all(name in self.values or name in self.links for name in names)


class Graph:
    """The nodes of one prompt, in the order in which they were written."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes
        self._effort_left = EFFORT_MAX

    @classmethod
    def parse(cls, text: str) -> Graph:
        """Read the `prompt` text of an image.

        ComfyUI writes a bare ``NaN`` where a node could not say whether it changed; it is read as no value.
        Raises `RecordError` if the text is not a JSON object.
        """
        try:
            document = json.loads(text, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            raise RecordError("", "its ComfyUI prompt is not JSON") from None
        if not isinstance(document, dict):
            raise RecordError("", "its ComfyUI prompt is not a JSON object")
        return cls({key: node for key, value in document.items() if (node := _node(value))})

    def spend(self, effort: int) -> bool:
        """Take ``effort`` off what is left for this graph; False once there is nothing left."""
        self._effort_left -= effort
        return self._effort_left >= 0

    def upstream(
        self, starts: Iterable[Link], onward: Callable[[Node, Link], Iterable[Link]]
    ) -> Iterator[tuple[Node, Link]]:
        """Walk from links towards their sources, depth first; yield each node with the link that led to it.

        ``onward`` names the links to go on with, in their order. A node is yielded once for each of its
        outputs that the walk comes by.
        """
        ahead = list(starts)[::-1]
        seen: set[Link] = set()
        while ahead and self.spend(1):
            link = ahead.pop()
            node = self.nodes.get(link.node)
            if link in seen or node is None:
                continue
            seen.add(link)
            yield node, link
            further = list(onward(node, link))
            if self.spend(len(further)):
                ahead.extend(further[::-1])


def _node(value: object) -> Node | None:
    if not isinstance(value, dict) or not isinstance(value.get("inputs"), dict):
        return None
    values: dict[str, object] = {}
    links: dict[str, Link] = {}
    for name, given in value["inputs"].items():
        match given:
            case [str() | int() as node, int() as slot]:
                links[name] = Link(str(node), slot)
            case float() if not math.isfinite(given):
                pass
            case _:
                values[name] = given
    return Node(str(value.get("class_type", "")), values, links)
