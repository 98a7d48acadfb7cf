"""What LoRA files ask of ComfyUI's adapters: what fits and what does not, and what narrow weights cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sd3_local.pipelines.errors import Fault
from sd3_local.pipelines.generate import generate
from sd3_local.pipelines.lora import LoraFile
from sd3_local.pipelines.lora.merge import merged
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched
from sd3_local.pipelines.placement import LocalPlacement
from torch.utils.flop_counter import FlopCounterMode

from tests.checkpoints import CheckpointSpec, ClipSpec, TransformerSpec, VAESpec, write_checkpoint
from tests.engines import open_model, request
from tests.loras import FORMS, RANK, factors, layers, write_lora

WIDTH, CONTEXT = 192, 128
SPEC = TransformerSpec(blocks=3, width=WIDTH, context=CONTEXT, pooled=128)
LAYERS = layers(WIDTH, 3, CONTEXT)
QUERY = "transformer.transformer_blocks.0.attn.to_q"
PROJECTION = "lora_unet_joint_blocks_0_x_block_attn_proj"

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def parser(comfy):
    from sd3_local.host.lora import parse_adapters

    return parse_adapters


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = {"clip_l": ClipSpec(64), "clip_g": ClipSpec(64, projection=64)}
    path = tmp_path_factory.mktemp("lora") / "model.safetensors"
    return write_checkpoint(path, CheckpointSpec(SPEC, VAESpec(), **clips), torch.float32)


@pytest.fixture
def model(checkpoint: Path) -> Model:
    return open_model(checkpoint)


def opened(parser, folder: Path, tensors: Tensors) -> LoraFile:
    return LoraFile(write_lora(folder / "lora.safetensors", tensors), parser)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.05


def pair(rows: int, columns: int) -> Tensors:
    return {"lora_up.weight": random(rows, RANK), "lora_down.weight": random(RANK, columns, seed=1)}


def at(layer: str, tensors: Tensors) -> Tensors:
    return {f"{layer}.{name}": tensor for name, tensor in tensors.items()}


BROKEN: dict[str, tuple[Tensors, str]] = {
    "no down": (at(QUERY, {"lora_B.weight": random(WIDTH, RANK)}), "lacks the tensor"),
    "three alphas": (at(QUERY, {**pair(WIDTH, WIDTH), "alpha": torch.ones(3)}), "cannot be read"),
    "two ranks": (
        at(QUERY, {"lora_B.weight": random(WIDTH, 4), "lora_A.weight": random(8, WIDTH)}),
        "go neither with each other",
    ),
    "LoHa of two ranks": (
        at(QUERY, {f"hada_w{n}_{s}": random(*((WIDTH, 4) if s == "a" else (3, WIDTH))) for n in "12" for s in "ab"}),
        "go neither with each other",
    ),
    "OFT of other rows": (at(PROJECTION, {"oft_blocks": random(5, 7, 7)}), f"{WIDTH} x {WIDTH} there"),
    "GLoRA of other rows": (
        at(QUERY, {f"{name}.weight": random(7, 7) for name in ("a1", "a2", "b1", "b2")}),
        f"{WIDTH} x {WIDTH} there",
    ),
    "bias of another size": (at("diffusion_model.context_embedder", {"diff_b": random(80)}), f"{WIDTH} there"),
    "set of another size": (at("diffusion_model.context_embedder", {"set_weight": random(1, 1)}), "is 1 x 1"),
    "magnitudes of another size": (
        at(QUERY, {**pair(WIDTH, WIDTH), "dora_scale": torch.ones(5, 1)}),
        "go neither with each other",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_tensors_that_do_not_fit_are_one_fault_and_not_a_line_in_a_log(
    parser, model: Model, tmp_path: Path, case: str
) -> None:
    tensors, told = BROKEN[case]
    found: list[Fault] = list(opened(parser, tmp_path, tensors).faults(model.plan, "lora[3].model"))
    assert [fault.parameter for fault in found] == ["lora[3].model"]
    assert told in found[0].message
    assert "lora.safetensors" in found[0].message
    assert model.reading_seconds == 0


FITTING: dict[str, Tensors] = {
    "OFT": at(PROJECTION, {"oft_blocks": random(6, 32, 32), "alpha": torch.tensor(0.5)}),
    "BOFT": at(PROJECTION, {"oft_blocks": random(2, 6, 32, 32), "alpha": torch.tensor(0.5)}),
    "GLoRA": at(
        QUERY,
        {
            "a1.weight": random(WIDTH, RANK, seed=1),
            "a2.weight": random(RANK, WIDTH, seed=2),
            "b1.weight": random(WIDTH, RANK, seed=3),
            "b2.weight": random(RANK, WIDTH, seed=4),
        },
    ),
    "set": at("diffusion_model.context_embedder", {"set_weight": random(WIDTH, CONTEXT)}),
}


@pytest.mark.parametrize("case", FITTING)
def test_rarer_adapters_fit_and_change_their_one_layer(parser, model: Model, tmp_path: Path, case: str) -> None:
    file = opened(parser, tmp_path, FITTING[case])
    assert list(file.faults(model.plan, "lora[0].model")) == []
    module = model.transformer().module
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with merged(model.transformer(), [(patch, 0.7) for patch in file.match(model.plan).patches]):
        changed = [name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])]
    assert len(changed) == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_bias_in_the_published_order_is_turned_to_the_module_s(parser, model: Model, tmp_path: Path) -> None:
    """The last modulation's halves are (shift, scale) in published files, and (scale, shift) in diffusers."""
    shift_scale = torch.cat([torch.full((WIDTH,), 1.0), torch.full((WIDTH,), 2.0)])
    file = opened(parser, tmp_path, {"diffusion_model.final_layer.adaLN_modulation.1.diff_b": shift_scale})
    bias = model.transformer().module.norm_out.linear.bias.clone()
    with merged(model.transformer(), [(patch, 0.5) for patch in file.match(model.plan).patches]):
        change = model.transformer().module.norm_out.linear.bias - bias
    assert torch.allclose(change, torch.cat([torch.full((WIDTH,), 1.0), torch.full((WIDTH,), 0.5)]), atol=1e-6)


