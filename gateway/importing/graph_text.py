"""The texts behind the conditioning of a ComfyUI graph."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.importing.graph import Graph, Link, Node

_ENCODED = (
    "populated_text",
    "text",
    "text_g",
    "text_l",
    "clip_g",
    "clip_l",
    "t5xxl",
    "prompt",
    "string",
    "value",
)
"""Inputs of a node that encodes a text: CLIPTextEncode, its kin for SDXL, SD3 and Flux, and string nodes."""

_WRITTEN = (
    "populated_text",
    "text",
    "string",
    "value",
    "prompt",
    "wildcard_text",
    "text_positive",
    "text_negative",
)
"""Inputs of a node that is a text, in the order in which they are looked at."""

_JOINED = (
    ("string_a", "string_b", "string_c", "string_d"),
    ("text_a", "text_b", "text_c", "text_d"),
    ("string1", "string2", "string3", "string4"),
    ("text1", "text2", "text3", "text4"),
)
"""Inputs of a node that puts texts together."""

_NOT_CONDITIONING = frozenset(
    (
        "clip",
        "model",
        "vae",
        "image",
        "images",
        "pixels",
        "samples",
        "latent",
        "latent_image",
        "mask",
        "control_net",
    )
)
_DEPTH_MAX = 50
_EFFORT = 20  # of looking at one text node, against the following of one link


def texts_behind(graph: Graph, start: Link, side: str) -> list[str]:
    """Collect the texts that a conditioning link leads to, in their order, each once, blank ones left out.

    ``side`` is the name of the input that was followed: of a node that takes ``positive`` and ``negative`` the
    same side is gone on with, for loaders and appliers number their outputs in ways of their own.
    """
    texts: dict[str, None] = {}
    for node, _ in graph.upstream([start], lambda node, _: _sources(node, side)):
        for text in _encoded(graph, node, side):
            if text.strip():
                texts[text] = None
    return list(texts)


def _encoded(graph: Graph, node: Node, side: str) -> Iterator[str]:
    """Yield the texts that a node itself encodes."""
    if _is_silent(node):
        return
    own = _side_of(node, side)
    for name in (own,) if own else _ENCODED:
        if isinstance(value := node.values.get(name), str):
            yield value
        elif own is None and name in node.links and (text := _written(graph, node.links[name])):
            yield text


def _sources(node: Node, side: str) -> list[Link]:
    """Name the links of a conditioning node that lead to conditioning again."""
    if _is_silent(node):
        return []
    own = _side_of(node, side)
    if own:
        return [node.links[own]] if own in node.links else []
    return [to for name, to in node.links.items() if name not in _NOT_CONDITIONING and name not in _ENCODED]


def _side_of(node: Node, side: str) -> str | None:
    """Name the input to go on with, of a node that takes both sides."""
    if not node.has("positive", "negative"):
        return None
    return "negative" if side == "negative" else "positive"


def _is_silent(node: Node) -> bool:
    # ConditioningZeroOut passes on that there is no text.
    return "zeroout" in node.kind.lower()


def _written(graph: Graph, link: Link, depth: int = 0) -> str | None:
    """Return the text that a link to a text leads to; None if there is none within the bounds."""
    node = graph.nodes.get(link.node)
    if node is None or depth > _DEPTH_MAX or not graph.spend(_EFFORT):
        return None

    def given(name: str) -> str | None:
        if name in node.links:
            return _written(graph, node.links[name], depth + 1)
        value = node.values.get(name)
        return value if isinstance(value, str) else None

    for names in _JOINED:
        if any(node.has(name) for name in names):
            pieces = [piece for name in names if (piece := given(name))]
            glue = node.values.get("delimiter", node.values.get("separator", " "))
            joined = (glue if isinstance(glue, str) else " ").join(pieces)
            return joined if graph.spend(len(joined)) else None
    written: tuple[str, ...] = _WRITTEN
    if node.has("text_positive", "text_negative"):
        # A styler: both sides are texts, and each has an output.
        written = ("text_negative",) if link.slot == 1 else ("text_positive",)
    if present := [name for name in written if node.has(name)]:
        return next((found for name in present if (found := given(name)) is not None), None)
    # A node with a single link and nothing else hands on what it gets.
    only = list(node.links.values()) if len(node.links) == 1 and not node.values else []
    return _written(graph, only[0], depth + 1) if only else None
