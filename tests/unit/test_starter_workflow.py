"""What prompt a workflow of the editor is."""

from __future__ import annotations

from typing import Any

import pytest

from tools.starter.checkout import StarterError
from tools.starter.workflow import to_prompt

# As `/object_info` of ComfyUI 0.3.75 gives them, without the parts that no conversion reads.
OBJECT_INFO: dict[str, Any] = {
    "CheckpointLoaderSimple": {
        "input": {"required": {"ckpt_name": [["a.safetensors", "b.safetensors"], {"tooltip": "The checkpoint."}]}},
        "input_order": {"required": ["ckpt_name"]},
        "display_name": "Load Checkpoint",
    },
    "CLIPTextEncode": {
        "input": {"required": {"text": ["STRING", {"multiline": True}], "clip": ["CLIP", {}]}},
        "input_order": {"required": ["text", "clip"]},
        "display_name": "CLIP Text Encode (Prompt)",
    },
    "LoraLoaderModelOnly": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "lora_name": [["x.safetensors"]],
                "strength_model": ["FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0}],
            }
        },
        "input_order": {"required": ["model", "lora_name", "strength_model"]},
    },
    "KSampler": {
        "input": {
            "required": {
                "model": ["MODEL", {}],
                "seed": ["INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}],
                "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
                "cfg": ["FLOAT", {"default": 8.0}],
                "sampler_name": [["euler", "heun"], {}],
                "scheduler": [["simple", "karras"], {}],
                "positive": ["CONDITIONING", {}],
                "negative": ["CONDITIONING", {}],
                "latent_image": ["LATENT", {}],
                "denoise": ["FLOAT", {"default": 1.0}],
            }
        },
        "input_order": {
            "required": [
                *("model", "seed", "steps", "cfg", "sampler_name", "scheduler"),
                *("positive", "negative", "latent_image", "denoise"),
            ]
        },
    },
    "EmptySD3LatentImage": {
        "input": {"required": {"width": ["INT", {"default": 1024}], "height": ["INT", {"default": 1024}]}},
        "input_order": {"required": ["width", "height"]},
    },
    "LoadImage": {
        "input": {"required": {"image": [["example.png"], {"image_upload": True}]}},
        "input_order": {"required": ["image"]},
    },
    "SD3LocalPrompt": {
        "input": {
            "required": {
                "positivePrompt": ["STRING", {"multiline": True, "default": ""}],
                "scheduler": ["COMBO", {"options": ["Default", "Euler"], "default": "Default"}],
                "count": ["INT", {"default": 1, "forceInput": True}],
            },
            "optional": {
                "negativePrompt": ["STRING", {"multiline": True, "default": ""}],
                "clipSkip": ["INT", {"default": 0}],
            },
        },
        "input_order": {
            "required": ["positivePrompt", "scheduler", "count"],
            "optional": ["negativePrompt", "clipSkip"],
        },
    },
}


def node(
    number: int, kind: str, values: Any = (), inputs: Any = (), outputs: Any = (), mode: int = 0
) -> dict[str, Any]:
    """A node as the editor saves it; `inputs` are (name, type, link), and with a fourth item the input of a widget."""
    slots = [
        {"name": name, "type": type_, "link": link, **({"widget": {"name": name}} if rest else {})}
        for name, type_, link, *rest in inputs
    ]
    return {
        "id": number,
        "type": kind,
        "pos": [10, 20],
        "size": [300, 100],
        "flags": {},
        "order": number,
        "mode": mode,
        "inputs": slots,
        "outputs": [{"name": kind_, "type": kind_, "links": links} for kind_, links in outputs],
        "properties": {"Node name for S&R": kind},
        "widgets_values": values if isinstance(values, dict) else list(values),
    }


def text_to_image(lora_mode: int = 0) -> dict[str, Any]:
    """Checkpoint -> LoRA -> KSampler, with a reroute in the conditioning and a note."""
    model_out = [("MODEL", [1]), ("CLIP", [3, 4]), ("VAE", [])]
    sampler_inputs = [("model", "MODEL", 2), ("positive", "CONDITIONING", 6), ("negative", "CONDITIONING", 7)]
    sampler_inputs += [("latent_image", "LATENT", 8), ("seed", "INT", None, "widget"), ("steps", "INT", 9, "widget")]
    return {
        "version": 0.4,
        "last_node_id": 9,
        "last_link_id": 9,
        "nodes": [
            node(1, "CheckpointLoaderSimple", ["b.safetensors"], outputs=model_out),
            node(
                2,
                "LoraLoaderModelOnly",
                ["x.safetensors", 0.5],
                [("model", "MODEL", 1)],
                [("MODEL", [2])],
                lora_mode,
            ),
            node(3, "CLIPTextEncode", ["a red cube"], [("clip", "CLIP", 3)], [("CONDITIONING", [5])]),
            node(4, "CLIPTextEncode", [""], [("clip", "CLIP", 4)], [("CONDITIONING", [7])]),
            node(5, "Reroute", [], [("", "*", 5)], [("CONDITIONING", [6])]),
            node(6, "EmptySD3LatentImage", [512, 768], outputs=[("LATENT", [8])]),
            node(7, "KSampler", [7, "randomize", 12, 4.5, "heun", "karras", 1], sampler_inputs, [("LATENT", [])]),
            node(8, "MarkdownNote", ["Read me"]),
            node(9, "PrimitiveNode", [30, "fixed"], outputs=[("INT", [9])]),
        ],
        "links": [
            [1, 1, 0, 2, 0, "MODEL"],
            [2, 2, 0, 7, 0, "MODEL"],
            [3, 1, 1, 3, 0, "CLIP"],
            [4, 1, 1, 4, 0, "CLIP"],
            [5, 3, 0, 5, 0, "*"],
            [6, 5, 0, 7, 1, "CONDITIONING"],
            [7, 4, 0, 7, 2, "CONDITIONING"],
            [8, 6, 0, 7, 3, "LATENT"],
            [9, 9, 0, 7, 5, "INT"],
        ],
        "groups": [],
        "config": {},
        "extra": {},
    }


