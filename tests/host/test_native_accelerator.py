"""ComfyUI's own graph of SD3, from checkpoint to latent, with the accelerator in between."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from safetensors.torch import load

from tests.checkpoints import CLIP_L, CheckpointSpec, TransformerSpec, write_checkpoint
from tests.comfy_host import ComfyHost, Listener, Run

# ComfyUI takes a transformer only with the published widths of text and a width of 64 x blocks, and a whole CLIP.
TINY = CheckpointSpec(TransformerSpec(blocks=2, width=128, context=4096, pooled=2048), clip_l=CLIP_L)
OPTIONS = {
    "fbCache": False,
    "fbCacheThreshold": 0.25,
    "teaCache": False,
    "teaCacheDistance": 0.5,
    "dbCache": False,
    "dbCacheThreshold": 0.25,
    "dbCacheSkipInterval": 5,
    "cacheMaxConsecutiveSteps": 2,
    "cacheStartStep": -1,
    "cacheEndStep": -1,
    "cacheStartStepPercentage": -1,
    "cacheEndStepPercentage": -1,
}
# ComfyUI's protocol.py: a text for a node is the length of its id, the id and the text, four bytes of kind before them.
TEXT = 3


class Told(Listener):
    """Collects the texts that nodes are given to show."""

    def _listen(self) -> None:
        self.texts: list[tuple[str, str]] = []
        with contextlib.suppress(OSError):
            while not self._ended.is_set():
                message = self._socket.receive(0.1)
                if isinstance(message, bytes) and int.from_bytes(message[:4], "big") == TEXT:
                    end = 8 + int.from_bytes(message[4:8], "big")
                    self.texts.append((message[8:end].decode(), message[end:].decode()))


@pytest.fixture(scope="module")
def checkpoint(host: ComfyHost) -> str:
    path = host.models / "checkpoints" / "tiny-native.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, TINY, torch.float16)
    return path.name


def graph(checkpoint: str, **options: Any) -> dict[str, Any]:
    """The same latent sampled without the accelerator (saved by node 8) and with it (node 9)."""
    ksampler = {
        "seed": 3,
        "steps": 8,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "positive": ["3", 0],
        "negative": ["4", 0],
        "latent_image": ["5", 0],
        "denoise": 1.0,
    }
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "2": {"class_type": "SD3LocalNativeAccelerator", "inputs": {"model": ["1", 0], **OPTIONS, **options}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a red circle"}},
        "4": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": ""}},
        "5": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 96, "height": 64, "batch_size": 2}},
        "6": {"class_type": "KSampler", "inputs": {"model": ["1", 0], **ksampler}},
        "7": {"class_type": "KSampler", "inputs": {"model": ["2", 0], **ksampler}},
        "8": {"class_type": "SaveLatent", "inputs": {"samples": ["6", 0], "filename_prefix": "plain"}},
        "9": {"class_type": "SaveLatent", "inputs": {"samples": ["7", 0], "filename_prefix": "fast"}},
    }


def latent(host: ComfyHost, run: Run, node: str) -> torch.Tensor:
    assert run.status == "success", run.error
    return load(host.view(run.outputs[node]["latents"][0]))["latent_tensor"]


def test_a_checkpoint_is_sampled_by_ksampler_under_the_options(host: ComfyHost, checkpoint: str) -> None:
    never = host.run(graph(checkpoint, fbCache=True, fbCacheThreshold=1.0))
    plain = latent(host, never, "8")
    assert plain.isfinite().all() and plain.std() > 0.1
    assert torch.equal(latent(host, never, "9"), plain)
    with Told(host) as heard:
        always = host.run(graph(checkpoint, teaCache=True, teaCacheDistance=1.0), client_id=heard.client_id)
        heard.wait_for(lambda: bool(heard.texts))
    told = "TeaCache: 4 computed, 0 conditional-only, 4 reused  CrrC.rrCC"
    assert [node for node, _ in heard.texts] == ["2"]
    assert heard.texts[0][1].startswith(told)
    assert told in host.log()
    fast = latent(host, always, "9")
    assert 0 < (fast - plain).norm() / plain.norm() < 1


def test_what_does_not_fit_together_is_refused(host: ComfyHost, checkpoint: str) -> None:
    for options, told in (
        ({"fbCache": True, "teaCache": True}, "teaCache is on beside fbCache, but only one cache can decide"),
        ({"fbCache": True, "cacheStartStep": 2, "cacheEndStepPercentage": 50}, "a window is either in steps or in"),
    ):
        run = host.run(graph(checkpoint, **options))
        assert run.status == "error"
        assert told in run.error
