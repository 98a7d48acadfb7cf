"""SD3 LoRA inside ComfyUI: what it offers, how it chains, what it takes from other packs' stacks, what it refuses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.fields import specs
from sd3_local.pipelines.request import Lora

from tests.loras import write_lora

PAIR = {
    "transformer.context_embedder.lora_B.weight": torch.zeros(128, 4),
    "transformer.context_embedder.lora_A.weight": torch.zeros(4, 128),
}
VALUES = {"weight": 0.8, "transformer": "both"}


@pytest.fixture(scope="module")
def loras(comfy) -> Iterator[Path]:
    """ComfyUI's folder of LoRAs, with some in it."""
    import folder_paths

    root = Path(folder_paths.get_folder_paths("loras")[0])
    (root / "style").mkdir(parents=True, exist_ok=True)
    write_lora(root / "one.safetensors", PAIR)
    write_lora(root / "style" / "two.safetensors", PAIR)
    (root / "text.safetensors").write_text("I am a LoRA.")
    yield root
    shutil.rmtree(root)


@pytest.fixture
def node(loras: Path) -> Any:
    from sd3_local.nodes.lora import SD3LocalLora

    return SD3LocalLora


def spec_of(node: Any, model: str = "one.safetensors", **more: Any) -> Any:
    return node.execute(**{"model": model, **VALUES, **more}).result[0]


def named(spec: Any) -> list[tuple[str, float]]:
    return [(item["model"], item["weight"]) for item in spec.fields["lora"]]


def test_every_option_is_an_input_with_name_and_tooltip(node: Any) -> None:
    inputs = {item.id: item for item in node.define_schema().inputs}
    assert set(inputs) == {*specs(Lora), "lora", "loraStack"}
    assert all(item.display_name and item.tooltip for item in inputs.values())
    assert "first half" in inputs["transformer"].tooltip and "text encoders" in inputs["transformer"].tooltip
    assert inputs["lora"].optional and inputs["loraStack"].optional
    assert inputs["loraStack"].io_type == "LORA_STACK"


def test_it_offers_the_folder_and_what_comes_with_the_pack(node: Any) -> None:
    offered = next(item.options for item in node.define_schema().inputs if item.id == "model")
    assert {"one.safetensors", "text.safetensors", "nano-stripes", "none"} <= set(offered)
    assert spec_of(node, "nano-stripes").materials.loras["nano-stripes"].name == "nano-stripes.safetensors"


def test_a_chain_keeps_its_order_and_one_file_its_name(node: Any) -> None:
    first = spec_of(node, weight=0.5, transformer="high")
    spec = spec_of(node, "nano-stripes", lora=spec_of(node, weight=-1.0, lora=first))
    assert named(spec) == [("one.safetensors", 0.5), ("one.safetensors", -1.0), ("nano-stripes", 0.8)]
    assert set(spec.materials.loras) == {"one.safetensors", "nano-stripes"}
    assert [item["transformer"] for item in spec.fields["lora"]] == ["high", "both", "both"]


def test_a_stack_comes_between_the_chain_and_the_node_s_own(node: Any, loras: Path) -> None:
    nested = f"style{os.sep}two.safetensors"
    stack = [
        ("one.safetensors", 0.5, 0.5),
        ("None", 1.0, 1.0),
        (nested.replace(os.sep, "\\"), 1, 0.25),
        [str(loras / "style" / "two.safetensors"), 2.0, 2],
    ]
    spec = spec_of(node, "nano-stripes", lora=spec_of(node), loraStack=stack)
    assert named(spec) == [
        ("one.safetensors", 0.8),
        ("one.safetensors", 0.5),
        (nested, 1.0),
        (f"{nested} (3)", 2.0),
        ("nano-stripes", 0.8),
    ]
    assert [spec.materials.loras[name].text_weight for name, _ in named(spec)] == [None, None, 0.25, None, None]
    assert named(spec_of(node, "none", loraStack=stack[:1])) == [("one.safetensors", 0.5)]
    assert spec_of(node, "none").fields == {}


@pytest.mark.parametrize(
    "stack",
    [
        [("one.safetensors", 1.0)],
        ["one.safetensors"],
        "one.safetensors",
        [("one.safetensors", "1", 1.0)],
        [("one.safetensors", float("nan"), 1.0)],
        [(torch.zeros(1), 1.0, 1.0)],
    ],
)
def test_a_stack_of_another_form_is_refused(node: Any, stack: Any) -> None:
    with pytest.raises(RequestError, match=r"loraStack\[0\].*file name, a weight for the model and one") as refusal:
        spec_of(node, loraStack=stack)
    assert [fault.code for fault in refusal.value.faults] == ["invalidLoraStack"]


@pytest.mark.parametrize("name", ["../one.safetensors", "/etc/passwd", "three.safetensors", 5, "text.safetensors"])
def test_a_wrong_file_names_its_place_in_the_request(node: Any, name: Any) -> None:
    with pytest.raises(RequestError) as refusal:
        spec_of(node, name, lora=spec_of(node))
    assert [fault.parameter for fault in refusal.value.faults] == ["lora[1].model"]
    if isinstance(name, str):
        with pytest.raises(RequestError) as refusal:
            spec_of(node, "none", loraStack=[("one.safetensors", 1.0, 1.0), (name, 1.0, 1.0)])
        assert [fault.parameter for fault in refusal.value.faults] == ["lora[1].model"]


def test_a_replaced_file_is_read_anew(node: Any, loras: Path) -> None:
    before = node.fingerprint_inputs(model="one.safetensors", **VALUES)
    write_lora(loras / "one.safetensors", {**PAIR, "transformer.context_embedder.alpha": torch.tensor(1.0)})
    assert node.fingerprint_inputs(model="one.safetensors", **VALUES) != before
    assert node.fingerprint_inputs(model="none", **VALUES) is None


def test_a_folder_that_goes_while_comfyui_runs_takes_only_its_own_files_along(node: Any, loras: Path) -> None:
    """ComfyUI's own list of the folder is an error from then on."""

    def offered() -> set[str]:
        (model,) = (item for item in node.define_schema().inputs if item.id == "model")
        return set(model.options)

    (loras / "gone").mkdir()
    write_lora(loras / "gone" / "three.safetensors", PAIR)
    three = os.path.join("gone", "three.safetensors")
    before = offered()
    assert three in before
    shutil.rmtree(loras / "gone")
    assert offered() == before - {three}
    with pytest.raises(RequestError, match="three"):
        spec_of(node, three)
