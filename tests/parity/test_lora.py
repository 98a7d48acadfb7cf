"""LoRAs in the weights: every form of file, ComfyUI's own loader and sampler, stages, and what is left afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sd3_local.pipelines.features import Moment, Stage
from sd3_local.pipelines.generate import Result, generate
from sd3_local.pipelines.lora import LoraFile
from sd3_local.pipelines.lora.merge import Merged, merged
from sd3_local.pipelines.lora.run import Loras, TransformerLoras
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched
from sd3_local.pipelines.placement import LocalPlacement

from tests.checkpoints import CheckpointSpec, ClipSpec, TransformerSpec, VAESpec, write_checkpoint
from tests.engines import open_model, request
from tests.loras import FORMS, factors, layers, write_lora

WIDTH, BLOCKS, CONTEXT = 192, 3, 4096
# ComfyUI takes a transformer only with the published widths of text and a width of 64 x blocks.
SPEC = TransformerSpec(blocks=BLOCKS, width=WIDTH, context=CONTEXT, pooled=2048)
CLIPS = {"clip_l": ClipSpec(768, 3), "clip_g": ClipSpec(1280, 3, 1280)}
LAYERS = layers(WIDTH, BLOCKS, CONTEXT)
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def parser(comfy):
    from sd3_local.host.lora import parse_adapters

    return parse_adapters


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lora") / "model.safetensors"
    return write_checkpoint(path, CheckpointSpec(SPEC, VAESpec(), **CLIPS), torch.float32)


@pytest.fixture
def model(checkpoint: Path) -> Model:
    return open_model(checkpoint)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours.float() - theirs.float()).norm() / theirs.float().norm()).item()


def with_factors(checkpoint: Path, path: Path, *changes: tuple[dict, float]) -> Path:
    """The checkpoint's transformer with (factors, weight) added to its weights: W + weight x up x down.

    Without what a LoRA of the transformer leaves alone: CLIP's vocabulary alone is hundreds of megabytes a file.
    """
    state = {name: value for name, value in load_file(checkpoint).items() if name.startswith("model.diffusion_model.")}
    for values, weight in changes:
        for layer, (up, down) in values.items():
            state[f"model.diffusion_model.{layer}.weight"] += weight * up @ down
    save_file(state, path)
    return path


def run(model: Model, files: list[LoraFile], entries: list[dict[str, Any]] | None = None, **fields: Any) -> Result:
    entries = entries or [{} for _ in files]
    loras = {str(number): file for number, file in enumerate(files)}
    asked = request(lora=[{"model": str(number), **entry} for number, entry in enumerate(entries)], **fields)
    return generate(asked, model, Unwatched(), Materials(loras=loras))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strength", [1.0, -0.7])
def test_every_form_makes_the_change_that_it_is_defined_as(
    parser, checkpoint: Path, model: Model, tmp_path: Path, form: str, strength: float
) -> None:
    values = factors(LAYERS)
    file = LoraFile(write_lora(tmp_path / "lora.safetensors", FORMS[form](LAYERS, values)), parser)
    match = file.match(model.plan)
    assert match.unmatched == ()
    wanted = open_model(with_factors(checkpoint, tmp_path / "wanted.safetensors", (values, strength)))
    resident = model.transformer()
    before = weights(resident.module)
    with merged(resident, [(patch, strength) for patch in match.of(("transformer",))]):
        for name, tensor in wanted.transformer().module.state_dict().items():
            if tensor.is_floating_point():
                own = resident.module.state_dict()[name]
                assert torch.allclose(own, tensor, atol=2e-6), name
                if "blocks.0.attn.to_q.weight" in name:
                    assert not torch.allclose(own, before[name], atol=1e-3)
    for name, tensor in resident.module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_alpha_in_diffusers_header_counts(parser, checkpoint: Path, model: Model, tmp_path: Path) -> None:
    values = factors(LAYERS)
    config = {"transformer.r": 4, "transformer.lora_alpha": 8, "transformer.alpha_pattern": {"context_embedder": 2}}
    metadata = {"lora_adapter_metadata": json.dumps(config)}
    file = LoraFile(write_lora(tmp_path / "lora.safetensors", FORMS["peft"](LAYERS, values), metadata), parser)
    scaled = {name: (up * (0.5 if name == "context_embedder" else 2.0), down) for name, (up, down) in values.items()}
    wanted = open_model(with_factors(checkpoint, tmp_path / "wanted.safetensors", (scaled, 1.0))).transformer().module
    with merged(model.transformer(), [(patch, 1.0) for patch in file.match(model.plan).patches]):
        for name, tensor in wanted.state_dict().items():
            assert torch.allclose(model.transformer().module.state_dict()[name], tensor, atol=2e-6), name


@pytest.mark.parametrize("magnitude", [".dora_scale", ".lora_magnitude_vector"])
def test_dora_is_its_definition(parser, model: Model, tmp_path: Path, magnitude: str) -> None:
    """m (W + B A) / |W + B A| by rows, Liu et al. 2024, https://arxiv.org/abs/2402.09353, equation 5."""
    layer = LAYERS[2]
    up, down = factors([layer])[layer.published]
    scale = torch.rand(layer.rows, 1) + 0.5
    key = f"transformer.{layer.diffusers[0]}"
    tensors = {f"{key}.lora_B.weight": up, f"{key}.lora_A.weight": down}
    tensors[key + magnitude] = scale if magnitude == ".dora_scale" else scale[:, 0]
    file = LoraFile(write_lora(tmp_path / "lora.safetensors", tensors), parser)
    module = model.transformer().module.get_submodule(layer.diffusers[0])
    changed = module.weight + up @ down
    wanted = scale * changed / changed.norm(dim=1, keepdim=True)
    with merged(model.transformer(), [(patch, 1.0) for patch in file.match(model.plan).patches]):
        assert torch.allclose(module.weight, wanted, atol=1e-5)


