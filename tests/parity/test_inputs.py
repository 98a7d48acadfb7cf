"""img2img and inpainting against stock diffusers and ComfyUI's KSampler, on the same weights and the same latents."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
import torch
from sd3_local.pipelines.generate import Result, generate
from sd3_local.pipelines.latents import to_model, to_vae
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched

from tests.checkpoints import CheckpointSpec, ClipSpec, TransformerSpec, VAESpec, write_checkpoint
from tests.engines import open_model, request

CLIPS = {"clip_l": ClipSpec(768, 3), "clip_g": ClipSpec(1280, 3, 1280)}
MEDIUM = TransformerSpec(blocks=3, width=192, context=4096, pooled=2048)
WIDTH, HEIGHT = 96, 64
TOLERANCE = 1e-4
# One each: single-step, multistep, two-evaluation, stochastic, and predictor-corrector.
SAMPLERS = ("Default", "DPM++ 2M", "Heun", "Euler a", "UniPC")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inputs") / "model.safetensors"
    return write_checkpoint(path, CheckpointSpec(MEDIUM, VAESpec(), **CLIPS), torch.float32)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Model:
    return open_model(checkpoint)


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    """A smooth picture [1, height, width, 3]."""
    noise = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(3))
    scaled = torch.nn.functional.interpolate(noise, (HEIGHT, WIDTH), mode="bilinear")
    return scaled.movedim(1, -1).contiguous()


def block_mask(left: int = 32, top: int = 16, right: int = 80, bottom: int = 48) -> torch.Tensor:
    """White in a rectangle of whole latents, [1, height, width, 1]."""
    mask = torch.zeros(1, HEIGHT, WIDTH, 1)
    mask[:, top:bottom, left:right] = 1
    return mask


def run(model: Model, seed_image: torch.Tensor, mask: torch.Tensor | None = None, **fields: Any) -> Result:
    names = {"seedImage": seed_image, **({} if mask is None else {"maskImage": mask})}
    pictures = {name: f"test:{uuid.uuid4()}" for name in names}
    asked = request(**{"width": WIDTH, "height": HEIGHT, **fields, "inputs": pictures})
    return generate(asked, model, Unwatched(), Materials(pictures={pictures[name]: names[name] for name in names}))


def latents(result: Result) -> torch.Tensor:
    return torch.stack([picture.latent for picture in result.pictures])


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def stock(kind: str, model: Model) -> Any:
    import diffusers

    pipeline = getattr(diffusers, kind)(
        transformer=model.transformer().module,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=model.vae().module,
        **dict.fromkeys(f"{part}{i}" for part in ("text_encoder", "tokenizer") for i in ("", "_2", "_3")),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def prompts(model: Model) -> dict[str, torch.Tensor]:
    asked = request()
    positive, negative = model.encode([asked.positive_prompt, "blue"], 0, Unwatched())
    return {
        "prompt_embeds": positive.context,
        "pooled_prompt_embeds": positive.pooled,
        "negative_prompt_embeds": negative.context,
        "negative_pooled_prompt_embeds": negative.pooled,
    }


@pytest.mark.parametrize("strength", [0.3, 0.55, 0.8, 1.0])
def test_img2img_is_stock_diffusers(model: Model, picture: torch.Tensor, strength: float) -> None:
    ours = latents(run(model, picture, strength=strength, CFGScale=4.5, negativePrompt="blue"))
    theirs = stock("StableDiffusion3Img2ImgPipeline", model)(
        **prompts(model),
        # A picture of 16 channels is taken as the latent itself: stock would draw one from the VAE's distribution.
        image=to_model(model.encode_picture(picture[0], Unwatched())),
        width=WIDTH,
        height=HEIGHT,
        strength=strength,
        num_inference_steps=12,
        guidance_scale=4.5,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).images
    assert difference(to_model(ours), theirs) < TOLERANCE


@pytest.mark.parametrize("strength", [0.55, 0.8])
def test_inpainting_is_stock_diffusers(model: Model, picture: torch.Tensor, strength: float) -> None:
    """Latents only: stock leaves the VAE's shift out when it decodes (pipeline_stable_diffusion_3_inpaint.py, 1368)."""
    mask = block_mask()
    ours = latents(run(model, picture, mask, strength=strength, CFGScale=4.5, negativePrompt="blue"))
    init = to_model(model.encode_picture(picture[0], Unwatched()))
    theirs = stock("StableDiffusion3InpaintPipeline", model)(
        **prompts(model),
        image=init,
        mask_image=mask.movedim(-1, 1),
        masked_image_latents=init,
        width=WIDTH,
        height=HEIGHT,
        strength=strength,
        num_inference_steps=12,
        guidance_scale=4.5,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).images
    assert difference(to_model(ours), theirs) < TOLERANCE


