"""ControlNets through the whole engine against stock diffusers' pipelines, on the same weights and guide images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sd3_local.pipelines.controlnet import ControlNetFile
from sd3_local.pipelines.generate import Result, generate
from sd3_local.pipelines.latents import to_model
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched
from sd3_local.pipelines.placement import LocalPlacement

from tests.checkpoints import CheckpointSpec, ClipSpec, TransformerSpec, VAESpec, write_checkpoint
from tests.controlnets import make_net, single_net, write_net, write_original
from tests.engines import open_model, request

CLIPS = {"clip_l": ClipSpec(768, 3), "clip_g": ClipSpec(1280, 3, 1280)}
MEDIUM = TransformerSpec(blocks=4, width=256, context=4096, pooled=2048)
DUAL = TransformerSpec(blocks=4, width=256, context=4096, pooled=2048, rms=True, dual=(0, 1, 2))
WIDTH, HEIGHT = 96, 64
TOLERANCE = 1e-4
PLACEMENT = LocalPlacement(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("controlnet") / "model.safetensors"
    return open_model(write_checkpoint(path, CheckpointSpec(MEDIUM, VAESpec(), **CLIPS), torch.float32))


@pytest.fixture(autouse=True)
def middle_of_the_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock draws a hint from the VAE's distribution; here it takes the middle of it, as this pack does."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


def guide(seed: int = 3) -> torch.Tensor:
    """A smooth picture [1, height, width, 3]."""
    noise = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (HEIGHT, WIDTH), mode="bilinear").movedim(1, -1).contiguous()


def run(model: Model, nets: list[tuple[Path, torch.Tensor, dict[str, Any]]], **fields: Any) -> Result:
    """`nets`: a file, a guide image and the other fields of each."""
    entries = [
        {"model": f"net {index}", "guideImage": f"guide {index}", **entry} for index, (_, _, entry) in enumerate(nets)
    ]
    materials = Materials(
        pictures={f"guide {index}": picture for index, (_, picture, _) in enumerate(nets)},
        control_nets={f"net {index}": ControlNetFile(path, PLACEMENT) for index, (path, _, _) in enumerate(nets)},
    )
    asked = request(**{"width": WIDTH, "height": HEIGHT, "negativePrompt": "blue", **fields, "controlNet": entries})
    return generate(asked, model, Unwatched(), materials)


def latents(result: Result) -> torch.Tensor:
    return torch.stack([picture.latent for picture in result.pictures])


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def stock(model: Model, nets: Any, images: Any, kind: str = "ControlNet", **options: Any) -> torch.Tensor:
    """What the stock pipeline samples, in model space; the positions of a net without any are lent to it."""
    import diffusers

    pipeline = getattr(diffusers, f"StableDiffusion3{kind}Pipeline")(
        transformer=model.transformer().module,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=model.vae().module,
        controlnet=nets,
        **dict.fromkeys(f"{part}{i}" for part in ("text_encoder", "tokenizer") for i in ("", "_2", "_3")),
    )
    pipeline.set_progress_bar_config(disable=True)
    positive, negative = model.encode([request().positive_prompt, "blue"], 0, Unwatched())
    return pipeline(
        prompt_embeds=positive.context,
        pooled_prompt_embeds=positive.pooled,
        negative_prompt_embeds=negative.context,
        negative_pooled_prompt_embeds=negative.pooled,
        control_image=images,
        **{
            "width": WIDTH,
            "height": HEIGHT,
            "num_inference_steps": 12,
            "guidance_scale": 4.5,
            "generator": torch.Generator().manual_seed(5),
            "output_type": "latent",
            **options,
        },
    ).images


def shown(picture: torch.Tensor) -> torch.Tensor:
    """The picture as stock's pipelines take a tensor: what the VAE is to encode."""
    return picture.movedim(-1, 1) * 2 - 1


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_one_net_is_stock(model: Model, tmp_path: Path, layers: int) -> None:
    net = make_net(layers)
    path = write_net(tmp_path / "net.safetensors", net)
    ours = to_model(latents(run(model, [(path, guide(), {"weight": 0.9})], CFGScale=4.5)))
    theirs = stock(model, net, shown(guide()), controlnet_conditioning_scale=0.9)
    assert difference(ours, theirs) < TOLERANCE
    without = to_model(latents(run(model, [(path, guide(), {"weight": 0.0})], CFGScale=4.5)))
    assert difference(without, theirs) > 0.05


@pytest.mark.parametrize(("weight", "guidance"), [(-0.7, 4.5), (1.0, 1.0), (-1.0, 1.0)])
def test_negative_weights_and_no_guidance_are_stock(
    model: Model, tmp_path: Path, weight: float, guidance: float
) -> None:
    net = make_net()
    path = write_net(tmp_path / "net.safetensors", net)
    ours = to_model(latents(run(model, [(path, guide(), {"weight": weight})], CFGScale=guidance)))
    theirs = stock(model, net, shown(guide()), controlnet_conditioning_scale=weight, guidance_scale=guidance)
    assert difference(ours, theirs) < TOLERANCE


