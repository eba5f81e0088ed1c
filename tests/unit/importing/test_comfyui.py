from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.importing.comfyui import Generation, parse
from gateway.importing.errors import RecordError

Graph = dict[str, dict[str, Any]]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


def default() -> Graph:
    """The graph that ComfyUI starts with."""
    return {
        "3": node(
            "KSampler",
            seed=156680208700286,
            steps=20,
            cfg=8,
            sampler_name="euler",
            scheduler="normal",
            denoise=1,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        ),
        "4": node("CheckpointLoaderSimple", ckpt_name="SD1.5/v1-5-pruned-emaonly.ckpt"),
        "5": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "6": node("CLIPTextEncode", text="beautiful scenery nature glass bottle landscape", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="text, watermark", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    }


def read(graph: Graph) -> Generation:
    return parse(json.dumps(graph))


def test_the_default_graph():
    assert read(default()) == Generation(
        prompt="beautiful scenery nature glass bottle landscape",
        negative_prompt="text, watermark",
        model="v1-5-pruned-emaonly",
        seed=156680208700286,
        steps=20,
        width=512,
        height=768,
        settings={
            "cfg": 8,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1,
            "checkpoint": "SD1.5/v1-5-pruned-emaonly.ckpt",
        },
    )


def test_the_checkpoint_is_found_past_every_lora():
    graph = default()
    graph["3"]["inputs"]["model"] = ["10", 0]
    graph["10"] = node(
        "LoraLoader", lora_name="detail.safetensors", strength_model=0.8, model=["11", 0], clip=["11", 1]
    )
    graph["11"] = node("LoraLoader", lora_name="style.safetensors", strength_model=1, model=["12", 0], clip=["4", 1])
    graph["12"] = node("ModelSamplingDiscrete", sampling="lcm", model=["4", 0])
    found = read(graph)
    assert found.model == "v1-5-pruned-emaonly"
    assert found.settings["loras"] == ["detail.safetensors", "style.safetensors"]


def test_a_checkpoint_on_windows_and_one_with_a_preview():
    graph = default()
    graph["4"]["inputs"]["ckpt_name"] = {"content": "illustrious\\wai_v160.safetensors", "image": "wai.png"}
    assert read(graph).model == "wai_v160"


def test_conditioning_is_followed_through_what_changes_it():
    graph = default()
    graph["3"]["inputs"] |= {"positive": ["20", 0], "negative": ["20", 1]}
    graph["20"] = node(
        "ControlNetApplyAdvanced",
        positive=["21", 0],
        negative=["7", 0],
        control_net=["22", 0],
        image=["23", 0],
    )
    graph["21"] = node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["24", 0])
    graph["24"] = node("ConditioningSetArea", width=64, height=64, conditioning=["25", 0])
    graph["25"] = node("CLIPTextEncode", text="a red door", clip=["4", 1])
    graph["22"] = node("ControlNetLoader", control_net_name="depth.pth")
    found = read(graph)
    assert found.prompt == "beautiful scenery nature glass bottle landscape\na red door"
    assert found.negative_prompt == "text, watermark"


def test_a_negative_that_is_zeroed_out_is_no_text():
    graph = default()
    graph["7"] = node("ConditioningZeroOut", conditioning=["6", 0])
    assert read(graph).negative_prompt == ""


def test_the_two_texts_of_sdxl_are_one_where_they_are_equal():
    graph = default()
    graph["6"] = node("CLIPTextEncodeSDXL", text_g="a whale", text_l="a whale", width=1024, clip=["4", 1])
    graph["7"] = node("CLIPTextEncodeSDXL", text_g="blurry", text_l="grain", width=1024, clip=["4", 1])
    found = read(graph)
    assert (found.prompt, found.negative_prompt) == ("a whale", "blurry\ngrain")


def test_the_texts_of_flux():
    graph = default()
    graph["6"] = node("FluxGuidance", guidance=3.5, conditioning=["30", 0])
    graph["30"] = node("CLIPTextEncodeFlux", clip_l="a whale", t5xxl="a whale at dusk", guidance=3.5, clip=["4", 1])
    assert read(graph).prompt == "a whale\na whale at dusk"


def test_texts_come_from_other_nodes():
    graph = default()
    graph["6"]["inputs"]["text"] = ["40", 0]
    graph["40"] = node("ShowText|pysssss", text=["41", 0], text_0="stale")
    graph["41"] = node("StringConcatenate", string_a=["42", 0], string_b="at night", delimiter=", ")
    graph["42"] = node("PrimitiveStringMultiline", value="a whale")
    graph["7"]["inputs"]["text"] = ["43", 1]
    graph["43"] = node("SDXLPromptStyler", text_positive="yes", text_negative="no", style="base")
    found = read(graph)
    assert (found.prompt, found.negative_prompt) == ("a whale, at night", "no")