def test_a_bias_for_a_layer_without_one_is_told_as_unmatched(parser, model: Model, tmp_path: Path) -> None:
    tensors = {**at("lora_te2_text_projection", pair(64, 64)), "lora_te2_text_projection.diff_b": random(64)}
    match = opened(parser, tmp_path, tensors).match(model.plan)
    assert match.unmatched == ("lora_te2_text_projection.diff_b",)
    assert [patch.bias for patch in match.patches] == [False]


@pytest.mark.parametrize("layer", ["mlp.fc1", "self_attn.q_proj"])
def test_text_layers_are_known_by_all_their_names(parser, model: Model, tmp_path: Path, layer: str) -> None:
    inner = f"text_model.encoder.layers.0.{layer}"
    for number, kind, theirs in ((1, "clip_l", "text_encoder"), (2, "clip_g", "text_encoder_2")):
        names = [f"lora_te{number}_{inner.replace('.', '_')}", f"{theirs}.{inner}", f"{kind}.{inner}"]
        names += [f"text_encoders.{kind}.transformer.{inner}", f"{theirs}.encoder.layers.0.{layer}"]
        for name in names:
            match = opened(parser, tmp_path, at(name, pair(256 if layer == "mlp.fc1" else 64, 64))).match(model.plan)
            assert [patch.site.kind for patch in match.patches] == [kind], name
            assert match.unmatched == (), name


@pytest.mark.parametrize(
    ("layer", "made_for"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv", "Flux"),
        ("transformer.single_transformer_blocks.0.attn.to_q", "Flux"),
        ("lora_unet_down_blocks_1_attentions_0_proj_in", "Stable Diffusion 1.5, 2 or SDXL"),
        ("diffusion_model.blocks.0.cross_attn.q", "Wan video"),
    ],
)
def test_a_foreign_lora_says_whose_it_is(parser, model: Model, tmp_path: Path, layer: str, made_for: str) -> None:
    (fault,) = opened(parser, tmp_path, at(layer, pair(64, 64))).faults(model.plan, "lora[0].model")
    assert f"another kind of model, {made_for}." in fault.message


def narrow(checkpoint: Path) -> Model:
    return open_model(checkpoint, LocalPlacement(torch.device("cpu"), torch.float32, torch.float8_e4m3fn))