def lora_files(parser, folder: Path, form: str, count: int) -> list[LoraFile]:
    return [
        LoraFile(write_lora(folder / f"{seed}.safetensors", FORMS[form](LAYERS, factors(LAYERS, seed, 0.1))), parser)
        for seed in range(count)
    ]


@pytest.mark.parametrize("form", ["peft", "kohya"])
@pytest.mark.parametrize("strengths", [(1.0,), (0.8, -0.5, 1.5)])
def test_runs_equal_comfyui_s_own_loader_and_sampler(
    comfy, parser, checkpoint: Path, model: Model, tmp_path: Path, form: str, strengths: tuple[float, ...]
) -> None:
    import comfy.sample

    files = lora_files(parser, tmp_path, form, len(strengths))
    entries = [{"weight": strength} for strength in strengths]
    ours = run(model, files, entries, scheduler="DDIM", CFGScale=4.5, negativePrompt="blue").pictures[0].latent
    positive, negative = model.encode([request().positive_prompt, "blue"], 0, Unwatched())
    with torch.inference_mode():
        native = comfy.sd.load_diffusion_model(str(checkpoint), model_options={"dtype": torch.float32})
        for seed, strength in enumerate(strengths):
            native, _ = comfy.sd.load_lora_for_models(
                native, None, load_file(tmp_path / f"{seed}.safetensors"), strength, 0
            )
        empty = torch.zeros(1, 16, 8, 12)
        theirs = comfy.sample.sample(
            native,
            comfy.sample.prepare_noise(empty, 5),
            12,
            4.5,
            "euler",
            "simple",
            [[positive.context, {"pooled_output": positive.pooled}]],
            [[negative.context, {"pooled_output": negative.pooled}]],
            empty,
            disable_pbar=True,
            seed=5,
        )
    assert difference(ours[None], theirs) < TOLERANCE
    plain = generate(request(scheduler="DDIM", CFGScale=4.5, negativePrompt="blue"), model, Unwatched())
    assert difference(ours, plain.pictures[0].latent) > 100 * TOLERANCE