@pytest.mark.parametrize("grey", [None, 1.0, 0.4])
def test_ddim_is_comfyui_s_ksampler_with_its_noise_mask(
    comfy, checkpoint: Path, model: Model, picture: torch.Tensor, grey: float | None
) -> None:
    """ComfyUI's denoise runs the last steps of a longer schedule: 6 steps of denoise 0.5 are half of 12 steps."""
    import comfy.sample

    mask = None if grey is None else block_mask() * grey
    ours = latents(run(model, picture, mask, strength=0.5, scheduler="DDIM", CFGScale=4.5, negativePrompt="blue"))
    embeds = prompts(model)
    with torch.inference_mode():
        native = comfy.sd.load_diffusion_model(str(checkpoint), model_options={"dtype": torch.float32})
        init = model.encode_picture(picture[0], Unwatched())
        theirs = comfy.sample.sample(
            native,
            comfy.sample.prepare_noise(init, 5),
            6,
            4.5,
            "euler",
            "simple",
            [[embeds["prompt_embeds"], {"pooled_output": embeds["pooled_prompt_embeds"]}]],
            [[embeds["negative_prompt_embeds"], {"pooled_output": embeds["negative_pooled_prompt_embeds"]}]],
            init,
            denoise=0.5,
            noise_mask=None if mask is None else mask[..., 0][:, ::8, ::8],
            disable_pbar=True,
            seed=5,
        )
    assert difference(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_black_is_kept_to_the_last_bit(model: Model, picture: torch.Tensor, scheduler: str) -> None:
    mask = block_mask(left=29, top=13)  # not on the latents' grid
    result = run(model, picture, mask, scheduler=scheduler, strength=0.9)
    pixels, latent = result.pictures[0].pixels, result.pictures[0].latent
    black = mask[0, ..., 0] == 0
    assert torch.equal(pixels[black], picture[0][black])
    assert not torch.equal(pixels[~black], picture[0][~black])
    cells = torch.nn.functional.max_pool2d(mask.movedim(-1, 1), 8)[0, 0] == 0
    init = to_vae(to_model(model.encode_picture(picture[0], Unwatched())))[0]
    assert torch.equal(latent[:, cells], init[:, cells])


def test_strength_0_gives_the_picture_back_and_1_ignores_it(model: Model, picture: torch.Tensor) -> None:
    kept = run(model, picture, strength=0).pictures[0]
    assert torch.equal(kept.pixels, picture[0])
    assert torch.equal(kept.latent, model.encode_picture(picture[0], Unwatched())[0])
    anew = latents(run(model, picture, strength=1))
    text_to_image = latents(generate(request(width=WIDTH, height=HEIGHT), model, Unwatched()))
    assert torch.equal(anew, text_to_image)


def test_a_black_mask_keeps_the_picture_and_says_so(model: Model, picture: torch.Tensor) -> None:
    for margin in (None, 32):
        fields = {} if margin is None else {"maskMargin": margin}
        result = run(model, picture, torch.zeros(1, HEIGHT, WIDTH, 1), **fields)
        assert torch.equal(result.pictures[0].pixels, picture[0])
        assert "the mask is black" in str(result.report)


def test_grey_changes_in_part(model: Model, picture: torch.Tensor) -> None:
    init = model.encode_picture(picture[0], Unwatched())
    moved = [
        difference(latents(run(model, picture, block_mask() * grey, strength=1)), init) for grey in (0.0, 0.3, 0.6, 1.0)
    ]
    assert moved == sorted(moved)
    assert moved[0] == 0 < moved[1] < moved[2] < moved[3]


def test_a_margin_paints_a_crop_at_the_picture_s_scale_and_touches_nothing_else(
    model: Model, picture: torch.Tensor
) -> None:
    mask = torch.zeros(1, HEIGHT, WIDTH, 1)
    mask[:, 20:30, 60:70] = 1
    result = run(model, picture, mask, maskMargin=32, strength=0.9)
    crop = result.report.accounts[0].data["crop"]
    assert (crop["left"], crop["top"], crop["right"], crop["bottom"]) == (28, 0, 96, 62)
    area = crop["width"] * crop["height"]
    assert 0.8 < area / (WIDTH * HEIGHT) < 1.25
    pixels = result.pictures[0].pixels
    black = mask[0, ..., 0] == 0
    assert torch.equal(pixels[black], picture[0][black])
    assert not torch.equal(pixels[~black], picture[0][~black])
    # The latent is that of the finished picture, not of the crop.
    assert torch.equal(result.pictures[0].latent, model.encode_picture(pixels, Unwatched())[0])


def test_outpainting_keeps_the_original_and_grows_from_its_rim(model: Model, picture: torch.Tensor) -> None:
    result = run(
        model, picture, outpaint={"left": 32, "bottom": 16}, width=WIDTH + 32, height=HEIGHT + 16, strength=0.9
    )
    pixels = result.pictures[0].pixels
    assert pixels.shape == (HEIGHT + 16, WIDTH + 32, 3)
    assert torch.equal(pixels[:HEIGHT, 32:], picture[0])
    assert "mask: 40% of the picture may change" in str(result.report)


def test_outpainting_and_a_mask_change_both(model: Model, picture: torch.Tensor) -> None:
    mask = block_mask()
    result = run(model, picture, mask, outpaint={"top": 16}, height=HEIGHT + 16, strength=0.9)
    pixels = result.pictures[0].pixels[16:]
    black = mask[0, ..., 0] == 0
    assert torch.equal(pixels[black], picture[0][black])
    assert not torch.equal(pixels[~black], picture[0][~black])


def test_each_of_a_batch_starts_its_own_result(model: Model, picture: torch.Tensor) -> None:
    both = torch.cat([picture, 1 - picture])
    masks = torch.cat([block_mask(), block_mask(left=0, right=32)])
    together = run(model, both, masks, numberResults=2, steps=4)
    for index in range(2):
        alone = run(model, both[index : index + 1], masks[index : index + 1], seed=5 + index, steps=4)
        assert torch.equal(together.pictures[index].pixels, alone.pictures[0].pixels)


def test_pictures_of_other_sizes_and_kinds_are_fitted(model: Model, picture: torch.Tensor) -> None:
    # Twice the size with a rim that the cut takes away: the same picture as the one that fits.
    doubled = picture.repeat_interleave(2, 1).repeat_interleave(2, 2)
    framed = torch.nn.functional.pad(doubled, (0, 0, 40, 40), value=0.0)
    result = run(model, framed, strength=0)
    assert (result.pictures[0].pixels - picture[0]).abs().mean() < 0.01
    transparent = torch.cat([picture, torch.zeros(1, HEIGHT, WIDTH, 1)], dim=-1)
    assert torch.equal(run(model, transparent, strength=0).pictures[0].pixels, torch.ones(HEIGHT, WIDTH, 3))
    grey = run(model, picture[..., :1], strength=0).pictures[0].pixels
    assert torch.equal(grey, picture[0, ..., :1].expand(-1, -1, 3))


def test_the_steps_that_run_are_counted(model: Model, picture: torch.Tensor) -> None:
    seen: list[tuple[int, int]] = []

    class Seen(Unwatched):
        def step(self, done: int, total: int, x0: torch.Tensor, reused: bool) -> None:
            seen.append((done, total))

    name = "test:seed"
    asked = request(width=WIDTH, height=HEIGHT, strength=0.5, numberResults=2, inputs={"seedImage": name})
    generate(asked, model, Seen(), Materials(pictures={name: picture}))
    assert seen == [(done, 12) for done in range(1, 13)]