def test_wildcards_are_as_they_were_filled_in():
    graph = default()
    graph["6"]["inputs"]["text"] = ["44", 0]
    graph["44"] = node("ImpactWildcardProcessor", wildcard_text="{a|b}", populated_text="a", mode=True)
    assert read(graph).prompt == "a"


def test_seed_and_steps_come_from_other_nodes():
    graph = default()
    graph["3"]["inputs"] |= {"seed": ["50", 0], "steps": ["51", 0]}
    graph["50"] = node("Seed (rgthree)", seed=42)
    graph["51"] = node("PrimitiveInt", value=31)
    found = read(graph)
    assert (found.seed, found.steps) == (42, 31)


def test_a_number_that_a_node_computes_is_not_guessed():
    graph = default()
    graph["3"]["inputs"]["steps"] = ["51", 0]
    graph["51"] = node("Multiply", a=["52", 0], b=["52", 0])
    graph["52"] = node("PrimitiveInt", value=5)
    assert read(graph).steps is None


def test_the_advanced_sampler_names_its_seed_otherwise():
    graph = default()
    inputs = graph["3"]["inputs"]
    inputs["noise_seed"] = inputs.pop("seed")
    graph["3"]["class_type"] = "KSamplerAdvanced"
    assert read(graph).seed == 156680208700286


def test_the_custom_sampler_is_put_together_from_parts():
    graph = default()
    graph["3"] = node(
        "SamplerCustomAdvanced",
        noise=["60", 0],
        guider=["61", 0],
        sampler=["62", 0],
        sigmas=["63", 0],
        latent_image=["5", 0],
    )
    graph["60"] = node("RandomNoise", noise_seed=7)
    graph["61"] = node("BasicGuider", model=["64", 0], conditioning=["65", 0])
    graph["62"] = node("KSamplerSelect", sampler_name="euler")
    graph["63"] = node("BasicScheduler", scheduler="simple", steps=4, denoise=1, model=["64", 0])
    graph["64"] = node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default")
    graph["65"] = node("FluxGuidance", guidance=3.5, conditioning=["6", 0])
    found = read(graph)
    assert (found.seed, found.steps, found.model) == (7, 4, "flux1-dev")
    assert found.prompt == "beautiful scenery nature glass bottle landscape"
    assert found.negative_prompt == ""
    assert (found.width, found.height) == (512, 768)
    assert found.settings["sampler_name"] == "euler"


def test_a_guider_with_both_sides():
    graph = default()
    graph["3"] = node("SamplerCustomAdvanced", noise=["60", 0], guider=["61", 0], latent_image=["5", 0])
    graph["60"] = node("RandomNoise", noise_seed=7)
    graph["61"] = node("CFGGuider", model=["4", 0], positive=["6", 0], negative=["7", 0], cfg=4)
    assert read(graph).negative_prompt == "text, watermark"


def test_loaders_that_hold_the_texts_themselves():
    graph = {
        "1": node(
            "Efficient Loader",
            ckpt_name="dream.safetensors",
            positive="a whale",
            negative=["3", 0],
            empty_latent_width=832,
            empty_latent_height=1216,
        ),
        "2": node(
            "KSampler (Efficient)",
            seed=1,
            steps=9,
            model=["1", 0],
            positive=["1", 1],
            negative=["1", 2],
            latent_image=["1", 3],
        ),
        "3": node("String Literal", string="blurry"),
    }
    # The loader's first output is its model, so the numbers of its outputs do not tell the side.
    found = read(graph)
    assert (found.prompt, found.negative_prompt) == ("a whale", "blurry")
    assert (found.model, found.width, found.height) == ("dream", 832, 1216)


def test_a_pipe_bundles_everything():
    graph = {
        "1": node("easy fullLoader", ckpt_name="dream.safetensors", positive="a whale", negative="blurry"),
        "2": node("easy preSampling", seed=3, steps=12, cfg=7, pipe=["1", 0]),
        "3": node("easy kSampler", pipe=["2", 0], image_output="Preview"),
    }
    found = read(graph)
    assert (found.prompt, found.negative_prompt, found.seed, found.steps) == ("a whale", "blurry", 3, 12)
    assert found.model == "dream"


def test_of_two_passes_the_first_counts():
    graph = default()
    second = node("KSampler", **graph["3"]["inputs"]) | {"class_type": "KSampler"}
    second["inputs"] |= {"seed": 2, "steps": 5, "denoise": 0.4, "latent_image": ["71", 0]}
    graph = {"1": second, **graph}
    graph["71"] = node("LatentUpscale", samples=["3", 0], width=1024, height=1536)
    graph["8"]["inputs"]["samples"] = ["1", 0]
    found = read(graph)
    assert (found.seed, found.steps, found.width) == (156680208700286, 20, 512)


def test_an_image_to_image_graph_has_the_size_of_its_source_scaled():
    graph = default()
    graph["5"] = node("VAEEncode", pixels=["80", 0], vae=["4", 2])
    graph["80"] = node("ImageScale", width=640, height=960, image=["81", 0])
    graph["81"] = node("LoadImage", image="in.png")
    found = read(graph)
    assert (found.width, found.height) == (640, 960)


