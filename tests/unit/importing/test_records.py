from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.importing.errors import InputError
from gateway.importing.found import Found, Refused
from gateway.importing.records import ImportedRecord, Recorder, Unknown, columns

LEAST: dict[str, Any] = {"prompt": "a whale", "image_url": "https://x/1.png"}


def record(values: dict[str, Any], *, user: str = "ada", unknown: Unknown = "error") -> ImportedRecord | Refused:
    return Recorder(user, unknown=unknown).record(Found("line 7", values))


def good(values: dict[str, Any], **options: Any) -> Any:
    made = record(values, **options)
    assert isinstance(made, ImportedRecord), made
    return made.image


def refused(values: dict[str, Any], **options: Any) -> str:
    made = record(values, **options)
    assert isinstance(made, Refused), made
    return str(made)


def test_every_field_of_an_image_is_taken():
    values = LEAST | {
        "id": "0190b5a0-0000-7000-8000-000000000001",
        "negative_prompt": "blurry",
        "model": "dream",
        "seed": -1,
        "steps": 20,
        "width": 512,
        "height": 768,
        "source": "scheduler",
        "persona_id": "p1",
        "persona_name": "Ada",
        "alt_text": "a whale, breaching",
        "description": "at sea",
        "meta": {"a": [1, {"b": None}]},
        "created_at": "2024-02-29T12:00:00.123456+02:00",
    }
    image = good(values)
    expected = values | {
        "id": UUID("0190b5a0-0000-7000-8000-000000000001"),
        "created_at": datetime(2024, 2, 29, 10, 0, 0, 123456, UTC),
    }
    assert image.given() == expected


def test_camel_case_names_are_the_same_fields():
    values = {
        "prompt": "x",
        "imageUrl": "https://x/1.png",
        "negativePrompt": "y",
        "personaId": "1",
        "personaName": "n",
        "altText": "t",
        "createdAt": "2024-01-01T00:00:00Z",
    }
    assert good(values).given().keys() - {"id"} == {
        "prompt",
        "image_url",
        "negative_prompt",
        "persona_id",
        "persona_name",
        "alt_text",
        "created_at",
    }
    assert refused(LEAST | {"imageUrl": "https://x/2.png"}) == "line 7: image_url: is given twice"


def test_null_is_no_value():
    assert good(LEAST | {"model": None, "meta": None, "source": None, "id": None}).given().keys() == {
        "prompt",
        "image_url",
        "id",
    }
    assert "prompt: is missing" in refused({"prompt": None, "image_url": "x"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-11-08T12:34:56", datetime(2025, 11, 8, 12, 34, 56, tzinfo=UTC)),
        ("2025-11-08 12:34:56", datetime(2025, 11, 8, 12, 34, 56, tzinfo=UTC)),
        ("2025-11-08", datetime(2025, 11, 8, tzinfo=UTC)),
        ("2025-11-08T12:34:56-05:30", datetime(2025, 11, 8, 18, 4, 56, tzinfo=UTC)),
        (" 2025-11-08T12:34:56Z ", datetime(2025, 11, 8, 12, 34, 56, tzinfo=UTC)),
    ],
)
def test_times_are_iso_8601_and_utc_where_they_do_not_say(text: str, expected: datetime):
    assert good(LEAST | {"created_at": text}).created_at == expected


@pytest.mark.parametrize("text", ["yesterday", "", "2025-02-30", "0001-01-01T00:00:00+10:00", "1731067200"])
def test_what_is_no_time_is_told(text: str):
    assert refused(LEAST | {"created_at": text}).startswith("line 7: created_at: ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", ""),
        ("prompt", "x" * 40_000),
        ("prompt", "nul \0"),
        ("prompt", 3),
        ("image_url", " "),
        ("seed", 2**63),
        ("seed", 1.5),
        ("seed", "7"),
        ("seed", True),
        ("steps", 0),
        ("width", -1),
        ("height", 10**30),
        ("meta", []),
        ("meta", {"a": "\0"}),
        ("meta", {"a": "x" * 70_000}),
        ("id", "not-a-uuid"),
        ("created_at", 1731067200),
        ("model", {"a": 1}),
    ],
)
def test_a_bad_value_is_told_by_its_field(field: str, value: Any):
    assert refused(LEAST | {field: value}).startswith(f"line 7: {field}: ")


def test_every_fault_of_a_record_is_told():
    told = refused({"prompt": "", "seed": "x"})
    assert all(field in told for field in ("prompt: ", "seed: ", "image_url: is missing"))