@pytest.mark.parametrize("strengths", [(1.0,), (0.8, -0.5, 1.5)])
def test_runs_equal_stock_diffusers_on_the_changed_weights(
    parser, checkpoint: Path, model: Model, tmp_path: Path, strengths: tuple[float, ...]
) -> None:
    """Stock's own loader for LoRAs needs PEFT, which is no part of this project; the weights are changed by PEFT's
    definition instead.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

    files = lora_files(parser, tmp_path, "peft", len(strengths))
    ours = run(model, files, [{"weight": strength} for strength in strengths], CFGScale=1.0).pictures[0].latent
    changes = [(factors(LAYERS, seed, 0.1), strength) for seed, strength in enumerate(strengths)]
    changed = open_model(with_factors(checkpoint, tmp_path / "wanted.safetensors", *changes))
    positive = model.encode([request().positive_prompt], 0, Unwatched())[0]
    pipeline = StableDiffusion3Pipeline(
        transformer=changed.transformer().module,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=None,
        **dict.fromkeys(f"{part}{i}" for part in ("text_encoder", "tokenizer") for i in ("", "_2", "_3")),
    )
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt_embeds=positive.context,
        pooled_prompt_embeds=positive.pooled,
        width=96,
        height=64,
        num_inference_steps=12,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).images
    from sd3_local.pipelines.latents import to_model

    assert difference(to_model(ours[None]), theirs) < TOLERANCE


def text_lora(folder: Path, form: str) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file for one layer of each CLIP, and the change of each: file's key -> matrix."""
    rng = torch.Generator().manual_seed(1)
    tensors, changes = {}, {}
    for number, (kind, width) in enumerate((("clip_l", 768), ("clip_g", 1280)), 1):
        layer = "text_model.encoder.layers.0.mlp.fc2"
        up, down = (torch.randn(*shape, generator=rng) * 0.05 for shape in ((width, 4), (4, 4 * width)))
        key = {
            "kohya": f"lora_te{number}_{layer.replace('.', '_')}",
            "diffusers": f"text_encoder{'' if number == 1 else '_2'}.{layer}",
        }[form]
        ends = {"kohya": ("lora_up", "lora_down"), "diffusers": ("lora_B", "lora_A")}[form]
        tensors |= {f"{key}.{ends[0]}.weight": up, f"{key}.{ends[1]}.weight": down}
        changes[f"text_encoders.{kind}.transformer.{layer}.weight"] = up @ down
    return write_lora(folder / "text.safetensors", tensors), changes


@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_text_encoders_are_changed_too_and_their_conditionings_kept_apart(
    parser, checkpoint: Path, model: Model, tmp_path: Path, form: str
) -> None:
    path, changes = text_lora(tmp_path, form)
    file = LoraFile(path, parser)
    assert file.match(model.plan).unmatched == ()
    state = load_file(checkpoint)
    for key, change in changes.items():
        state[key] += 0.6 * change
    save_file(state, tmp_path / "wanted.safetensors")
    before = generate(request(), model, Unwatched()).pictures[0].latent
    ours = run(model, [file], [{"weight": 0.6}]).pictures[0].latent
    theirs = generate(request(), open_model(tmp_path / "wanted.safetensors"), Unwatched()).pictures[0].latent
    assert difference(ours, theirs) < TOLERANCE
    assert difference(ours, before) > 100 * TOLERANCE
    assert torch.equal(generate(request(), model, Unwatched()).pictures[0].latent, before)
    # A stack's own weight in the text encoders.
    stacked = LoraFile(path, parser, text_weight=0.6)
    assert torch.equal(run(model, [stacked], [{"weight": 2.0}]).pictures[0].latent, ours)


def state(model: Model) -> dict[str, torch.Tensor]:
    return weights(model.transformer().module)


@pytest.fixture
def lora(parser, tmp_path: Path) -> LoraFile:
    return lora_files(parser, tmp_path, "kohya", 1)[0]


class Stop(Exception):
    pass


class StopAt(Unwatched):
    def __init__(self, step: int):
        self.left = step

    def step(self, done: int, total: int, x0: torch.Tensor, reused: bool) -> None:
        self.left -= 1
        if not self.left:
            raise Stop


def test_the_weights_are_the_same_tensors_after_success_and_after_a_stop(model: Model, lora: LoraFile) -> None:
    module = model.transformer().module
    before, objects = state(model), {name: id(tensor) for name, tensor in module.named_parameters()}
    run(model, [lora], steps=3)
    asked = request(lora=[{"model": "0", "transformer": "high"}])
    for step in (1, 8):
        with pytest.raises(Stop):
            generate(asked, model, StopAt(step), Materials(loras={"0": lora}))
    assert {name: id(tensor) for name, tensor in module.named_parameters()} == objects
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_weight_0_changes_nothing_and_touches_nothing(model: Model, lora: LoraFile) -> None:
    plain = generate(request(), model, Unwatched()).pictures[0].latent
    result = run(model, [lora], [{"weight": 0.0}])
    assert torch.equal(result.pictures[0].latent, plain)
    assert Loras(request(lora=[{"model": "0", "weight": 0.0}]), model, Materials(loras={"0": lora})).features() == []
    assert "not applied" in str(result.report)


