"""What may be written of images, and how each fault is named."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from primary.gallery import limits
from primary.gallery.errors import InvalidRecord
from primary.gallery.records import ImagePatch, NewImage, check, check_batch, convert

GOOD: dict[str, Any] = {"prompt": "a pool", "image_url": "https://images.example/1.png"}
NULLABLE = ["negative_prompt", "model", "seed", "steps", "width", "height", "persona_id", "persona_name", "alt_text"]


def faults(**values: Any) -> dict[str, str]:
    with pytest.raises(InvalidRecord) as refused:
        convert(NewImage, GOOD | values)
    return {fault.field: fault.reason for fault in refused.value.faults}


def nested(depth: int) -> dict[str, Any]:
    return {"in": nested(depth - 1)} if depth > 1 else {}


def test_what_is_not_given_is_told_from_what_is_given_as_null() -> None:
    record = convert(NewImage, GOOD | {"model": None})
    assert record.model is None
    assert record.seed is msgspec.UNSET
    assert record.given() == GOOD | {"model": None}
    assert convert(ImagePatch, {"alt_text": None}).given() == {"alt_text": None}


@pytest.mark.parametrize("name", NULLABLE)
def test_optional_fields_can_be_emptied(name: str) -> None:
    assert convert(ImagePatch, {name: None}).given() == {name: None}


@pytest.mark.parametrize("name", ["prompt", "image_url", "source", "meta"])
def test_fields_that_every_image_has_cannot_be_emptied(name: str) -> None:
    with pytest.raises(InvalidRecord) as refused:
        convert(ImagePatch, {name: None})
    assert [fault.field for fault in refused.value.faults] == [name]


def test_every_fault_is_named_not_only_the_first() -> None:
    with pytest.raises(InvalidRecord) as refused:
        convert(NewImage, {"prompt": " \t", "seed": "12", "steps": 0, "colour": "red"})
    assert [fault.field for fault in refused.value.faults] == ["prompt", "image_url", "seed", "steps", "colour"]
    assert "image_url: is missing" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", ""),
        ("prompt", "\u3000\n"),
        ("prompt", "p" * (limits.PROMPT_MAX_CHARS + 1)),
        ("prompt", 12),
        ("prompt", None),
        ("negative_prompt", "n" * (limits.PROMPT_MAX_CHARS + 1)),
        ("image_url", " "),
        ("image_url", "u" * (limits.URL_MAX_CHARS + 1)),
        ("model", "m" * (limits.NAME_MAX_CHARS + 1)),
        ("source", ""),
        ("source", "s" * (limits.NAME_MAX_CHARS + 1)),
        ("persona_id", "p" * (limits.NAME_MAX_CHARS + 1)),
        ("alt_text", "a" * (limits.ALT_TEXT_MAX_CHARS + 1)),
        ("description", "d" * (limits.DESCRIPTION_MAX_CHARS + 1)),
        ("seed", 2**63),
        ("seed", -(2**63) - 1),
        ("seed", 1.5),
        ("seed", True),
        ("steps", 0),
        ("steps", -1),
        ("steps", limits.STEPS_MAX + 1),
        ("steps", math.nan),
        ("width", 0),
        ("height", limits.SIDE_MAX_PX + 1),
        ("id", "not-a-uuid"),
        ("created_at", "2024-01-01T00:00:00"),
        ("created_at", "yesterday"),
        ("created_at", "0001-01-01T00:00:00+14:00"),
        ("created_at", datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-3)))),
        ("meta", []),
        ("meta", {"nan": math.nan}),
        ("meta", {"deep": [{"infinite": -math.inf}]}),
        ("meta", {"zero": "a\0b"}),
        ("meta", {"\ud800": 1}),
        ("meta", nested(limits.META_MAX_DEPTH + 1)),
        ("meta", {"a": "x" * limits.META_MAX_BYTES}),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_its_field(name: str, value: Any) -> None:
    assert list(faults(**{name: value})) == [name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", "🏊" * limits.PROMPT_MAX_CHARS),
        ("negative_prompt", ""),
        ("image_url", "u" * limits.URL_MAX_CHARS),
        ("model", "m" * limits.NAME_MAX_CHARS),
        ("seed", 2**63 - 1),
        ("seed", -(2**63)),
        ("steps", 1),
        ("steps", limits.STEPS_MAX),
        ("width", limits.SIDE_MAX_PX),
        ("meta", nested(limits.META_MAX_DEPTH)),
        ("meta", {"a": "x" * (limits.META_MAX_BYTES - len('{"a":""}'))}),
        ("meta", {"big": 2**200, "small": 5e-324, "text": "مرحبا 🏊"}),
        ("created_at", datetime(1, 1, 1, tzinfo=UTC)),
        ("id", UUID(int=0)),
    ],
)
def test_a_value_at_the_edge_is_taken_as_it_is(name: str, value: Any) -> None:
    assert getattr(convert(NewImage, GOOD | {name: value}), name) == value


@pytest.mark.parametrize("text", ["a\0b", "\ud83c", "ok\udfff"])
@pytest.mark.parametrize("name", ["prompt", "image_url", "model", "source", "persona_name", "description"])
def test_texts_that_postgres_cannot_hold_are_refused(name: str, text: str) -> None:
    assert list(faults(**{name: text})) == [name]


def test_a_meta_is_measured_in_bytes_not_in_characters() -> None:
    assert "bytes" in faults(meta={"a": "é" * (limits.META_MAX_BYTES // 2)})["meta"]


def test_a_document_too_deep_for_python_itself_is_refused_too() -> None:
    deep = json.loads('{"a":' * 900 + "{}" + "}" * 900)
    assert "nested" in faults(meta=deep)["meta"]


def test_a_patch_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="no field"):
        check(ImagePatch())


def test_a_batch_names_the_place_of_each_fault_and_of_each_repeated_id() -> None:
    twice = uuid4()
    images = [
        NewImage(**GOOD, id=twice),
        NewImage(prompt=" ", image_url="u"),
        NewImage(**GOOD),
        NewImage(**GOOD, id=twice, model="\0"),
    ]
    with pytest.raises(InvalidRecord) as refused:
        check_batch(images)
    told = {fault.field: fault.reason for fault in refused.value.faults}
    assert list(told) == ["images[1].prompt", "images[3].model", "images[3].id"]
    assert "images[0]" in told["images[3].id"]
    check_batch(images[:1] + images[2:3])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values=st.dictionaries(st.sampled_from([*NewImage.__struct_fields__, "else"]), json_values))
def test_whatever_is_sent_is_taken_field_for_field_or_refused(values: dict[str, Any]) -> None:
    try:
        taken = set(convert(NewImage, values).given())
    except InvalidRecord as error:
        refused = {fault.field for fault in error.faults}
        taken = set(values) if refused and refused <= {*NewImage.__struct_fields__, "else"} else refused
    assert taken == set(values)
