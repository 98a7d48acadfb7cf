"""Bad pictures, files and values of features in real graphs: one clear error each before anything is sampled, and the
next good run is right.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image

from tests.checkpoints import TransformerSpec, VAESpec, write_checkpoint
from tests.comfy_host import ComfyHost, Listener
from tests.controlnets import make_net, write_net
from tests.graphs import Prompt, text_to_image, with_seed_image
from tests.loras import FORMS, factors, layers, write_lora


class Boom:
    def __init__(self, trace: str):
        self.trace = trace

    def __reduce__(self):
        return (open, (self.trace, "w"))


@pytest.fixture(scope="module")
def files(host: ComfyHost) -> Iterator[ComfyHost]:
    """Bad files in the folders of features, as long as these tests run, and pictures of odd sizes."""
    for size in ((128, 128), (1, 1), (40, 90)):
        Image.new("RGB", size, "red").save(host.input / f"{size[0]}x{size[1]}.png")
    Image.new("RGBA", (40, 90), (255, 0, 0, 0)).save(host.input / "mask-40x90.png")
    folders = {name: host.models / name for name in ("loras", "controlnet", "ipadapter", "ultralytics/bbox")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    others = {path for folder in folders.values() for path in folder.iterdir()}
    for folder in folders.values():
        (folder / "text.safetensors").write_text("I am a model.")
    wide = layers(192, 3, 4096)
    write_lora(folders["loras"] / "wide.safetensors", FORMS["kohya"](wide, factors(wide)))
    write_checkpoint(folders["loras"] / "vae.safetensors", VAESpec())
    write_net(folders["controlnet"] / "wide.safetensors", make_net(1, width=256))
    write_checkpoint(folders["controlnet"] / "model.safetensors", TransformerSpec())
    (folders["loras"] / "code.pt").write_bytes(pickle.dumps(Boom(str(host.base / "it-ran"))))
    (folders["ultralytics/bbox"] / "text.pt").write_text("I am a detector.")
    (folders["ultralytics/bbox"] / "code.pt").write_bytes(pickle.dumps(Boom(str(host.base / "it-ran"))))
    yield host
    # Other tests of this host let a model be chosen from what there is.
    for path in {path for folder in folders.values() for path in folder.iterdir()} - others:
        path.unlink()


def seeded(picture: str = "128x128.png", masked: bool = False, **inputs: Any) -> Prompt:
    return with_seed_image(text_to_image(), picture, masked=masked, **inputs)


def another_mask() -> Prompt:
    graph = seeded()
    graph["20"] = {"class_type": "LoadImageMask", "inputs": {"image": "mask-40x90.png", "channel": "alpha"}}
    graph["11"]["inputs"]["maskImage"] = ["20", 0]
    return graph


def outpainted(**sides: int) -> Prompt:
    graph = seeded()
    sides = {"top": 0, "right": 0, "bottom": 0, "left": 0, **sides}
    graph["20"] = {"class_type": "SD3LocalOutpaint", "inputs": sides}
    graph["3"]["inputs"]["outpaint"] = ["20", 0]
    return graph


def featured(kind: str, socket: str, **inputs: Any) -> Prompt:
    graph = text_to_image()
    graph["20"] = {"class_type": kind, "inputs": inputs}
    graph["3"]["inputs"][socket] = ["20", 0]
    return graph


def lora(model: str, **inputs: Any) -> Prompt:
    return featured("SD3LocalLora", "lora", **{"model": model, "weight": 1.0, "transformer": "both", **inputs})


def control_net(model: str = "nano-edges", picture: str = "128x128.png", **inputs: Any) -> Prompt:
    window = dict.fromkeys(("startStep", "endStep", "startStepPercentage", "endStepPercentage"), -1)
    given = {"model": model, "guideImage": ["21", 0], "weight": 1.0, "controlMode": "balanced", **window, **inputs}
    graph = featured("SD3LocalControlNet", "controlNet", **given)
    graph["21"] = {"class_type": "LoadImage", "inputs": {"image": picture}}
    return graph


def ip_adapter(model: str = "nano-reference", picture: str = "128x128.png", **inputs: Any) -> Prompt:
    given = {
        **{"model": model, "guideImages": ["21", 0], "encoder": "auto", "weight": 1.0, "combineMethod": "concat"},
        **{"embedScaling": "kv", "weightType": "normal", "weightComposition": -1.0, **inputs},
    }
    graph = featured("SD3LocalIPAdapter", "ipAdapters", **given)
    graph["21"] = {"class_type": "LoadImage", "inputs": {"image": picture}}
    return graph


def face_fix(detector: str, **inputs: Any) -> Prompt:
    values = {"positivePrompt": "", "negativePrompt": "", "steps": 20, "CFGScale": 8.0, "strength": 0.3}
    values |= {"confidence": 0.9, "maskPadding": 5, "maskBlur": 5, "detector": detector}
    return featured("SD3LocalFaceFix", "ultralytics", **{**values, **inputs})


CASES: dict[str, tuple[Callable[[], Prompt], tuple[str, ...]]] = {
    "seed image of 1 x 1": (lambda: seeded("1x1.png"), ("inputs.seedImage", "1 x 1 pixels", "at least 16")),
    "mask of another size": (another_mask, ("inputs.maskImage", "40 x 90", "128 x 128")),
    "margin too small": (lambda: seeded(maskMargin=5), ("maskMargin is 5", "32 to 128")),
    "strength above 1": (lambda: seeded(strength=1.5), ("1.5",)),
    "outpaint of another size": (lambda: outpainted(left=32), ("width is 128", "set width to 160")),
    "outpaint of nothing": (outpainted, ("outpaint extends no side",)),
    "LoRA for another model": (lambda: lora("wide.safetensors"), ("lora[0].model", "wide.safetensors", "192", "128")),
    "LoRA that is a VAE": (lambda: lora("vae.safetensors"), ("vae.safetensors", "is not a LoRA: it holds a VAE")),
    "LoRA that is a text": (lambda: lora("text.safetensors"), ("text.safetensors", "not a safetensors file")),
    "LoRA with code": (lambda: lora("code.pt"), ("code.pt", "pickle")),
    "LoRA that is not there": (lambda: lora("../../x"), ("loras", "'../../x'")),
    "LoRA weight": (lambda: lora("nano-stripes", weight=9.0), ("weight", "4")),
    "LoRA stage": (lambda: lora("nano-stripes", transformer="middle"), ("transformer", "'middle'", "'high'")),
    "net of another width": (lambda: control_net("wide.safetensors"), ("controlNet[0].model", "256", "128")),
    "net that is a model": (lambda: control_net("model.safetensors"), ("model.safetensors", "ControlNet")),
    "net that is a text": (lambda: control_net("text.safetensors"), ("text.safetensors", "not a safetensors file")),
    "guide image of 1 x 1": (lambda: control_net(picture="1x1.png"), ("controlNet[0].guideImage", "1 x 1 pixels")),
    "start after end": (
        lambda: control_net(startStep=3, endStep=2),
        ("controlNet[0].startStep is 3", "less than endStep"),
    ),
    "end after the last step": (lambda: control_net(endStep=9), ("controlNet[0].endStep is 9", "at most 4")),
    "steps and percent": (
        lambda: control_net(startStep=1, endStepPercentage=50),
        ("controlNet[0].endStepPercentage", "either in steps or in percent"),
    ),
    "control mode": (lambda: control_net(controlMode="both"), ("controlMode", "'both'", "'balanced'")),
    "adapter that is a text": (lambda: ip_adapter("text.safetensors"), ("text.safetensors", "not a safetensors file")),
    "guide images of 1 x 1": (lambda: ip_adapter(picture="1x1.png"), ("ipAdapters[0].guideImages[0]", "1 x 1 pixels")),
    "encoder that is not there": (lambda: ip_adapter(encoder="/etc/passwd"), ("encoder", "'/etc/passwd'")),
    "combine method": (lambda: ip_adapter(combineMethod="multiply"), ("combineMethod", "'multiply'", "'concat'")),
    "detector that is a text": (lambda: face_fix("bbox/text.pt"), ("text.pt", "ultralytics model")),
    "detector with code": (lambda: face_fix("bbox/code.pt"), ("code.pt", "pickle")),
    "detector that is not there": (lambda: face_fix("yolov8n.pt"), ("detector", "'yolov8n.pt'")),
    "face strength": (lambda: face_fix("nano-face", strength=2.0), ("strength", "1")),
}


@pytest.mark.parametrize("case", CASES)
def test_each_is_one_clear_error_before_sampling(files: ComfyHost, case: str) -> None:
    graph, told = CASES[case]
    with Listener(files) as listener:
        run = files.run(graph(), client_id=listener.client_id)
    assert run.status in ("error", "refused"), case
    for words in told:
        assert words in run.error, run.error
    assert "Traceback" not in run.error
    assert listener.of("progress") == []
    assert not (files.base / "it-ran").exists()


def test_several_wrong_features_are_told_together(files: ComfyHost) -> None:
    graph = another_mask()
    graph["30"] = control_net(startStep=3, endStep=2, picture="1x1.png")["20"]
    graph["21"] = {"class_type": "LoadImage", "inputs": {"image": "1x1.png"}}
    graph["31"] = lora("wide.safetensors")["20"]
    graph["3"]["inputs"] |= {"controlNet": ["30", 0], "lora": ["31", 0]}
    told = files.run(graph).error
    assert "controlNet[0].startStep" in told
    graph["30"]["inputs"] |= {"startStep": -1, "endStep": -1}
    told = files.run(graph).error
    for parameter in ("inputs.maskImage", "lora[0].model", "controlNet[0].guideImage"):
        assert parameter in told, told


def test_the_next_good_run_is_right(files: ComfyHost) -> None:
    graph = control_net()
    first = files.run(graph)
    assert first.status == "success", first.error
    for case in ("LoRA for another model", "guide image of 1 x 1", "detector with code"):
        assert files.run(CASES[case][0]()).status == "error"
    graph["3"]["inputs"]["seed"] += 1
    files.run(graph)
    graph["3"]["inputs"]["seed"] -= 1
    assert files.view(files.run(graph).images[0]) == files.view(first.images[0])
