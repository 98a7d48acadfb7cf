"""IP-Adapters in whole runs: against stock diffusers, and against sums of its own attention processors."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sd3_local.pipelines.ip_adapter import IPAdapterFile, VisionFile
from sd3_local.pipelines.ip_adapter.weights import block_weights
from sd3_local.pipelines.latents import to_model
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched
from sd3_local.pipelines.placement import LocalPlacement

from tests.checkpoints import CheckpointSpec, ClipSpec, TransformerSpec, VAESpec, write_checkpoint
from tests.engines import open_model
from tests.ip_adapters import (
    SIDE,
    Entry,
    Halves,
    asked,
    difference,
    guide,
    latents,
    make_adapter,
    make_vision,
    original,
    run,
    write_adapter,
    write_vision,
)

CLIPS = {"clip_l": ClipSpec(768, 3), "clip_g": ClipSpec(1280, 3, 1280)}
BLOCKS, WIDTH, STEPS = 4, 128, 3
MEDIUM = TransformerSpec(blocks=BLOCKS, width=WIDTH, context=2048, pooled=2048)
DUAL = TransformerSpec(blocks=BLOCKS, width=WIDTH, context=2048, pooled=2048, rms=True, dual=(0, 1, 2))
TOLERANCE = 1e-4
PLACEMENT = LocalPlacement(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("ip-adapter") / "model.safetensors"
    return open_model(write_checkpoint(path, CheckpointSpec(MEDIUM, VAESpec(), **CLIPS), torch.float32))


@pytest.fixture(scope="module")
def dual(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("dual") / "model.safetensors"
    return open_model(write_checkpoint(path, CheckpointSpec(DUAL, VAESpec(), **CLIPS), torch.float32))


@pytest.fixture(scope="module")
def vision() -> Any:
    return make_vision(side=SIDE)


@pytest.fixture(scope="module")
def encoder(vision: Any, tmp_path_factory: pytest.TempPathFactory) -> VisionFile:
    return VisionFile(write_vision(tmp_path_factory.mktemp("vision") / "vision.safetensors", vision), PLACEMENT)


@pytest.fixture(scope="module")
def halves() -> list[Halves]:
    """Two different adapters."""
    return [make_adapter(BLOCKS, WIDTH, seed=seed) for seed in (10, 20)]


@pytest.fixture(scope="module")
def files(halves: list[Halves], encoder: VisionFile, tmp_path_factory: pytest.TempPathFactory) -> list[IPAdapterFile]:
    folder = tmp_path_factory.mktemp("adapters")
    paths = [write_adapter(folder / f"{number}.safetensors", each) for number, each in enumerate(halves)]
    return [IPAdapterFile(path, encoder, PLACEMENT) for path in paths]


STOCK = [
    # layout, guidance, weight, embedScaling
    ("bin", 4.5, 1.0, "kv"),
    ("original", 1.0, 1.0, "kv"),
    ("diffusers", 4.5, 0.6, "only_v"),
    ("diffusers", 4.5, 1.7, "only_v"),
]


@pytest.mark.parametrize(("layout", "guidance", "weight", "scaling"), STOCK)
def test_one_adapter_is_stock_diffusers(
    model: Model,
    vision: Any,
    encoder: VisionFile,
    halves: list[Halves],
    tmp_path: Path,
    layout: str,
    guidance: float,
    weight: float,
    scaling: str,
) -> None:
    """The pipeline reads the adapter itself, from the very file, and sees the picture by its own processor."""
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
    from transformers import SiglipImageProcessor

    content = halves[0] if layout == "diffusers" else original(halves[0])
    path = write_adapter(tmp_path / ("ip-adapter.bin" if layout == "bin" else "ip-adapter.safetensors"), content)
    entry = Entry(IPAdapterFile(path, encoder, PLACEMENT), {"weight": weight, "embedScaling": scaling})
    ours = latents(run(model, [entry], CFGScale=guidance))
    assert difference(ours, latents(run(model, [], CFGScale=guidance))) > 0.1

    positive, negative = model.encode([asked([])[0].positive_prompt, "blue"], 0, Unwatched())
    pipeline = StableDiffusion3Pipeline(
        transformer=copy.deepcopy(model.transformer().module),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        image_encoder=vision,
        feature_extractor=SiglipImageProcessor(size={"height": SIDE, "width": SIDE}),
        **dict.fromkeys(
            ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")
        ),
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_ip_adapter(str(tmp_path), weight_name=path.name, image_encoder_folder=None)
    pipeline.set_ip_adapter_scale(weight)
    theirs = pipeline(
        prompt_embeds=positive.context,
        pooled_prompt_embeds=positive.pooled,
        negative_prompt_embeds=negative.context,
        negative_pooled_prompt_embeds=negative.pooled,
        ip_adapter_image=Image.fromarray((guide()[0].numpy() * 255).round().astype(np.uint8)),
        width=96,
        height=64,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).images
    assert difference(to_model(ours), theirs) < TOLERANCE


# What follows compares each call of the transformer with one whose processors are built from diffusers' own.


@contextmanager
def watched(module: torch.nn.Module) -> Iterator[list[tuple[dict[str, Any], torch.Tensor]]]:
    """What `module` is called with, and what it gives."""
    calls: list[tuple[dict[str, Any], torch.Tensor]] = []
    hook = module.register_forward_hook(
        lambda _, __, named, given: calls.append((named, given[0].clone())), with_kwargs=True
    )
    try:
        yield calls
    finally:
        hook.remove()


@dataclass
class Term:
    """What an adapter should add: its weights, the weight in each block, what the resampler is given for the prompt
    [images, tokens, features], and what its keys are multiplied by after their norm.
    """

    halves: Halves
    weights: Sequence[float]
    embeddings: torch.Tensor
    keys: float = 1.0


def resampled(halves: Halves, embeddings: torch.Tensor, timestep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For [zeros, embeddings], one picture after the other."""
    from diffusers.models.embeddings import IPAdapterTimeImageProjection

    width = halves["image_proj"]["proj_out.weight"].shape[0]
    projection = IPAdapterTimeImageProjection(embeddings.shape[-1], width, 64, 4, 64, 1, 4, 4, 32)
    projection.load_state_dict(halves["image_proj"])
    made = [projection(torch.stack([torch.zeros_like(each), each]), timestep) for each in embeddings]
    return torch.cat([tokens for tokens, _ in made], dim=1), made[0][1]


