"""Whole runs against the two peers: stock diffusers, and ComfyUI's own sampler and VAE, on the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.generate import generate
from sd3_local.pipelines.latents import to_model
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched
from sd3_local.pipelines.samplers import SCHEDULERS

from tests.checkpoints import CheckpointSpec, ClipSpec, TransformerSpec, VAESpec, write_checkpoint
from tests.engines import open_model, request

CLIPS = {"clip_l": ClipSpec(768, 3), "clip_g": ClipSpec(1280, 3, 1280)}
# ComfyUI takes a transformer only with the published widths of text and a width of 64 x blocks.
MEDIUM = TransformerSpec(blocks=3, width=192, context=4096, pooled=2048)
DUAL = TransformerSpec(blocks=3, width=192, context=4096, pooled=2048, rms=True, dual=(0, 1))
TOLERANCE = 1e-3


@pytest.fixture(scope="module", params=[MEDIUM, DUAL], ids=["sd3-medium", "sd3.5-medium"])
def checkpoint(request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engine") / "model.safetensors"
    return write_checkpoint(path, CheckpointSpec(request.param, VAESpec(), **CLIPS), torch.float32)


@pytest.fixture(scope="module")
def opened() -> dict[Path, Model]:
    """Models that many tests use, by their files."""
    return {}


def latents(result) -> torch.Tensor:
    return torch.stack([picture.latent for picture in result.pictures])


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("guidance", [4.5, 1.0])
def test_default_is_stock_diffusers(checkpoint: Path, guidance: float) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

    model = open_model(checkpoint)
    asked = request(CFGScale=guidance, negativePrompt="blue", numberResults=2)
    ours = latents(generate(asked, model, Unwatched()))
    positive, negative = model.encode([asked.positive_prompt, "blue"], 0, Unwatched())
    pipeline = StableDiffusion3Pipeline(
        transformer=model.transformer().module,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=None,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    for index in range(2):
        theirs = pipeline(
            prompt_embeds=positive.context,
            pooled_prompt_embeds=positive.pooled,
            negative_prompt_embeds=negative.context,
            negative_pooled_prompt_embeds=negative.pooled,
            width=asked.width,
            height=asked.height,
            num_inference_steps=asked.steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(asked.seed + index),
            output_type="latent",
        ).images
        assert difference(to_model(ours[index : index + 1]), theirs) < TOLERANCE


@pytest.mark.parametrize(("steps", "guidance"), [(12, 4.5), (20, 1.0), (28, 7.0)])
def test_ddim_is_comfyui_s_euler_on_its_simple_schedule(comfy, checkpoint: Path, steps: int, guidance: float) -> None:
    import comfy.sample

    model = open_model(checkpoint)
    asked = request(steps=steps, CFGScale=guidance, negativePrompt="blue", scheduler="DDIM")
    ours = latents(generate(asked, model, Unwatched()))
    positive, negative = model.encode([asked.positive_prompt, "blue"], 0, Unwatched())
    with torch.inference_mode():
        native = comfy.sd.load_diffusion_model(str(checkpoint), model_options={"dtype": torch.float32})
        empty = torch.zeros(1, 16, asked.height // 8, asked.width // 8)
        theirs = comfy.sample.sample(
            native,
            comfy.sample.prepare_noise(empty, asked.seed),
            steps,
            guidance,
            "euler",
            "simple",
            [[positive.context, {"pooled_output": positive.pooled}]],
            [[negative.context, {"pooled_output": negative.pooled}]],
            empty,
            disable_pbar=True,
            seed=asked.seed,
        )
    assert difference(ours, theirs) < TOLERANCE


def test_comfyui_s_vae_decodes_the_latent_to_the_same_picture(comfy, tmp_path: Path) -> None:
    import safetensors.torch

    path = tmp_path / "model.safetensors"
    # ComfyUI knows the VAE only at its published widths.
    write_checkpoint(path, CheckpointSpec(MEDIUM, VAESpec((128, 256, 512, 512), blocks=2)), torch.float16)
    result = generate(request(positivePrompt=None, CFGScale=1.0, steps=2, width=64), open_model(path), Unwatched())
    stored = safetensors.torch.load_file(path)
    prefix = "first_stage_model."
    vae = comfy.sd.VAE(
        {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)},
        dtype=torch.float32,
    )
    with torch.inference_mode():
        theirs = vae.decode(latents(result))
    assert (result.pictures[0].pixels - theirs[0].cpu()).abs().max() < 1e-3


def test_each_result_is_the_picture_of_its_own_seed(checkpoint: Path) -> None:
    model = open_model(checkpoint)
    for scheduler in ("Default", "Euler a", "DPM++ 2M SDE"):
        together = generate(request(numberResults=3, seed=9, scheduler=scheduler, steps=4), model, Unwatched())
        assert [picture.seed for picture in together.pictures] == [9, 10, 11]
        for picture in together.pictures:
            alone = generate(request(seed=picture.seed, scheduler=scheduler, steps=4), model, Unwatched()).pictures[0]
            assert torch.equal(picture.latent, alone.latent)
            assert torch.equal(picture.pixels, alone.pixels)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_paints(checkpoint: Path, opened: dict[Path, Model], name: str) -> None:
    model = opened.setdefault(checkpoint, open_model(checkpoint))
    result = generate(request(scheduler=name, steps=3, width=64), model, Unwatched())
    assert result.pictures[0].pixels.isfinite().all()
    assert result.pictures[0].pixels.std() > 0.01
    assert f"3 steps of {name} " in str(result.report)
    assert SCHEDULERS[name].notice in str(result.report)


def test_the_inverse_scheduler_is_refused_with_its_reason() -> None:
    with pytest.raises(RequestError, match=r"DPMSolverMultistepInverse.*noise"):
        request(scheduler="DPMSolverMultistepInverse")


def test_samplers_for_distilled_models_say_so() -> None:
    for name in ("LCM", "LCMScheduler", "TCDScheduler"):
        assert "distilled" in SCHEDULERS[name].notice


def test_a_prompt_is_encoded_once(checkpoint: Path) -> None:
    model = open_model(checkpoint)
    asked = request(steps=1)
    first = latents(generate(asked, model, Unwatched()))
    encoders = model.text_encoders()
    assert (encoders.cache.hits, encoders.cache.misses) == (0, 2)
    encoders.clip_l = encoders.clip_g = None  # whoever encodes again fails
    assert torch.equal(latents(generate(asked, model, Unwatched())), first)
    assert (encoders.cache.hits, encoders.cache.misses) == (2, 2)


def test_an_undrawn_seed_is_random_and_told(checkpoint: Path) -> None:
    model = open_model(checkpoint)
    one, other = (generate(request(seed=None, steps=1), model, Unwatched()) for _ in range(2))
    assert one.request.seed != other.request.seed
    assert one.pictures[0].seed == one.request.seed < 2**32
    assert str(one.request.seed) in str(one.report)


def test_everything_that_stands_against_a_request_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "bare.safetensors", CheckpointSpec(MEDIUM), torch.float16)
    model = open_model(path)
    asked = request(width=1024, height=2048)
    with pytest.raises(RequestError) as caught:
        generate(asked, model, Unwatched())
    assert [fault.parameter for fault in caught.value.faults] == ["width", "height", "vae", "textEncoder1"]
    assert caught.value.faults[0].limits == {"max": 512}
    assert model.reading_seconds == 0


def test_full_memory_gives_the_same_picture_streamed(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first evaluation runs out of memory; the run then starts again with the weights brought layer by layer."""
    model = open_model(checkpoint)
    asked = request(steps=3)
    expected = latents(generate(asked, model, Unwatched()))
    transformer = model.transformer().module
    forward, failures = transformer.forward, [torch.OutOfMemoryError("CUDA out of memory")]

    def full_once(*arguments, **named):
        if failures:
            raise failures.pop()
        return forward(*arguments, **named)

    monkeypatch.setattr(transformer, "forward", full_once)
    assert difference(latents(generate(asked, model, Unwatched())), expected) < 1e-5
    assert not failures
    monkeypatch.undo()
    assert difference(latents(generate(asked, model, Unwatched())), expected) < 1e-6


def test_a_picture_that_does_not_fit_is_decoded_in_tiles(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(checkpoint)
    asked = request(steps=1, width=512, height=512, CFGScale=1.0)
    whole = generate(asked, model, Unwatched()).pictures[0]
    decoder = model.vae().module.decoder
    forward, seen = decoder.forward, []

    def narrow(z, *arguments):
        seen.append(tuple(z.shape[-2:]))
        if len(seen) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(z, *arguments)

    monkeypatch.setattr(decoder, "forward", narrow)
    monkeypatch.setattr("sd3_local.pipelines.pixels.TILE", 32)
    tiled = model.decode(whole.latent[None], Unwatched())
    assert seen[0] == (64, 64)
    assert set(seen[1:]) <= {(32, 32), (32, 16), (16, 32), (16, 16)}
    assert tiled.shape == whole.pixels.shape
    # Norms see a tile instead of the picture, so the two are alike and not equal.
    assert (tiled - whole.pixels).abs().mean() < 0.1