def test_bare_nan_is_no_value():
    text = json.dumps(default() | {"10": node("LoadImages") | {"is_changed": [float("nan")]}})
    assert "NaN" in text
    assert parse(text).seed == 156680208700286
    graph = default()
    graph["3"]["inputs"] |= {"cfg": float("nan"), "denoise": float("inf")}
    found = read(graph)
    assert "cfg" not in found.settings
    assert "denoise" not in found.settings


def test_links_to_nowhere_are_no_values():
    graph = default()
    for missing in ("4", "5", "6", "7"):
        del graph[missing]
    found = read(graph)
    assert (found.prompt, found.negative_prompt, found.model, found.width) == ("", "", None, None)
    assert found.seed == 156680208700286


def test_cycles_end():
    graph = default()
    graph["4"] = node("LoraLoader", lora_name="x", model=["4", 0])
    graph["5"] = node("LatentUpscale", samples=["5", 0])
    graph["6"] = node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["7", 0])
    graph["7"] = node("CLIPTextEncode", text=["10", 0])
    graph["10"] = node("Reroute", value=["11", 0])
    graph["11"] = node("Reroute", value=["10", 0])
    found = read(graph)
    assert (found.prompt, found.model, found.width) == ("", None, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "3",
        "NaN",
        "{",
        '{"a": {}}',
        '{"a": 1, "b": {"inputs": []}}',
        "[" * 100000,
        '{"a":' * 100000,
        "9" * 10000,
        '{"1": {"inputs": {"seed": 1}}}',
    ],
)
def test_what_is_no_graph_with_a_sampler_is_refused(text: str):
    with pytest.raises(RecordError, match="ComfyUI prompt"):
        parse(text)


def combining(levels: int) -> Graph:
    """Every node combines the one before with itself: two to the power of ``levels`` ways."""
    graph = default()
    graph["3"]["inputs"]["positive"] = [f"c{levels}", 0]
    graph["c0"] = graph["6"]
    for level in range(1, levels + 1):
        link = [f"c{level - 1}", 0]
        graph[f"c{level}"] = node("ConditioningCombine", conditioning_1=link, conditioning_2=link)
    return graph


def doubling(levels: int) -> Graph:
    """Every text is the one before twice."""
    graph = default()
    graph["6"]["inputs"]["text"] = [f"t{levels}", 0]
    graph["t0"] = node("String", string="ab")
    for level in range(1, levels + 1):
        link = [f"t{level - 1}", 0]
        graph[f"t{level}"] = node("StringConcatenate", string_a=link, string_b=link)
    return graph


def slots(count: int) -> Graph:
    """A node with many links is asked for by each of many outputs."""
    graph = default()
    graph["6"] = node("Any", **{f"in{i}": ["hub", i] for i in range(count)})
    graph["hub"] = node("Any", **{f"in{i}": ["6", i] for i in range(count)})
    return graph


def samplers(count: int) -> Graph:
    """Every sampler is fed by the one before."""
    graph = default()
    for i in range(count):
        inputs = graph["3"]["inputs"] | {"latent_image": [f"s{i - 1}" if i else "5", 0]}
        graph[f"s{i}"] = node("KSampler", **inputs)
    return graph


def test_real_work_is_done_before_the_bound_is_met():
    assert read(combining(500)).prompt == "beautiful scenery nature glass bottle landscape"
    assert read(doubling(4)).prompt == " ".join(["ab"] * 16)
    assert read(samplers(50)).seed == 156680208700286


@pytest.mark.parametrize("graph", [combining(5_000), doubling(48), slots(3_000), samplers(5_000)])
def test_hostile_graphs_end_soon(graph: Graph):
    text = json.dumps(graph)
    begun = time.process_time()
    parse(text)
    assert time.process_time() - begun < 10


_names = st.sampled_from(["a", "b", "c", "d"])
_inputs = st.sampled_from(
    ["positive", "negative", "model", "latent_image", "seed", "steps", "text", "string_a", "string_b", "noise", "pipe"]
)
_values = (
    st.tuples(_names, st.integers(-1, 3)).map(list) | st.text(max_size=5) | st.integers() | st.floats() | st.none()
)
_nodes = st.fixed_dictionaries(
    {
        "class_type": st.sampled_from(["KSampler", "Any", "ConditioningZeroOut"]),
        "inputs": st.dictionaries(_inputs, _values),
    }
)


@given(st.dictionaries(_names, _nodes | st.integers()))
def test_any_graph_is_read_or_refused(graph: dict[str, Any]):
    graph["s"] = node("KSampler", seed=1, positive=["a", 0], negative=["b", 1], model=["c", 0], latent_image=["d", 0])
    found = parse(json.dumps(graph))
    json.dumps(found.settings, allow_nan=False)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_any_json_is_read_or_refused(document: Any):
    try:
        parse(json.dumps(document))
    except RecordError:
        pass