class Sum:
    """to_out is linear, so what several adapters add to its input is the sum of what each adds to its output."""

    def __init__(self, terms: Sequence[Term], block: int):
        from diffusers.models.attention_processor import JointAttnProcessor2_0, SD3IPAdapterJointAttnProcessor2_0

        self.plain = JointAttnProcessor2_0()
        self.guided = []
        for term in terms:
            processor = SD3IPAdapterJointAttnProcessor2_0(WIDTH, WIDTH, 64, 64, scale=term.weights[block])
            own = {
                name.removeprefix(f"{block}."): value
                for name, value in term.halves["ip_adapter"].items()
                if name.startswith(f"{block}.")
            }
            processor.load_state_dict({**own, "norm_ip_k.weight": own["norm_ip_k.weight"] * term.keys})
            self.guided.append(processor)

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any, attention_mask: Any = None) -> Any:
        image, text = self.plain(attn, hidden_states, encoder_hidden_states)
        guided = [
            processor(attn, hidden_states, encoder_hidden_states, None, tokens, time)[0]
            for processor, (tokens, time) in zip(self.guided, self.shown, strict=True)
        ]
        return image + sum(each - image for each in guided), text


def expected(model: Model, call: dict[str, Any], terms: Sequence[Term]) -> torch.Tensor:
    """What the transformer should give for a call."""
    transformer = copy.deepcopy(model.transformer().module)
    with torch.inference_mode():
        shown = [resampled(term.halves, term.embeddings, call["timestep"]) for term in terms]
        for index, block in enumerate(transformer.transformer_blocks):
            block.attn.processor = Sum(terms, index)
            block.attn.processor.shown = shown
        return transformer(**call)[0]


def embeddings(vision: Any, *guides: torch.Tensor) -> torch.Tensor:
    """What diffusers would see of pictures of the encoder's size."""
    pixels = torch.cat(guides).movedim(-1, 1) * 2 - 1
    with torch.inference_mode():
        return vision(pixels, output_hidden_states=True).hidden_states[-2]