@pytest.mark.parametrize("scheduler", ["Default", "Heun", "KDPM2DiscreteScheduler", "DPM++ 2M SDE"])
@pytest.mark.parametrize("steps", [6, 7])
def test_high_acts_in_the_first_half_and_low_in_the_rest(
    model: Model, lora: LoraFile, scheduler: str, steps: int
) -> None:
    """With a negative of itself in the other half, a LoRA of both is a LoRA of one."""
    entry = [{"transformer": "high"}, {"transformer": "low"}]
    high, low = (run(model, [lora], [part], scheduler=scheduler, steps=steps) for part in entry)
    both = run(model, [lora], scheduler=scheduler, steps=steps)
    split = run(model, [lora, lora], entry, scheduler=scheduler, steps=steps)
    plain = generate(request(scheduler=scheduler, steps=steps), model, Unwatched())
    seen = [result.pictures[0].latent for result in (high, low, both, plain)]
    assert torch.equal(split.pictures[0].latent, seen[2])
    assert all(difference(seen[i], seen[j]) > 1e-3 for i in range(4) for j in range(i))


def test_the_stage_changes_once_and_where_it_is_said_to(model: Model, lora: LoraFile) -> None:
    patches = [(patch, 1.0) for patch in lora.match(model.plan).patches]
    feature = TransformerLoras(patches, [])
    resident = model.transformer()
    layer = resident.module.transformer_blocks[0].attn.to_q
    before = layer.weight
    seen = []
    with feature.running(Stage(resident.module, resident, torch.device("cpu"), torch.float32)):
        for step in (0, 0, 1, 2, 3, 4):
            feature.prepare(torch.zeros(1), Moment(step, 5, 1 - step / 5))
            seen.append(layer.weight is not before)
    assert seen == [True, True, True, True, False, False]
    assert layer.weight is before


@pytest.mark.parametrize("storage", [torch.float8_e4m3fn, torch.float16])
def test_a_lora_is_not_rounded_to_what_the_weights_are_stored_in(
    parser, checkpoint: Path, tmp_path: Path, storage: torch.dtype
) -> None:
    """So small a change would be lost in fp8, whose numbers are up to 6 % apart."""
    small = factors(LAYERS, 0, 0.03)
    file = LoraFile(write_lora(tmp_path / "lora.safetensors", FORMS["kohya"](LAYERS, small)), parser)
    model = open_model(checkpoint, LocalPlacement(torch.device("cpu"), torch.float32, storage))
    resident = model.transformer()
    before = weights(resident.module)
    layer = LAYERS[0]
    parts = [resident.module.get_submodule(name) for name in layer.diffusers]
    plain = torch.cat([part.effective_weight(torch.float32) for part in parts])
    with merged(resident, [(patch, 1.0) for patch in file.match(model.plan).patches]):
        changed = torch.cat([part.effective_weight(torch.float32) for part in parts])
    up, down = small[layer.published]
    assert torch.allclose(changed - plain, up @ down, atol=1e-6)
    assert torch.equal(torch.cat([part.effective_weight(torch.float32) for part in parts]), plain)
    assert all(
        torch.equal(tensor.view(torch.uint8), before[name].view(torch.uint8))
        for name, tensor in resident.module.state_dict().items()
    )


class OnDevice:
    """A resident whose tensors are copies of others, as they are on a GPU."""

    def __init__(self, module: torch.nn.Module):
        self.module = module
        self._originals = {id(tensor): tensor.detach().clone() for tensor in module.parameters()}

    def original(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._originals[id(tensor)]


def test_on_a_device_the_copies_are_changed_in_place_and_copied_again(model: Model, lora: LoraFile) -> None:
    module = model.transformer().module
    before = state(model)
    resident = OnDevice(module)
    patches = [(patch, 1.0) for patch in lora.match(model.plan).patches]
    at_home = {}
    with merged(model.transformer(), patches):
        at_home = state(model)
    objects = [id(tensor) for tensor in module.parameters()]
    weights_ = Merged(resident)
    weights_.put(patches)
    assert [id(tensor) for tensor in module.parameters()] == objects
    assert all(torch.equal(tensor, at_home[name]) for name, tensor in module.state_dict().items())
    weights_.undo()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_mapped_file_is_not_written_to(checkpoint: Path, model: Model, lora: LoraFile) -> None:
    before = checkpoint.read_bytes()
    run(model, [lora], steps=2)
    assert checkpoint.read_bytes() == before
    assert torch.equal(
        model.transformer().module.context_embedder.weight,
        load_file(checkpoint)["model.diffusion_model.context_embedder.weight"],
    )


def test_several_results_equal_their_single_runs(model: Model, lora: LoraFile) -> None:
    together = run(model, [lora], numberResults=2, steps=4)
    for index, picture in enumerate(together.pictures):
        alone = run(model, [lora], seed=5 + index, steps=4).pictures[0]
        assert torch.equal(picture.latent, alone.latent)


@pytest.fixture(autouse=True)
def _in_inference_mode() -> Iterator[None]:
    with torch.inference_mode():
        yield
