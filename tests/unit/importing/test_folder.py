from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.importing.errors import InputError
from gateway.importing.folder import read_folder
from gateway.importing.found import Found, Refused
from gateway.importing.records import ImportedRecord, Recorder
from tests.unit.importing.pngs import png, text

PARAMETERS = "a whale\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, Seed: 5, Size: 4x2, Model: dream"
GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 9,
            "steps": 4,
            "cfg": 2.5,
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 256}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a dolphin"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": ""}},
}


def read(folder: Path, **options: Any) -> list[Found | Refused]:
    return list(read_folder(folder, **options))


def values(folder: Path, **options: Any) -> dict[str, Any]:
    (found,) = read(folder, **options)
    assert isinstance(found, Found), found
    # What is found is what can be saved.
    assert isinstance(Recorder("ada").record(found), ImportedRecord)
    return found.values


def told(folder: Path) -> str:
    (found,) = read(folder)
    assert isinstance(found, Refused)
    return str(found)


def test_a_picture_of_automatic1111(tmp_path: Path):
    path = tmp_path / "one.png"
    path.write_bytes(png(text("parameters", PARAMETERS)))
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert values(tmp_path) == {
        "prompt": "a whale",
        "negative_prompt": "blurry",
        "model": "dream",
        "seed": 5,
        "steps": 20,
        "width": 4,
        "height": 2,
        "source": "automatic1111",
        "meta": {"parameters": {"Sampler": "Euler a"}},
        "image_url": "one.png",
        "created_at": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
    }


@pytest.mark.parametrize("seconds", [-(10**14), 3 * 10**11])
def test_a_file_whose_time_is_none_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int):
    """Memory and some network disks keep such times; where the tests run there may be none."""
    (tmp_path / "one.png").write_bytes(png(text("parameters", PARAMETERS)))
    fstat = os.fstat
    monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result([*fstat(fd)[:7], seconds, seconds, seconds]))
    assert told(tmp_path) == "one.png: created_at: the file's time is not of the years 1 to 9999"


def test_a_picture_of_comfyui(tmp_path: Path):
    (tmp_path / "one.PNG").write_bytes(png(text("prompt", json.dumps(GRAPH)), text("workflow", "{}")))
    found = values(tmp_path)
    del found["created_at"]
    assert found == {
        "prompt": "a dolphin",
        "seed": 9,
        "steps": 4,
        "width": 4,
        "height": 2,
        "source": "comfyui",
        "meta": {"parameters": {"cfg": 2.5, "size": "512x256"}},
        "image_url": "one.PNG",
    }


def test_the_text_goes_before_the_graph_unless_it_has_no_prompt(tmp_path: Path):
    both = text("prompt", json.dumps(GRAPH)), text("parameters", PARAMETERS)
    (tmp_path / "one.png").write_bytes(png(*both))
    assert values(tmp_path)["prompt"] == "a whale"
    (tmp_path / "one.png").write_bytes(png(both[0], text("parameters", "Steps: 1, Seed: 2, Size: 3x4")))
    assert values(tmp_path)["prompt"] == "a dolphin"


def test_numbers_that_images_cannot_hold_stay_in_meta(tmp_path: Path):
    graph = GRAPH | {"3": GRAPH["3"] | {"inputs": GRAPH["3"]["inputs"] | {"seed": 2**64 - 1, "steps": 0}}}
    (tmp_path / "one.png").write_bytes(png(text("prompt", json.dumps(graph)), width=70_000, height=1))
    found = values(tmp_path)
    assert {"seed", "steps", "width"}.isdisjoint(found)
    assert found["meta"]["parameters"]["seed"] == "18446744073709551615"
    parameters = f"a whale\nSteps: many, Seed: {2**70}, Size: 4x2, Model: {'m' * 300}"
    (tmp_path / "one.png").write_bytes(png(text("parameters", parameters)))
    found = values(tmp_path)
    assert {"seed", "steps", "model"}.isdisjoint(found)
    assert found["meta"]["parameters"] == {"Steps": "many", "Seed": str(2**70), "Model": "m" * 300}


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([], "one.png: holds no generation parameters, neither Automatic1111's nor ComfyUI's"),
        ([text("Title", "x")], "one.png: holds no generation parameters, neither Automatic1111's nor ComfyUI's"),
        ([text("prompt", "a plain text")], "one.png: its ComfyUI prompt is not JSON"),
        ([text("prompt", "{}")], "one.png: its ComfyUI prompt has no sampler"),
        ([text("parameters", "")], "one.png: prompt: is empty in its generation parameters"),
        (
            [text("parameters", '{"sui_image_params": {}}')],
            "one.png: its parameters are those of a program that is not known here",
        ),
    ],
)
def test_a_picture_that_does_not_tell_what_it_was_made_from_is_told(tmp_path: Path, parts: list[bytes], reason: str):
    (tmp_path / "one.png").write_bytes(png(*parts))
    assert told(tmp_path) == reason


def test_files_are_read_in_the_order_of_their_paths_and_addressed_by_them(tmp_path: Path):
    for name in ("b.png", "a/z.png", "a/b c/ä#?.png", "c.txt", "a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(text("parameters", f"{name}\n{PARAMETERS}")))
    found = read(tmp_path, url_prefix="https://cdn.example/x/")
    assert [one.origin for one in found] == ["a/b c/ä#?.png", "a/z.png", "a.png", "b.png"]
    urls = [one.values["image_url"] for one in found if isinstance(one, Found)]
    assert urls[0] == "https://cdn.example/x/a/b%20c/%C3%A4%23%3F.png"
    assert urls[3] == "https://cdn.example/x/b.png"


def test_a_bad_file_does_not_end_the_folder(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"not a picture")
    (tmp_path / "b.png").write_bytes(png(text("parameters", PARAMETERS))[:-6])
    (tmp_path / "c.png").mkdir()
    (tmp_path / "d.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "e.png").write_bytes(png(text("parameters", PARAMETERS)))
    found = read(tmp_path)
    assert list(map(str, found[:3])) == ["a.png: is not a PNG file", "b.png: is cut short", "d.png: is not a file"]
    assert isinstance(found[3], Found)


def test_a_pipe_called_png_does_not_hold_up_the_import(tmp_path: Path):
    os.mkfifo(tmp_path / "a.png")
    assert told(tmp_path) == "a.png: is not a file"


def test_links_between_folders_are_not_followed(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert read(tmp_path) == []


def test_a_name_that_is_no_text_is_shown_and_addressed(tmp_path: Path):
    with Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).open("wb") as file:
        file.write(png(text("parameters", PARAMETERS)))
    (found,) = read(tmp_path)
    assert isinstance(found, Found)
    assert (found.origin, found.values["image_url"]) == ("\ufffd.png", "%FF.png")


def test_equal_files_are_one_image_whatever_they_are_called(tmp_path: Path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(text("parameters", PARAMETERS)))
    (tmp_path / "c.png").write_bytes(png(text("parameters", PARAMETERS)) + b"another")
    recorder = Recorder("ada")
    ids = [
        made.image.id
        for one in read(tmp_path)
        if isinstance(one, Found) and isinstance(made := recorder.record(one), ImportedRecord)
    ]
    assert ids[0] == ids[1] != ids[2]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be listed"):
        read(tmp_path / "nowhere")