def compare(model: Model, entries: Sequence[Entry], terms: Sequence[Term]) -> None:
    with watched(model.transformer().module) as calls:
        run(model, entries)
    assert len(calls) == STEPS
    for call, ours in calls:
        theirs = expected(model, call, terms)
        assert difference(ours, theirs) < TOLERANCE
        # Each adapter matters.
        for left_out in range(len(terms)):
            less = expected(model, call, [*terms[:left_out], *terms[left_out + 1 :]])
            assert difference(ours, less) > 100 * TOLERANCE


@pytest.mark.parametrize("kind", ["model", "dual"])
def test_two_adapters_add_up_on_models_of_both_kinds(
    request: pytest.FixtureRequest, kind: str, vision: Any, halves: list[Halves], files: list[IPAdapterFile]
) -> None:
    """Second attentions (`attn2`, in "dual") take no part, where stock diffusers can't run at all."""
    pictures = [guide(1), guide(2)]
    entries = [
        Entry(file, {"weight": weight, "embedScaling": "only_v"}, [picture])
        for file, weight, picture in zip(files, (0.8, 1.3), pictures, strict=True)
    ]
    terms = [
        Term(each, [weight] * BLOCKS, embeddings(vision, picture))
        for each, weight, picture in zip(halves, (0.8, 1.3), pictures, strict=True)
    ]
    compare(request.getfixturevalue(kind), entries, terms)


COMBINED = {
    "concat": lambda e: e,
    "add": lambda e: e.sum(0, keepdim=True),
    "subtract": lambda e: (e[0] - (e[1] + e[2]) / 2)[None],
    "average": lambda e: e.mean(0, keepdim=True),
    "norm_average": lambda e: (
        (e / e.norm(dim=-1, keepdim=True)).mean(0, keepdim=True) * e.norm(dim=-1, keepdim=True).mean(0, keepdim=True)
    ),
}


@pytest.mark.parametrize("method", COMBINED)
def test_guide_images_are_combined(
    model: Model, vision: Any, halves: list[Halves], files: list[IPAdapterFile], method: str
) -> None:
    pictures = [guide(seed) for seed in (1, 2, 3)]
    seen = COMBINED[method](embeddings(vision, *pictures))
    # A batch under one name is as many guide images as names are.
    for given in (pictures, [torch.cat(pictures[:2]), pictures[2]]):
        compare(model, [Entry(files[0], {"combineMethod": method}, given)], [Term(halves[0], [1.0] * BLOCKS, seen)])


@pytest.mark.parametrize(
    ("scaling", "weight", "keys"),
    [("only_v", 1.7, 1.0), ("kv", 1.7, 1.7), ("kv", 0.4, 0.4), ("kv_penalty_c", 5.0 / 2, 5.0 / 2 * WIDTH / 1280)],
)
def test_keys_are_scaled_after_their_norm(
    model: Model,
    vision: Any,
    halves: list[Halves],
    files: list[IPAdapterFile],
    scaling: str,
    weight: float,
    keys: float,
) -> None:
    """In stock's processor the weight of the keys' norm comes after it, so a multiple of that is the reference."""
    strength = keys if scaling != "only_v" else weight
    entry = Entry(files[0], {"weight": weight, "embedScaling": scaling})
    compare(model, [entry], [Term(halves[0], [strength] * BLOCKS, embeddings(vision, guide()), keys)])


@pytest.mark.parametrize("kind", ["ease_in", "weak_middle", "style_transfer", "style_and_composition"])
def test_each_block_has_its_own_weight(
    model: Model, vision: Any, halves: list[Halves], files: list[IPAdapterFile], kind: str
) -> None:
    fields = {"weight": 1.4, "embedScaling": "only_v", "weightType": kind, "weightComposition": 0.3}
    weights = block_weights(asked([Entry(files[0], fields)])[0].ip_adapters[0], BLOCKS)
    assert len(set(weights)) > 1
    compare(model, [Entry(files[0], fields)], [Term(halves[0], weights, embeddings(vision, guide()))])
