"""ControlNets against ComfyUI's own, from the same files: its KSampler, and its control models call by call.

ComfyUI's loaders take these tiny nets as they are; only its VAE exists at the published widths alone, so its nets are
lent this pack's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sd3_local.pipelines.controlnet import ControlNetFile
from sd3_local.pipelines.generate import generate
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched
from sd3_local.pipelines.placement import LocalPlacement

from tests.checkpoints import CheckpointSpec, ClipSpec, TransformerSpec, VAESpec, write_checkpoint
from tests.controlnets import make_net, single_net, write_net, write_original
from tests.engines import open_model, request

CLIPS = {"clip_l": ClipSpec(768, 3), "clip_g": ClipSpec(1280, 3, 1280)}
# ComfyUI takes a transformer, and so a net, only with the published widths of text and a width of 64 x blocks.
MEDIUM = TransformerSpec(blocks=4, width=256, context=4096, pooled=2048)
DUAL = TransformerSpec(blocks=4, width=256, context=4096, pooled=2048, rms=True, dual=(0, 1))
WIDTH, HEIGHT = 96, 64
TOLERANCE = 1e-4
PLACEMENT = LocalPlacement(torch.device("cpu"), torch.float32)


def guide() -> torch.Tensor:
    noise = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(noise, (HEIGHT, WIDTH), mode="bilinear").movedim(1, -1).contiguous()


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


class LentVAE:
    """What ComfyUI's nets ask of a VAE."""

    def __init__(self, model: Model):
        self._model = model

    def spacial_compression_encode(self) -> int:
        return 8

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return self._model.encode_picture(pictures[0], Unwatched())


def comfy_net(path: Path) -> Any:
    import comfy.controlnet
    import comfy.utils

    return comfy.controlnet.load_controlnet_state_dict(
        comfy.utils.load_torch_file(str(path)), model_options={"dtype": torch.float32}
    )


@pytest.mark.parametrize(
    ("base", "options", "weight"),
    [
        (MEDIUM, {"layers": 1}, 0.8),
        (MEDIUM, {"layers": 2}, -0.6),
        (MEDIUM, {"layers": 4}, 1.0),
        (DUAL, {"layers": 2, "dual": (0, 1), "rms": True}, 0.8),
    ],
    ids=["one layer", "two layers, negative", "a layer a block", "dual attention"],
)
def test_a_net_is_comfyui_s(comfy: Any, tmp_path: Path, base: TransformerSpec, options: Any, weight: float) -> None:
    """Not with 3 layers on 4 blocks: there ComfyUI never adds the last residual (comfy/cldm/mmdit.py)."""
    import comfy.sample

    checkpoint = tmp_path / "model.safetensors"
    model = open_model(write_checkpoint(checkpoint, CheckpointSpec(base, VAESpec(), **CLIPS), torch.float32))
    path = write_net(tmp_path / "net.safetensors", make_net(**options))
    entry = {"model": "net", "guideImage": "guide", "weight": weight}
    asked = request(
        width=WIDTH, height=HEIGHT, scheduler="DDIM", CFGScale=4.5, negativePrompt="blue", controlNet=[entry]
    )
    materials = Materials(pictures={"guide": guide()}, control_nets={"net": ControlNetFile(path, PLACEMENT)})
    ours = generate(asked, model, Unwatched(), materials).pictures[0].latent[None]
    positive, negative = model.encode([asked.positive_prompt, "blue"], 0, Unwatched())
    with torch.inference_mode():
        native = comfy.sd.load_diffusion_model(str(checkpoint), model_options={"dtype": torch.float32})
        control = comfy_net(path).set_cond_hint(guide().movedim(-1, 1), weight, (0.0, 1.0), vae=LentVAE(model))
        empty = torch.zeros(1, 16, HEIGHT // 8, WIDTH // 8)
        theirs = comfy.sample.sample(
            native,
            comfy.sample.prepare_noise(empty, asked.seed),
            asked.steps,
            4.5,
            "euler",
            "simple",
            *(
                [[each.context, {"pooled_output": each.pooled, "control": control, "control_apply_to_uncond": False}]]
                for each in (positive, negative)
            ),
            empty,
            disable_pbar=True,
            seed=asked.seed,
        )
    assert difference(ours, theirs) < TOLERANCE


def test_stability_s_file_is_the_net_that_comfyui_makes_of_it(comfy: Any, tmp_path: Path) -> None:
    """One call. A whole run differs by design: ComfyUI counts positions in a table of its own, where Stability's code
    and diffusers take the transformer's; it adds the last residual after the last block too, as Stability's code does
    and diffusers does not; and it shows canny and depth in another range (controlnet/hints.py says which).
    """
    import comfy.cldm.dit_embedder

    path = write_original(tmp_path / "net.safetensors", single_net(2), 0)
    generator = torch.Generator().manual_seed(5)
    latent, hint = (torch.randn(2, 16, 8, 12, generator=generator) for _ in range(2))
    pooled, timestep = torch.randn(2, 2048, generator=generator), torch.tensor([700.0, 30.0])
    theirs_net = comfy_net(path).control_model
    ours_net = ControlNetFile(path, PLACEMENT).resident().module
    patches = theirs_net.x_embedder
    with torch.inference_mode():
        for parameter in patches.parameters():  # ComfyUI copies these from the model
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        positions = comfy.cldm.dit_embedder.get_2d_sincos_pos_embed_torch(256, 6, 4)
        ours = ours_net(
            hidden_states=patches(latent) + positions,
            controlnet_cond=hint,
            pooled_projections=pooled,
            timestep=timestep,
            return_dict=False,
        )[0]
        theirs = theirs_net(latent, timestep, y=pooled, hint=hint)["output"]
    assert len(theirs) == 4
    for block in range(4):
        assert difference(ours[block // 2], theirs[block]) < TOLERANCE