@pytest.mark.parametrize("form", ["kohya", "peft", "lycoris-lokr", "full-difference"])
def test_narrow_weights_take_several_loras_exactly_in_every_form(
    parser, checkpoint: Path, tmp_path: Path, form: str
) -> None:
    model, small = narrow(checkpoint), [factors(LAYERS, seed, 0.03) for seed in range(3)]
    strengths = (0.8, -0.5, 1.5)
    patches = []
    for values, strength in zip(small, strengths, strict=True):
        file = opened(parser, tmp_path, FORMS[form](LAYERS, values))
        patches += [(patch, strength) for patch in file.match(model.plan).patches]
    module = model.transformer().module
    named = {layer.published: [module.get_submodule(name) for name in layer.diffusers] for layer in LAYERS}
    before = {
        name: torch.cat([part.effective_weight(torch.float32) for part in parts]) for name, parts in named.items()
    }
    with merged(model.transformer(), patches):
        for layer in LAYERS:
            own = torch.cat([part.effective_weight(torch.float32) for part in named[layer.published]])
            added = sum(
                s * v[layer.published][0] @ v[layer.published][1] for v, s in zip(small, strengths, strict=True)
            )
            if layer.swapped:
                added = torch.cat(added.chunk(2)[::-1])
            assert torch.allclose(own - before[layer.published], added, atol=1e-6), layer.published
    for name, parts in named.items():
        assert torch.equal(torch.cat([part.effective_weight(torch.float32) for part in parts]), before[name])
        assert all(part.patch is None for part in parts)


@pytest.mark.parametrize("storage", [torch.float32, torch.float8_e4m3fn])
def test_three_loras_cost_less_than_3_percent_of_a_step_s_arithmetic(
    parser, checkpoint: Path, tmp_path: Path, storage: torch.dtype
) -> None:
    """Counted and not timed: merged weights cost nothing, and narrow ones one product of low rank for each use."""
    model = open_model(checkpoint, LocalPlacement(torch.device("cpu"), torch.float32, storage))
    module = model.transformer().module
    # 2 x (512 x 512 pixels), as a guided step has them: the longer the sequence, the less a LoRA matters.
    given = {
        "hidden_states": random(2, 16, 64, 64),
        "encoder_hidden_states": random(2, 154, CONTEXT),
        "pooled_projections": random(2, 128),
        "timestep": torch.tensor([500.0, 500.0]),
    }

    def operations() -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(**given)
        return counter.get_total_flops()

    plain = operations()
    patches = []
    for seed in range(3):
        file = opened(parser, tmp_path, FORMS["kohya"](LAYERS, factors(LAYERS, seed)))
        patches += [(patch, 1.0) for patch in file.match(model.plan).patches]
    with merged(model.transformer(), patches):
        more = operations() - plain
    once = sum(2 * layer.rows * layer.columns * 3 * RANK for layer in LAYERS)
    assert more == (0 if storage == torch.float32 else once)
    assert more < 0.03 * plain


@pytest.mark.parametrize("storage", [torch.float32, torch.float8_e4m3fn])
def test_full_memory_starts_again_with_the_loras_on_streamed_weights(
    parser, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: torch.dtype
) -> None:
    model = open_model(checkpoint, LocalPlacement(torch.device("cpu"), torch.float32, storage))
    materials = Materials(
        loras={
            form: opened(parser, tmp_path, FORMS[form](LAYERS, factors(LAYERS))) for form in ("kohya", "lycoris-lokr")
        }
    )
    entries = [{"model": "kohya", "transformer": "high"}, {"model": "lycoris-lokr", "transformer": "low"}]
    asked = request(lora=entries, steps=3)
    expected = generate(asked, model, Unwatched(), materials).pictures[0].latent
    module = model.transformer().module
    objects = {name: id(tensor) for name, tensor in module.named_parameters()}
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    forward, failures = module.forward, [2]

    def full_in_the_second_evaluation(*arguments, **given):
        failures[0] -= 1
        if failures[0] == 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*arguments, **given)

    monkeypatch.setattr(module, "forward", full_in_the_second_evaluation)
    again = generate(asked, model, Unwatched(), materials).pictures[0].latent
    monkeypatch.undo()
    assert failures[0] < 0
    assert ((again - expected).norm() / expected.norm()) < 1e-5
    assert {name: id(tensor) for name, tensor in module.named_parameters()} == objects
    assert all(
        torch.equal(tensor.view(torch.uint8), before[name].view(torch.uint8))
        for name, tensor in module.state_dict().items()
    )
    assert not any(getattr(part, "patch", None) for part in module.modules())


@pytest.fixture(autouse=True)
def _in_inference_mode():
    with torch.inference_mode():
        yield
