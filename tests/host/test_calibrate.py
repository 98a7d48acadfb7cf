"""A user calibrates a checkpoint, and later runs know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints import CheckpointSpec, ClipSpec, TransformerSpec, VAESpec, write_checkpoint
from tests.comfy_host import ComfyHost, Listener, Run
from tests.graphs import MODEL, Prompt, text_to_image

TINY = CheckpointSpec(TransformerSpec(), VAESpec(), clip_l=ClipSpec(64, 6), clip_g=ClipSpec(64, 6, 64))
UNCALIBRATED = "were not calibrated"


@pytest.fixture
def model(host: ComfyHost) -> str:
    return put(host, "to-calibrate.safetensors", 31)


def put(host: ComfyHost, name: str, seed: int) -> str:
    path = host.models / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, TINY, torch.float16, seed=seed)
    return name


def calibration(model: str, **inputs: Any) -> Prompt:
    """SD3 Model (node 1) and SD3 Calibrate (node 2)."""
    asked = {"prompts": 3, "width": 64, "height": 64, "steps": 12, "CFGScale": 5.0, "again": False, **inputs}
    return {
        "1": {"class_type": "SD3LocalModel", "inputs": {**MODEL, "model": model}},
        "2": {"class_type": "SD3LocalCalibrate", "inputs": {"model": ["1", 0], **asked}},
    }


def told(run: Run) -> str:
    assert run.status == "success", run.error
    return run.outputs["2"]["text"][0]


def report(host: ComfyHost, model: str, seed: int) -> str:
    """What SD3 Sampler says of a run under TeaCache."""
    graph = text_to_image(model=model, width=64, height=64, steps=6, seed=seed)
    graph["7"] = {
        "class_type": "SD3LocalAccelerator",
        "inputs": {
            **{"fbCache": False, "fbCacheThreshold": 0.25, "teaCache": True, "teaCacheDistance": 0.5},
            **{"dbCache": False, "dbCacheThreshold": 0.25, "dbCacheSkipInterval": 5, "cacheMaxConsecutiveSteps": 2},
            **{"cacheStartStep": -1, "cacheEndStep": -1, "cacheStartStepPercentage": -1, "cacheEndStepPercentage": -1},
        },
    }
    graph["3"]["inputs"]["acceleratorOptions"] = ["7", 0]
    run = host.run(graph)
    assert run.status == "success", run.error
    return run.outputs["6"]["text"][0]


def folder(host: ComfyHost) -> Path:
    return host.base / "user" / "__sd3_local" / "calibrations"


def files(host: ComfyHost) -> set[Path]:
    return set(folder(host).glob("*")) if folder(host).is_dir() else set()


def test_a_cancelled_calibration_goes_on_and_later_runs_of_that_checkpoint_use_it(host: ComfyHost, model: str) -> None:
    before = files(host)
    assert UNCALIBRATED in report(host, model, 1)
    slow = {"width": 512, "height": 512}
    with Listener(host) as heard:
        started = host.queue(calibration(model, **slow), heard.client_id)
        heard.wait_for(lambda: any(each["value"] > 12 for each in heard.of("progress")))
        host.interrupt()
        assert host.wait(started).status == "interrupted"
    assert {path.suffix for path in files(host) - before} == {".partial"}
    assert UNCALIBRATED in report(host, model, 2)

    with Listener(host) as heard:
        run = host.run(calibration(model, **slow), client_id=heard.client_id)
        heard.wait_for(lambda: bool(heard.of("execution_success")))
    steps = [(each["value"], each["max"]) for each in heard.of("progress") if each["node"] == "2"]
    assert steps[0][0] > 12 and steps[0][0] % 12 == 1
    assert steps[-1] == (36, 36)
    assert "of 3 prompts had been measured before" in told(run)
    (path,) = files(host) - before
    assert path.suffix == ".json" and str(path) in told(run)

    said = report(host, model, 3)
    assert UNCALIBRATED not in said and "is ignored" not in said
    assert "was calibrated before" in told(host.run(calibration(model)))
    assert UNCALIBRATED in report(host, put(host, "another.safetensors", 32), 3)

    # Limits come from the file: where no error of the output is feared, all is reused.
    content = json.loads(path.read_text())
    content["techniques"]["tea"]["factor"] = 1e-6
    path.write_text(json.dumps(content))
    assert "threshold" not in report(host, model, 5)
    content["techniques"]["tea"]["factor"] = 1e6
    path.write_text(json.dumps(content))
    assert "6 computed, 0 conditional-only, 0 reused" in report(host, model, 6)

    path.write_text("{")
    broken = report(host, model, 7)
    assert UNCALIBRATED in broken and f"the calibration {path} is ignored: " in broken


def test_sd3_nano_comes_calibrated(host: ComfyHost) -> None:
    before = files(host)
    assert "was calibrated before" in told(host.run(calibration("sd3-nano")))
    assert files(host) == before
    assert UNCALIBRATED not in report(host, "sd3-nano", 1)


def test_bad_input_is_refused_by_name(host: ComfyHost, model: str) -> None:
    for inputs in ({"prompts": 2}, {"steps": 11}, {"width": 100}):
        run = host.run(calibration(model, **inputs))
        assert run.status in ("refused", "error")
        assert next(iter(inputs)) in run.error