def test_unknown_fields_are_refused_kept_or_dropped():
    values = LEAST | {"sampler": "euler", "meta": {"cfg": 7}}
    assert refused(values) == "line 7: sampler: is not a field of an image"
    assert good(values, unknown="meta").meta == {"cfg": 7, "sampler": "euler"}
    assert good(LEAST | {"sampler": None}, unknown="meta").meta == {"sampler": None}
    assert good(values, unknown="ignore").meta == {"cfg": 7}
    assert refused(values | {"cfg": 8}, unknown="meta").startswith("line 7: meta.cfg: ")
    assert refused(LEAST | {"meta": 3, "x": 1}, unknown="meta").startswith("line 7: meta: ")


def test_a_header_is_checked_before_its_rows():
    assert columns(["prompt", "imageUrl", "seed"], "error") == ["prompt", "image_url", "seed"]
    assert columns(["prompt", "image_url", "cfg"], "meta") == ["prompt", "image_url", "cfg"]
    for header, reason in [
        (["prompt", "image_url", "cfg"], "no field 'cfg'"),
        (["prompt", "seed"], "does not name 'image_url'"),
        (["prompt", "image_url", "imageUrl"], "'image_url' more than once"),
        (["prompt", "image_url", ""], "Column 3 has no name"),
    ]:
        with pytest.raises(InputError, match=reason):
            columns(header, "error")


# ── Ids ──


def ids(recorder: Recorder, *records: dict[str, Any]) -> list[UUID]:
    made = [recorder.record(Found(f"line {number}", values)) for number, values in enumerate(records, 1)]
    assert all(isinstance(one, ImportedRecord) for one in made)
    return [one.image.id for one in made if isinstance(one, ImportedRecord) and isinstance(one.image.id, UUID)]


def test_an_id_stays_what_it_was_in_every_release():
    # Were it to change, every import would happen a second time.
    assert ids(Recorder("ada"), LEAST | {"meta": {"b": 1, "a": [2.5, None]}, "created_at": "2024-01-01"}) == [
        UUID("41b7924c-3f35-55b3-8765-4459aa8a395d")
    ]


def test_an_id_that_is_given_wins():
    own = "0190b5a0-0000-7000-8000-000000000001"
    assert ids(Recorder("ada"), LEAST | {"id": own}, LEAST | {"id": own}) == [UUID(own), UUID(own)]


def test_the_same_records_have_the_same_ids_again():
    records = [LEAST, LEAST | {"seed": 1}, LEAST, LEAST | {"seed": 2}, LEAST]
    first, again = ids(Recorder("ada"), *records), ids(Recorder("ada"), *records)
    assert first == again
    assert len(set(first)) == 5
    assert all(id_.version == 5 and id_.variant == "specified in RFC 4122" for id_ in first)


def test_equal_records_are_told_apart_by_their_order_alone():
    alone = ids(Recorder("ada"), LEAST, LEAST)
    among = ids(Recorder("ada"), LEAST | {"seed": 1}, LEAST, LEAST | {"seed": 2}, LEAST)
    assert alone == [among[1], among[3]]


def test_another_user_has_other_ids():
    assert ids(Recorder("ada"), LEAST) != ids(Recorder("grace"), LEAST)


def test_how_a_record_is_written_does_not_matter():
    one = {"prompt": "x", "imageUrl": "u", "createdAt": "2024-01-01T01:00:00+01:00", "meta": {"a": 1, "b": 2}}
    other = {"meta": {"b": 2, "a": 1}, "model": None, "created_at": "2024-01-01", "image_url": "u", "prompt": "x"}
    assert ids(Recorder("ada"), one) == ids(Recorder("ada"), other)


def test_content_stands_for_the_record_and_equal_content_is_one_image():
    recorder = Recorder("ada")
    made = [recorder.record(Found(origin, LEAST | {"model": origin}, content="png:1")) for origin in ("a", "b")]
    first, second = (one.image.id for one in made if isinstance(one, ImportedRecord))
    assert first == second


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
_fields = st.sampled_from(["prompt", "image_url", "imageUrl", "seed", "meta", "created_at", "id", "model", "other"])


@given(st.dictionaries(_fields | st.text(), _json), st.sampled_from(["error", "meta", "ignore"]))
def test_any_values_make_a_record_or_are_refused(values: dict[str, Any], unknown: Unknown):
    made = record(LEAST | values, unknown=unknown)
    assert isinstance(made, Refused) or isinstance(made.image.id, UUID)