def test_a_net_with_dual_attention_is_stock(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model.safetensors", CheckpointSpec(DUAL, VAESpec(), **CLIPS), torch.float32)
    model, net = open_model(path), make_net(2, dual=(0, 1), rms=True, table=64)
    file = write_net(tmp_path / "net.safetensors", net)
    result = run(model, [(file, guide(), {})], CFGScale=4.5)
    assert difference(to_model(latents(result)), stock(model, net, shown(guide()))) < TOLERANCE
    assert result.report.accounts[0].data["warnings"] == []


@pytest.mark.parametrize("layers", [2, 4])
def test_stability_s_kind_is_stock_in_both_layouts(model: Model, tmp_path: Path, layers: int) -> None:
    """diffusers adds nothing after the last block; Stability's own code and ComfyUI do."""
    net = single_net(layers)
    files = [
        write_net(tmp_path / "diffusers.safetensors", net),
        write_original(tmp_path / "untold.safetensors", net),
        write_original(tmp_path / "blur.safetensors", net, 0),
    ]
    theirs = stock(model, net, shown(guide()), controlnet_conditioning_scale=0.8)
    for file in files:
        ours = to_model(latents(run(model, [(file, guide(), {"weight": 0.8})], CFGScale=4.5)))
        assert difference(ours, theirs) < TOLERANCE


@pytest.mark.parametrize(("number", "trained"), [(1, lambda x: x * 255 * 0.5 + 0.5), (2, lambda x: 2 * (1 - x) - 1)])
def test_canny_and_depth_are_shown_as_they_were_trained(
    model: Model, tmp_path: Path, number: int, trained: Any
) -> None:
    net = single_net()
    file = write_original(tmp_path / "net.safetensors", net, number)
    ours = to_model(latents(run(model, [(file, guide(), {"weight": 0.5})], CFGScale=4.5)))
    theirs = stock(model, net, trained(guide().movedim(-1, 1)), controlnet_conditioning_scale=0.5)
    assert difference(ours, theirs) < TOLERANCE


def test_an_inpainting_net_is_stock(model: Model, tmp_path: Path) -> None:
    """Stock's pipeline for such nets starts from noise, so here the guide image's transparency is the mask."""
    net = make_net(2, extra=1)
    file = write_net(tmp_path / "net.safetensors", net)
    mask = torch.zeros(1, HEIGHT, WIDTH, 1)
    mask[:, 13:45, 29:70] = 1  # not on the latents' grid
    transparent = torch.cat([guide(), 1 - mask], dim=-1)
    ours = to_model(latents(run(model, [(file, transparent, {"weight": 0.95})], CFGScale=4.5)))
    theirs = stock(
        model,
        net,
        shown(guide()),
        "ControlNetInpainting",
        control_mask=mask.movedim(-1, 1),
        controlnet_conditioning_scale=0.95,
    )
    assert difference(ours, theirs) < TOLERANCE


def test_two_nets_of_one_kind_with_windows_are_stock(model: Model, tmp_path: Path) -> None:
    nets = [make_net(2, seed=1), make_net(2, seed=2)]
    files = [write_net(tmp_path / f"{index}.safetensors", net) for index, net in enumerate(nets)]
    pictures = [guide(3), guide(4)]
    first = {"weight": 0.8, "startStepPercentage": 25, "endStepPercentage": 75}
    second = {"weight": -0.5, "endStep": 6}
    ours = run(model, [(files[0], pictures[0], first), (files[1], pictures[1], second)], CFGScale=4.5)
    theirs = stock(
        model,
        nets,
        [shown(picture) for picture in pictures],
        controlnet_conditioning_scale=[0.8, -0.5],
        control_guidance_start=[0.25, 0.0],
        control_guidance_end=[0.75, 0.5],
    )
    assert difference(to_model(latents(ours)), theirs) < TOLERANCE
    assert [account.data["steps"] for account in ours.report.accounts] == [list(range(3, 9)), list(range(6))]


def test_a_layer_for_each_block_is_added_to_its_own_block(model: Model, tmp_path: Path) -> None:
    """Stock is wrong here: it spreads 3 residuals over 4 blocks as 0, 0, 1, 2, although such nets (alimama's,
    tensorart's) were trained when it gave each to its own block. It does that still, when it is given four.
    """
    net = make_net(3)
    path = write_net(tmp_path / "net.safetensors", net)
    ours = to_model(latents(run(model, [(path, guide(), {})], CFGScale=4.5)))
    assert difference(ours, stock(model, net, shown(guide()))) > 10 * TOLERANCE
    forward = net.forward
    net.forward = lambda *given, **named: ([*(made := forward(*given, **named)[0]), made[-1]],)
    assert difference(ours, stock(model, net, shown(guide()))) < TOLERANCE


def test_img2img_counts_the_steps_that_run(model: Model, tmp_path: Path) -> None:
    """A share of a run is a share of its executed steps: half of the 6 that strength 0.5 leaves of 12."""
    path = write_net(tmp_path / "net.safetensors", make_net())
    file = ControlNetFile(path, PLACEMENT)
    entry = {"model": "net", "guideImage": "guide", "startStepPercentage": 50}
    asked = request(
        width=WIDTH,
        height=HEIGHT,
        strength=0.5,
        inputs={"seedImage": "seed"},
        controlNet=[entry],
        negativePrompt="blue",
    )
    materials = Materials(pictures={"guide": guide(), "seed": guide(9)}, control_nets={"net": file})
    account = generate(asked, model, Unwatched(), materials).report.accounts[-1]
    assert account.data["steps"] == [3, 4, 5]
    assert account.lines == (f"ControlNet {path.name}: weight 1, balanced, in 3 of 6 steps (4 to 6)",)
