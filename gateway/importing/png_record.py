"""The record of a PNG file: what its generator wrote into it, under the names of the image's JSON."""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.importing import automatic1111, comfyui
from gateway.importing.errors import RecordError
from gateway.importing.png import Png
from primary.gallery import limits

KEYWORDS = ("parameters", "prompt")

_WHOLE = re.compile(r"-?[0-9]{1,20}")
_RANGES = {
    "seed": (limits.SEED_MIN, limits.SEED_MAX),
    "steps": (1, limits.STEPS_MAX),
    "width": (1, limits.SIDE_MAX_PX),
    "height": (1, limits.SIDE_MAX_PX),
}


def values(png: Png) -> dict[str, object]:
    """Give the prompts, model, seed, steps and size, the generator as ``source``, all else in ``meta``.

    The size is the file's own; the one that was asked for stays in ``meta`` where it differs. A number that
    images cannot hold, such as a seed of 64 bits without a sign, is kept in ``meta`` as text. The
    Automatic1111 text goes before the ComfyUI graph: where both are there it has the prompt as it was after
    wildcards and styles. Raises `RecordError` if there is neither, or neither can be read.
    """
    failed: RecordError | None = None
    for keyword, read in _READERS.items():
        if keyword in png.texts:
            try:
                found = read(png.texts[keyword], png)
            except RecordError as error:
                failed = failed or error
            else:
                return found | {name: size for name in ("width", "height") if _fits(name, size := getattr(png, name))}
    raise failed or RecordError("", "holds no generation parameters, neither Automatic1111's nor ComfyUI's")


def _automatic1111(text: str, png: Png) -> dict[str, object]:
    if text.lstrip().startswith("{"):
        raise RecordError("", "its parameters are those of a program that is not known here")
    found = automatic1111.parse(text)
    settings: dict[str, object] = dict(found.settings)
    if settings.get("Size") == f"{png.width}x{png.height}":
        del settings["Size"]
    taken: dict[str, object] = {}
    for field, key in (("seed", "Seed"), ("steps", "Steps")):
        written = found.settings.get(key, "")
        if _WHOLE.fullmatch(written) and _fits(field, int(written)):
            taken[field] = int(written)
            del settings[key]
    model = found.settings.get("Model", "")
    if 0 < len(model) <= limits.NAME_MAX_CHARS:
        taken["model"] = model
        del settings["Model"]
    return _record("automatic1111", found.prompt, found.negative_prompt, taken, settings)


def _comfyui(text: str, png: Png) -> dict[str, object]:
    found = comfyui.parse(text)
    settings = dict(found.settings)
    if found.width and found.height and (found.width, found.height) != (png.width, png.height):
        settings["size"] = f"{found.width}x{found.height}"
    taken: dict[str, object] = {}
    for field, number in (("seed", found.seed), ("steps", found.steps)):
        if number is not None and _fits(field, number):
            taken[field] = number
        elif number is not None:
            settings[field] = str(number)
    if found.model and len(found.model) <= limits.NAME_MAX_CHARS:
        taken["model"] = found.model
    return _record("comfyui", found.prompt, found.negative_prompt, taken, settings)


def _record(
    source: str, prompt: str, negative: str, taken: dict[str, object], settings: dict[str, object]
) -> dict[str, object]:
    if not prompt.strip():
        raise RecordError("prompt", "is empty in its generation parameters")
    record = {"prompt": prompt, "source": source, "meta": {"parameters": settings}, **taken}
    return record | {"negative_prompt": negative} if negative.strip() else record


def _fits(field: str, number: int) -> bool:
    low, high = _RANGES[field]
    return low <= number <= high


_READERS: dict[str, Callable[[str, Png], dict[str, object]]] = {
    "parameters": _automatic1111,
    "prompt": _comfyui,
}
