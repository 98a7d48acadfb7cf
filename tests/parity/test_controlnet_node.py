"""SD3LocalControlNet inside ComfyUI: what it offers, what it says, and sd3-nano led by nano-edges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sd3_local.pipelines.errors import RequestError

from tests.checkpoints import TransformerSpec, write_checkpoint
from tests.controlnets import make_net, write_net
from tests.engines import open_model, request

VALUES = {
    "weight": 1.0,
    "controlMode": "balanced",
    "startStep": -1,
    "endStep": -1,
    "startStepPercentage": -1,
    "endStepPercentage": -1,
}
NANO = Path(__file__).resolve().parents[2] / "assets" / "nano" / "sd3-nano.safetensors"


@pytest.fixture(scope="module")
def node(comfy: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    import folder_paths

    folder = tmp_path_factory.mktemp("controlnets")
    (folder / "SD3-Canny").mkdir()
    write_net(folder / "SD3-Canny" / "diffusion_pytorch_model.safetensors", make_net(1, width=128))
    write_checkpoint(folder / "model.safetensors", TransformerSpec())
    folder_paths.add_model_folder_path("controlnet", str(folder))
    from sd3_local.nodes.controlnet import SD3LocalControlNet

    return SD3LocalControlNet


def execute(node: Any, **inputs: Any) -> Any:
    return node.execute(**{"model": "nano-edges", "guideImage": torch.zeros(1, 96, 96, 3), **VALUES, **inputs}).result[
        0
    ]


def test_files_of_the_folder_and_the_pack_s_own_net_are_offered(node: Any) -> None:
    schema = node.define_schema()
    offered = schema.inputs[0].options
    assert offered[-1] == "nano-edges"
    assert {"SD3-Canny/diffusion_pytorch_model.safetensors", "model.safetensors"} <= set(offered)
    names = ["model", "guideImage", *VALUES, "controlNet"]
    assert [each.id for each in schema.inputs] == names
    page = (NANO.parents[2] / "web" / "docs" / "SD3LocalControlNet.md").read_text(encoding="utf-8")
    assert all(f"**{name}**" in page for name in names)
    assert all(each.tooltip and each.display_name for each in schema.inputs)


def test_chained_nodes_add_up(node: Any) -> None:
    first = execute(node, weight=-1.0, startStepPercentage=20)
    canny = "SD3-Canny/diffusion_pytorch_model.safetensors"
    both = execute(node, model=canny, guideImage=torch.ones(1, 64, 64, 3), controlNet=first, endStep=5)
    one, other = both.fields["controlNet"]
    assert set(both.materials.control_nets) == {"nano-edges", canny}
    assert both.materials.pictures[one.pop("guideImage")].sum() == 0
    assert both.materials.pictures[other.pop("guideImage")].min() == 1
    assert one == {"model": "nano-edges", "weight": -1.0, "controlMode": "balanced", "startStepPercentage": 20}
    assert other == {"model": canny, "weight": 1.0, "controlMode": "balanced", "endStep": 5}
    assert len(first.fields["controlNet"]) == 1


def test_another_weight_opens_no_file_again(node: Any) -> None:
    opened = [execute(node, weight=weight).materials.control_nets["nano-edges"] for weight in (0.5, 0.6)]
    assert opened[0] is opened[1]


def test_wrong_files_are_told_with_their_place_in_the_chain(node: Any) -> None:
    for name, told in (("model.safetensors", "holds an SD3 transformer"), ("../secret", "has no '../secret'")):
        with pytest.raises(RequestError, match=told) as caught:
            execute(node, model=name, controlNet=execute(node))
        assert [fault.parameter for fault in caught.value.faults] == ["controlNet[1].model"]


def test_nano_follows_the_outline(node: Any) -> None:
    """The outline lies in a corner, where the prompt alone puts nothing: with the net, the subject is there."""
    from sd3_local.pipelines.generate import generate
    from sd3_local.pipelines.materials import Materials
    from sd3_local.pipelines.monitor import Unwatched

    from tools.nano.drawings import draw_edges
    from tools.nano.world import Scene, draw_mask

    scene = Scene("circle", "red", "blue", "", x=-0.3, y=0.3, radius=0.4)
    hint = draw_edges(scene, 128, 128).movedim(0, -1)[None]
    spec = execute(node, guideImage=hint)
    model = open_model(NANO)
    fields = {"width": 128, "height": 128, "positivePrompt": "a red circle, blue background", "CFGScale": 5.0}
    led = generate(request(**fields, **spec.fields), model, Unwatched(), spec.materials)
    free = generate(request(**fields), model, Unwatched(), Materials())
    wanted = torch.as_tensor(draw_mask(scene, 128, 128)).reshape(128, 128) > 0.5

    def overlap(pixels: torch.Tensor) -> float:
        red = pixels[..., 0] > pixels[..., 2]
        return ((red & wanted).sum() / (red | wanted).sum()).item()

    assert overlap(led.pictures[0].pixels) > 0.7 > overlap(free.pictures[0].pixels)
    account = led.report.accounts[0]
    assert account.data["steps"] == list(range(12)) and account.data["warnings"] == []
