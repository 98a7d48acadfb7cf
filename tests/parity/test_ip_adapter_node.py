"""SD3 IP-Adapter inside ComfyUI: what it offers, what it hands on, what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.fields import specs
from sd3_local.pipelines.parse import parse_fields
from sd3_local.pipelines.request import ImageInference, IPAdapter

from tests.checkpoints import write_hollow
from tests.ip_adapters import EMBED, make_adapter, make_vision, published_adapter, write_adapter, write_vision

VALUES = {
    **{"weight": 0.8, "combineMethod": "concat", "embedScaling": "kv", "weightType": "normal"},
    "weightComposition": -1.0,
}


@pytest.fixture(scope="module")
def models(comfy) -> Iterator[Path]:
    """ComfyUI's model folder, with adapters and image encoders."""
    import folder_paths

    root = Path(folder_paths.models_dir)
    for folder in ("ipadapter", "clip_vision"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    write_adapter(root / "ipadapter" / "tiny.bin", make_adapter(2, 128))
    write_adapter(root / "ipadapter" / "other.bin", make_adapter(2, 128, seed=4))
    write_hollow(root / "ipadapter" / "large.safetensors", published_adapter())
    (root / "ipadapter" / "text.safetensors").write_text("I am an IP-Adapter.")
    write_vision(root / "clip_vision" / "tiny.safetensors", make_vision())
    (root / "clip_vision" / "text.safetensors").write_text("I am an encoder.")
    yield root
    shutil.rmtree(root / "ipadapter")
    shutil.rmtree(root / "clip_vision")


@pytest.fixture
def node(models: Path) -> Any:
    from sd3_local.nodes.ip_adapter import SD3LocalIPAdapter

    return SD3LocalIPAdapter


def spec_of(
    node: Any, model: str = "tiny.bin", encoder: str = "tiny.safetensors", pictures: int = 1, **more: Any
) -> Any:
    guides = torch.arange(pictures).float()[:, None, None, None].expand(-1, 32, 48, 3) / 10
    return node.execute(model=model, guideImages=guides, encoder=encoder, **{**VALUES, **more}).result[0]


def test_every_option_is_an_input_with_name_and_tooltip(node: Any) -> None:
    inputs = {item.id: item for item in node.define_schema().inputs}
    assert set(inputs) == {*specs(IPAdapter), "encoder", "clipVision", "ipAdapters"}
    assert all(item.display_name and item.tooltip for item in inputs.values())
    for name, field in specs(IPAdapter).items():
        if name not in ("model", "guideImages"):
            assert field.description in inputs[name].tooltip
    assert all(kind in inputs["weightType"].tooltip for kind in ("ease_in", "strong_style_transfer", "Experimental"))
    assert inputs["clipVision"].optional and inputs["ipAdapters"].optional


def test_it_offers_the_folders_and_what_comes_with_the_pack(node: Any) -> None:
    inputs = {item.id: item for item in node.define_schema().inputs}
    assert inputs["model"].options == [
        "large.safetensors",
        "other.bin",
        "text.safetensors",
        "tiny.bin",
        "nano-reference",
    ]
    assert inputs["encoder"].options == ["auto", "text.safetensors", "tiny.safetensors", "nano-vision"]
    assert inputs["encoder"].default == "auto"


def test_a_batch_is_as_many_guide_images(node: Any) -> None:
    spec = spec_of(node, pictures=3)
    (item,) = spec.fields["ipAdapters"]
    assert len(item["guideImages"]) == 3 and "weightComposition" not in item
    for index, name in enumerate(item["guideImages"]):
        picture = spec.materials.pictures[name]
        assert picture.shape == (1, 32, 48, 3)
        assert picture.flatten()[0] == pytest.approx(index / 10)
    file = spec.materials.ip_adapters[item["model"]]
    assert (file.name, file.encoder.name, file.reading_seconds) == ("tiny.bin", "tiny.safetensors", 0)
    assert parse_fields(ImageInference, {"ipAdapters": list(spec.fields["ipAdapters"])})


def test_the_encoder_is_found_by_what_the_adapter_takes(node: Any) -> None:
    (file,) = spec_of(node, encoder="auto").materials.ip_adapters.values()
    assert file.encoder.width == EMBED
    with pytest.raises(RequestError, match=r"width 1152, such as sigclip_vision_patch14_384") as caught:
        spec_of(node, model="large.safetensors", encoder="auto")
    assert caught.value.faults[0].parameter == "ipAdapters[0].encoder"


def test_nodes_in_a_chain_add_up_and_keep_their_own_encoders(node: Any, comfy: Any, tmp_path: Path) -> None:
    from types import SimpleNamespace

    siglip = {"vision_model.embeddings.position_embedding.weight": torch.zeros(16, EMBED)}
    clip_vision = SimpleNamespace(get_sd=lambda: siglip)
    first = spec_of(node)
    second = spec_of(node, weight=-1.0, ipAdapters=first)
    third = spec_of(node, encoder="text.safetensors", clipVision=clip_vision, ipAdapters=second)
    assert [item["weight"] for item in third.fields["ipAdapters"]] == [0.8, -1.0, 0.8]
    # One file with one encoder is opened once; with another encoder it is another adapter.
    assert [item["model"] for item in third.fields["ipAdapters"]] == ["tiny.bin", "tiny.bin", "tiny.bin (2)"]
    encoders = [each.encoder.name for each in third.materials.ip_adapters.values()]
    assert encoders == ["tiny.safetensors", f"CLIP_VISION of width {EMBED}"]
    assert len(third.materials.pictures) == 3


def test_another_weight_reads_no_file_again(node: Any) -> None:
    for encoder in ("tiny.safetensors", "auto"):
        first, second = (
            spec_of(node, encoder=encoder, weight=weight).materials.ip_adapters["tiny.bin"] for weight in (0.5, 0.6)
        )
        assert first is second


@pytest.mark.parametrize(
    ("values", "parameter", "words"),
    [
        ({"model": "text.safetensors"}, "ipAdapters[0].model", "not a safetensors file"),
        ({"model": "../../etc/passwd"}, "ipAdapters[0].model", "has no"),
        ({"encoder": "text.safetensors"}, "ipAdapters[0].encoder", "not a safetensors file"),
        ({"encoder": "none.safetensors"}, "ipAdapters[0].encoder", "has no"),
        ({"model": "large.safetensors"}, "ipAdapters[0].encoder", "gives tokens of 144 features"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_place(node: Any, values: Any, parameter: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        spec_of(node, **values)
    assert [fault.parameter for fault in caught.value.faults] == [parameter]


def test_a_replaced_file_is_read_anew(node: Any, models: Path) -> None:
    given = {"model": "tiny.bin", "encoder": "tiny.safetensors"}
    before = node.fingerprint_inputs(**given)
    assert before == node.fingerprint_inputs(**given, weight=3.0)
    write_adapter(models / "ipadapter" / "tiny.bin", make_adapter(3, 128))
    assert node.fingerprint_inputs(**given) != before
    (file,) = spec_of(node).materials.ip_adapters.values()
    assert file.shape.blocks == 3


def test_the_pack_s_own_adapter_runs_from_node_to_report(node: Any) -> None:
    from sd3_local.nodes.model import SD3LocalModel
    from sd3_local.nodes.prompt import SD3LocalPrompt
    from sd3_local.nodes.sampler import SD3LocalSampler

    files = dict.fromkeys(("vae", "textEncoder1", "textEncoder2", "textEncoder3"), "from model")
    model = SD3LocalModel.execute(model="sd3-nano", dtype="auto", **files).result[0]
    prompt = SD3LocalPrompt.execute(positivePrompt="a picture", negativePrompt="", clipSkip=-1).result[0]
    given = {"width": 64, "height": 64, "seed": 1, "steps": 2, "scheduler": "Default", "CFGScale": 5.0}
    ran = SD3LocalSampler.execute(
        model=model,
        prompt=prompt,
        numberResults=1,
        ipAdapters=spec_of(node, model="nano-reference", encoder="auto", pictures=2),
        **given,
    )
    assert "IP-Adapter nano-reference.safetensors: weight 0.8" in ran.result[3]
    assert "2 guide images by concat" in ran.result[3]
    (account,) = ran.result[2].report.accounts
    assert (account.data["encoder"], account.data["steps"]) == ("nano-vision.safetensors", [0, 1])
    with pytest.raises(RequestError, match=r"width 128 with 2 blocks, but .* has a width of 128 and 8 blocks"):
        SD3LocalSampler.execute(
            model=model, prompt=prompt, numberResults=1, ipAdapters=spec_of(node, model="other.bin"), **given
        )
