from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.importing.automatic1111 import Parameters, parse

SETTINGS = (
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x768, Model hash: 45dee52b, Model: dream"
)


def test_the_example_of_the_web_ui():
    found = parse(
        "girl with an artist's beret, determined, ((eyeshadow)), (coquettish), detailed, intricate\n"
        "Negative prompt: ugly, fat, (((deformed))), [blurry], (poorly drawn hands), messy drawing\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b"
    )
    assert found == Parameters(
        "girl with an artist's beret, determined, ((eyeshadow)), (coquettish), detailed, intricate",
        "ugly, fat, (((deformed))), [blurry], (poorly drawn hands), messy drawing",
        {
            "Steps": "20",
            "Sampler": "Euler a",
            "CFG scale": "7",
            "Seed": "965400086",
            "Size": "512x512",
            "Model hash": "45dee52b",
        },
    )


def test_prompts_go_over_several_lines():
    found = parse(f"a\n\nb\r\nNegative prompt: c\nd\n{SETTINGS}")
    assert (found.prompt, found.negative_prompt) == ("a\n\nb", "c\nd")
    assert found.settings["Model"] == "dream"


def test_without_a_negative_prompt_there_is_none():
    assert parse(f"a cat\n{SETTINGS}").negative_prompt == ""


def test_without_a_prompt_there_is_a_negative_one_all_the_same():
    found = parse(f"Negative prompt: blurry\n{SETTINGS}")
    assert (found.prompt, found.negative_prompt) == ("", "blurry")


def test_a_prompt_may_speak_of_steps_and_negative_prompts():
    prompt = "Steps: 3, Seed: 4, Size: 1x1, a stair\nof ten Steps: up, a sign that says Negative prompt: no"
    found = parse(f"{prompt}\nNegative prompt: Steps: 9, Seed: 8, Model: 7\n{SETTINGS}")
    assert found.prompt == prompt
    assert found.negative_prompt == "Steps: 9, Seed: 8, Model: 7"
    assert found.settings["Steps"] == "20"


def test_a_last_line_with_fewer_than_three_settings_is_part_of_the_prompt():
    assert parse("a cat\nratio: 3, time: noon") == Parameters("a cat\nratio: 3, time: noon", "", {})
    assert parse("only a prompt") == Parameters("only a prompt", "", {})
    assert parse("") == Parameters("", "", {})


def test_quoted_values_hold_commas_colons_and_quotes():
    hashes = "detail: 7a, style: 9f"
    adetailer = 'a face, "smiling", looking\nup: left\\right'
    line = f"{SETTINGS}, Lora hashes: {json.dumps(hashes)}, ADetailer prompt: {json.dumps(adetailer)}, Version: v1.6.0"
    settings = parse(f"a cat\n{line}").settings
    assert settings["Lora hashes"] == hashes
    assert settings["ADetailer prompt"] == adetailer
    assert settings["Version"] == "v1.6.0"


def test_a_quote_that_is_not_closed_ends_at_the_comma():
    settings = parse(f'a cat\n{SETTINGS}, Note: "half, Version: 2').settings
    assert settings["Note"] == '"half'
    assert settings["Version"] == "2"


def test_names_have_spaces_slashes_and_dashes():
    settings = parse(f"a cat\n{SETTINGS}, Hires upscale: 2, img2img/depth-map mode: x").settings
    assert settings["Hires upscale"] == "2"
    assert settings["img2img/depth-map mode"] == "x"


def test_a_setting_without_a_value_is_none():
    assert "Empty" not in parse(f"a cat\n{SETTINGS}, Empty: , Other: 1").settings


def quoted(value: str) -> str:
    """As the web UI writes a value."""
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ",\n:") else value


# Lines as people type them: the web UI keeps no blanks around a line, and a line's beginning may end the prompt.
_line = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Zs"]) | st.just(" "), max_size=60)
_prompt = st.lists(_line.map(str.strip).filter(lambda line: not line.startswith("Negative prompt:")), max_size=4).map(
    lambda lines: "\n".join(lines).strip("\n")
)
_value = st.text(st.characters(codec="utf-8", exclude_characters='"'), min_size=1, max_size=40).filter(
    lambda value: value == value.strip()
)


@given(
    _prompt.filter(bool),
    _prompt,
    st.dictionaries(st.from_regex(r"[A-Z][a-z]{2,9}( [a-z]{2,9})?", fullmatch=True), _value),
)
def test_what_the_web_ui_writes_comes_back(prompt: str, negative: str, extra: dict[str, str]):
    settings = {"Steps": "20", "Seed": "5", "Size": "8x8"} | extra
    line = ", ".join(f"{name}: {quoted(value)}" for name, value in settings.items())
    written = prompt + (f"\nNegative prompt: {negative}" if negative else "") + f"\n{line}"
    if "\r" in "".join(extra.values()):
        return  # a line of its own to the web UI as well
    assert parse(written) == Parameters(prompt, negative, settings)


@given(st.text(max_size=300) | st.text(alphabet='ab:, "\\\n-/', max_size=300))
def test_any_text_is_parsed(text: str):
    found = parse(text)
    assert all(name and value for name, value in found.settings.items())


@pytest.mark.parametrize(
    "hostile",
    [
        "a" * 2_000_000,
        "a " * 1_000_000 + ":",
        "aa: " * 500_000,
        'aa:"' * 500_000,
        ":" * 1_000_000,
        ("x" * 199 + ":") * 10000,
        'aa:"' + "\\\\" * 1_000_000,
        "aa:" + " " * 2_000_000,
        "Negative prompt:\n" * 100_000,
    ],
)
def test_hostile_texts_take_no_more_time_than_their_length_asks_for(hostile: str):
    begun = time.process_time()  # whatever else the machine is doing
    parse(hostile + "\n" + hostile)
    assert time.process_time() - begun < 10
