"""What an image was made from, by the `prompt` graph that ComfyUI writes into it.

The graph is read backwards from the sampler that made the picture: along its `positive` and `negative` links
to the texts that were encoded, along `model` past every LoRA to the checkpoint, along `latent_image` to the
size. Nodes are told by the names of their inputs rather than by their class: custom nodes are many, and they
keep to these names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PureWindowsPath

from gateway.importing.errors import RecordError
from gateway.importing.graph import Graph, Link, Node
from gateway.importing.graph_text import texts_behind

_PIPES = ("basic_pipe", "pipe", "context")
_PARTS = ("noise", "guider", "sampler", "sigmas", *_PIPES)
_SEEDS = ("seed", "noise_seed")
_NUMBERS = ("value", "Value", "int", "number", *_SEEDS, "steps", "width", "height")
_CHECKPOINTS = ("ckpt_name", "unet_name", "base_ckpt_name", "model_name", "model_path")
_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft")
_NO_LATENT = frozenset(("model", "clip", "vae", "positive", "negative", "conditioning"))
_APART = frozenset((*_SEEDS, "steps", "positive", "negative"))

_SETTING_MAX_CHARS = 255


@dataclass(frozen=True, slots=True)
class Generation:
    """What a graph tells of its image; what it does not tell is None, or an empty text.

    ``settings`` are the other values that the sampler and its parts were given, the checkpoint and the LoRAs.
    """

    prompt: str
    negative_prompt: str
    model: str | None
    seed: int | None
    steps: int | None
    width: int | None
    height: int | None
    settings: dict[str, object]


def parse(text: str) -> Generation:
    """Read a `prompt` text. Raises `RecordError` if it is not a graph or has no sampler."""
    graph = Graph.parse(text)
    sampler = _sampler(graph)
    if sampler is None:
        raise RecordError("", "its ComfyUI prompt has no sampler")
    parts = [
        sampler,
        *(node for node, _ in graph.upstream(_bundled(sampler), lambda node, _: _bundled(node))),
    ]
    checkpoint, loras = _model(graph, parts)
    width, height = _size(graph, parts)
    settings = _settings(parts)
    if checkpoint:
        settings["checkpoint"] = checkpoint
    if loras:
        settings["loras"] = loras
    return Generation(
        prompt=_text(graph, parts, "positive", "conditioning"),
        negative_prompt=_text(graph, parts, "negative"),
        model=_bare(checkpoint) if checkpoint else None,
        seed=_number(graph, parts, *_SEEDS),
        steps=_number(graph, parts, "steps"),
        width=width,
        height=height,
        settings=settings,
    )


def _sampler(graph: Graph) -> Node | None:
    """Find the sampler of the first pass: it starts from a latent image that no other sampler has worked on.

    A second pass for more detail has a seed and steps of its own; the first one decides what the picture
    shows.
    """
    samplers = [node for node in graph.nodes.values() if _is_sampler(node)]
    return min(samplers, key=lambda node: ("latent_image" not in node.links, _is_fed(graph, node)), default=None)


def _is_sampler(node: Node) -> bool:
    conditioned = {"positive", "negative"} <= node.links.keys() and any(node.has(name) for name in _SEEDS)
    guided = {"noise", "guider"} <= node.links.keys()
    piped = "sampler" in node.kind.lower() and not node.links.keys().isdisjoint(_PIPES)
    return conditioned or guided or piped


def _is_fed(graph: Graph, sampler: Node) -> bool:
    return any(_is_sampler(node) for node in _latents(graph, sampler))


def _latents(graph: Graph, sampler: Node) -> Iterator[Node]:
    """Walk back from the latent image that a sampler starts from."""

    def onward(node: Node, _: Link) -> Iterable[Link]:
        return (link for name, link in node.links.items() if name not in _NO_LATENT)

    starts = [sampler.links["latent_image"]] if "latent_image" in sampler.links else []
    return (node for node, _ in graph.upstream(starts, onward))


def _bundled(node: Node) -> list[Link]:
    """Name the links to a sampler's own parts: noise, guider, schedule, or the pipe that bundles all."""
    return [node.links[name] for name in _PARTS if name in node.links]


def _text(graph: Graph, parts: list[Node], *names: str) -> str:
    """Put together the texts behind the first of the inputs ``names`` that any part has."""
    for part in parts:
        for name in names:
            if name in part.links:
                return "\n".join(texts_behind(graph, part.links[name], name))
            if isinstance(value := part.values.get(name), str):
                return value
    return ""


def _number(graph: Graph, parts: Iterable[Node], *names: str) -> int | None:
    for part in parts:
        for name in names:
            if (value := _whole(part.values.get(name))) is not None:
                return value
            starts = [part.links[name]] if name in part.links else []
            for node, _ in graph.upstream(starts, lambda node, _: _same_number(node)):
                found = [_whole(node.values.get(key)) for key in _NUMBERS]
                if (value := next((number for number in found if number is not None), None)) is not None:
                    return value
    return None


def _same_number(node: Node) -> list[Link]:
    # What a node computes from several inputs is not known here; one operand would be a wrong answer.
    named = [node.links[name] for name in _NUMBERS if name in node.links]
    return named or (list(node.links.values()) if len(node.links) == 1 and not node.values else [])


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _size(graph: Graph, parts: list[Node]) -> tuple[int | None, int | None]:
    for part in parts:
        for node in _latents(graph, part):
            for prefix in ("", "empty_latent_"):
                width, height = (_number(graph, [node], f"{prefix}{side}") for side in ("width", "height"))
                if width and height:
                    return width, height
    return None, None


def _model(graph: Graph, parts: list[Node]) -> tuple[str | None, list[str]]:
    """Find the checkpoint behind the sampler and the LoRAs on the way to it, by their names in the graph."""

    def onward(node: Node, _: Link) -> Iterable[Link]:
        return (link for name, link in node.links.items() if "model" in name or name in ("unet", *_PIPES))

    starts = [link for part in parts for link in onward(part, Link("", 0))]
    loras: dict[str, None] = {}
    for node in (*parts, *(node for node, _ in graph.upstream(starts, onward))):
        if name := _file_name(node, "lora_name"):
            loras[name] = None
        for key in _CHECKPOINTS:
            if name := _file_name(node, key):
                return name, list(loras)
    return None, list(loras)


def _file_name(node: Node, key: str) -> str:
    value = node.values.get(key)
    # Some loaders keep a preview picture beside the name.
    value = value.get("content") if isinstance(value, dict) else value
    return value.strip() if isinstance(value, str) else ""


def _bare(checkpoint: str) -> str:
    """Return a checkpoint's name without folder and suffix, as other programs write it."""
    name = PureWindowsPath(checkpoint).name or checkpoint
    return next((name[: -len(end)] for end in _SUFFIXES if name.lower().endswith(end) and len(name) > len(end)), name)


def _settings(parts: list[Node]) -> dict[str, object]:
    settings: dict[str, object] = {}
    for part in parts:
        for name, value in part.values.items():
            brief = isinstance(value, (int, float)) or (isinstance(value, str) and len(value) <= _SETTING_MAX_CHARS)
            if brief and name not in _APART:
                settings.setdefault(name, value)
    return settings
