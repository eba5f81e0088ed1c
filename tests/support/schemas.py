"""Checking values against an OpenAPI document's schemas: as much of JSON Schema as ours use, no keyword passed over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}
_SAY_NOTHING = {"title", "description", "examples", "default", "deprecated"}


class Document:
    """An OpenAPI document. ``faults(schema, value)`` says in words what does not fit, and nothing where all does."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def follow(self, found: dict[str, Any]) -> dict[str, Any]:
        """Give what a reference stands for, or what is no reference itself."""
        while "$ref" in found:
            place: Any = self.document
            for step in found["$ref"].removeprefix("#/").split("/"):
                place = place[step]
            found = place
        return found

    def references(self) -> Iterator[str]:
        """Give every reference that the document makes."""

        def within(value: Any) -> Iterator[str]:
            if isinstance(value, dict):
                if isinstance(value.get("$ref"), str):
                    yield value["$ref"]
                for member in value.values():
                    yield from within(member)
            elif isinstance(value, list):
                for member in value:
                    yield from within(member)

        return within(self.document)

    def operations(self) -> dict[str, dict[str, Any]]:
        """Give every operation by its method and path, as in ``GET /api/images``."""
        return {
            f"{method.upper()} {path}": operation
            for path, methods in self.document["paths"].items()
            for method, operation in methods.items()
        }

    def faults(self, schema: dict[str, Any], value: Any, place: str = "$") -> list[str]:
        """Say where a value does not fit a schema. Raises `NotImplementedError` at a keyword that is unknown here."""
        return list(self._faults(schema, value, place))

    def example_of(self, content: dict[str, Any]) -> Any:
        """Give the example of a body: its own, or one put together from those of its schema. Raises `LookupError`."""
        if "example" in content:
            return content["example"]
        for example in content.get("examples", {}).values():
            return example["value"]
        return self._example(content["schema"])

    def _example(self, schema: dict[str, Any]) -> Any:
        schema = self.follow(schema)
        if schema.get("examples"):
            return schema["examples"][0]
        if "const" in schema or "enum" in schema:
            return schema.get("const", schema.get("enum", [None])[0])
        if (kinds := schema.get("oneOf") or schema.get("anyOf")) is not None:
            return self._example(next(one for one in kinds if one.get("type") != "null"))
        if schema.get("type") == "array":
            return [self._example(schema["items"])]
        if schema.get("type") == "object" and "properties" in schema:
            return {name: self._example(member) for name, member in schema["properties"].items()}
        raise LookupError(f"no example in {schema}")

    def _faults(self, schema: dict[str, Any], value: Any, place: str) -> Iterator[str]:
        schema = self.follow(schema)
        for keyword, wanted in schema.items():
            match keyword:
                case "type":
                    if not _is(wanted, value):
                        yield f"{place}: is {value!r}, not of the type {wanted}"
                case "const" if value != wanted:
                    yield f"{place}: is {value!r}, not {wanted!r}"
                case "enum" if value not in wanted:
                    yield f"{place}: is {value!r}, none of {wanted}"
                case "oneOf":
                    tried = [self.faults(one, value, place) for one in wanted]
                    if sum(not found for found in tried) != 1:
                        yield f"{place}: fits {sum(not found for found in tried)} of the alternatives: {tried}"
                case "anyOf":
                    tried = [self.faults(one, value, place) for one in wanted]
                    if all(tried):
                        yield f"{place}: fits none of the alternatives: {tried}"
                case "minLength" if isinstance(value, str) and len(value) < wanted:
                    yield f"{place}: is shorter than {wanted}"
                case "maxLength" if isinstance(value, str) and len(value) > wanted:
                    yield f"{place}: is longer than {wanted}"
                case "pattern" if isinstance(value, str) and not re.search(wanted, value):
                    yield f"{place}: does not match {wanted}"
                case "minimum" if isinstance(value, int | float) and value < wanted:
                    yield f"{place}: is less than {wanted}"
                case "maximum" if isinstance(value, int | float) and value > wanted:
                    yield f"{place}: is more than {wanted}"
                case "minItems" if isinstance(value, list) and len(value) < wanted:
                    yield f"{place}: has fewer than {wanted}"
                case "maxItems" if isinstance(value, list) and len(value) > wanted:
                    yield f"{place}: has more than {wanted}"
                case "items" if isinstance(value, list):
                    for n, member in enumerate(value):
                        yield from self._faults(wanted, member, f"{place}[{n}]")
                case "required" if isinstance(value, dict):
                    for name in wanted:
                        if name not in value:
                            yield f"{place}.{name}: is missing"
                case "properties" if isinstance(value, dict):
                    yield from self._members(schema, value, place)
                case "additionalProperties" if isinstance(value, dict) and isinstance(wanted, dict):
                    for name in value.keys() - schema.get("properties", {}).keys():
                        yield from self._faults(wanted, value[name], f"{place}.{name}")
                case "format" if isinstance(value, str):
                    if not _formatted(wanted, value):
                        yield f"{place}: {value!r} is no {wanted}"
                case _ if keyword not in _KNOWN:
                    raise NotImplementedError(f"{place}: {keyword}")

    def _members(self, schema: dict[str, Any], value: dict[str, Any], place: str) -> Iterator[str]:
        for name, member in value.items():
            if name in schema["properties"]:
                yield from self._faults(schema["properties"][name], member, f"{place}.{name}")
            elif "additionalProperties" not in schema:
                # Our own answers hold nothing that is not described.
                yield f"{place}.{name}: is not described"


_KNOWN = _SAY_NOTHING | {"const", "enum", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"}
_KNOWN |= {"items", "pattern", "required", "properties", "additionalProperties", "format"}


def _is(kind: str | list[str], value: Any) -> bool:
    kinds = [kind] if isinstance(kind, str) else kind
    return any(isinstance(value, _TYPES[one]) and (one == "boolean" or not isinstance(value, bool)) for one in kinds)


def _formatted(name: str, text: str) -> bool:
    match name:
        case "uuid":
            return str(UUID(text)) == text.lower()
        case "date-time":
            return re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", text) is not None
    raise NotImplementedError(name)