def test_widgets_links_reroutes_primitives_and_notes() -> None:
    prompt = to_prompt(text_to_image(), OBJECT_INFO)
    assert list(prompt) == ["1", "2", "3", "4", "6", "7"]
    assert prompt["1"]["inputs"] == {"ckpt_name": "b.safetensors"}
    assert prompt["1"]["_meta"] == {"title": "Load Checkpoint"}
    assert prompt["3"]["inputs"] == {"text": "a red cube", "clip": ["1", 1]}
    assert prompt["7"] == {
        "class_type": "KSampler",
        "inputs": {
            "model": ["2", 0],
            "seed": 7,
            "steps": 30,
            "cfg": 4.5,
            "sampler_name": "heun",
            "scheduler": "karras",
            "positive": ["3", 0],
            "negative": ["4", 0],
            "latent_image": ["6", 0],
            "denoise": 1,
        },
        "_meta": {"title": "KSampler"},
    }


def test_the_other_form_of_links_gives_the_same() -> None:
    newer = text_to_image()
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    newer["links"] = [dict(zip(keys, link, strict=True)) for link in newer["links"]]
    assert to_prompt(newer, OBJECT_INFO) == to_prompt(text_to_image(), OBJECT_INFO)


def test_a_bypassed_node_passes_its_input_on() -> None:
    prompt = to_prompt(text_to_image(lora_mode=4), OBJECT_INFO)
    assert "2" not in prompt
    assert prompt["7"]["inputs"]["model"] == ["1", 0]


def test_a_muted_node_leaves_its_followers_without() -> None:
    prompt = to_prompt(text_to_image(lora_mode=2), OBJECT_INFO)
    assert "2" not in prompt
    assert "model" not in prompt["7"]["inputs"]


def test_missing_values_get_their_defaults_and_sockets_take_none() -> None:
    workflow = {"nodes": [node(1, "SD3LocalPrompt", ["a cat", "Euler"])], "links": []}
    inputs = to_prompt(workflow, OBJECT_INFO)["1"]["inputs"]
    assert inputs == {"positivePrompt": "a cat", "scheduler": "Euler", "negativePrompt": "", "clipSkip": 0}


def test_values_saved_by_name() -> None:
    workflow = {"nodes": [node(1, "SD3LocalPrompt", {"clipSkip": 2, "gone": 1})], "links": []}
    inputs = to_prompt(workflow, OBJECT_INFO)["1"]["inputs"]
    assert inputs == {"positivePrompt": "", "scheduler": "Default", "negativePrompt": "", "clipSkip": 2}


def test_the_upload_button_is_no_value() -> None:
    workflow = {"nodes": [node(1, "LoadImage", ["example.png", "image"])], "links": []}
    assert to_prompt(workflow, OBJECT_INFO)["1"]["inputs"] == {"image": "example.png"}


def test_a_prompt_that_is_called_like_an_editor_s_word_stays() -> None:
    workflow = {"nodes": [node(1, "SD3LocalPrompt", ["fixed", "Euler", "randomize", 1])], "links": []}
    inputs = to_prompt(workflow, OBJECT_INFO)["1"]["inputs"]
    assert (inputs["positivePrompt"], inputs["negativePrompt"], inputs["clipSkip"]) == ("fixed", "randomize", 1)


def test_an_unknown_node_is_named() -> None:
    with pytest.raises(StarterError, match="'NoSuchNode'"):
        to_prompt({"nodes": [node(1, "NoSuchNode")], "links": []}, OBJECT_INFO)


def test_a_ring_of_reroutes_is_refused() -> None:
    ring = [node(1, "Reroute", [], [("", "*", 2)]), node(2, "Reroute", [], [("", "*", 1)])]
    ring.append(node(3, "CLIPTextEncode", ["x"], [("clip", "CLIP", 1)]))
    with pytest.raises(StarterError, match="ring"):
        to_prompt({"nodes": ring, "links": [[1, 1, 0, 2, 0, "*"], [2, 2, 0, 1, 0, "*"]]}, OBJECT_INFO)


@pytest.mark.parametrize("workflow", [{}, {"nodes": [{"type": "x"}]}, {"nodes": [], "links": [[1]]}, {"nodes": 3}])
def test_what_is_no_workflow_is_refused(workflow: dict[str, Any]) -> None:
    with pytest.raises(StarterError, match="no workflow"):
        to_prompt(workflow, OBJECT_INFO)
