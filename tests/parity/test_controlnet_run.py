"""What nets add to each call of the transformer, and when they are not run: against diffusers' own modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from sd3_local.pipelines.canvas import Canvas
from sd3_local.pipelines.controlnet import ControlNetFile, ControlNets
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.generate import Result, generate
from sd3_local.pipelines.latents import SCALE, to_model
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched
from sd3_local.pipelines.placement import LocalPlacement

from tests.checkpoints import CheckpointSpec, ClipSpec, TransformerSpec, VAESpec, write_checkpoint, write_tensors
from tests.controlnets import make_net, single_net, write_net, write_original
from tests.engines import open_model, request

CLIPS = {"clip_l": ClipSpec(768, 3), "clip_g": ClipSpec(1280, 3, 1280)}
MEDIUM = TransformerSpec(blocks=4, width=256, context=4096, pooled=2048)
WIDTH, HEIGHT, STEPS = 96, 64, 4
TOLERANCE = 1e-4
PLACEMENT = LocalPlacement(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("controlnet") / "model.safetensors"
    return open_model(write_checkpoint(path, CheckpointSpec(MEDIUM, VAESpec(), **CLIPS), torch.float32))


@pytest.fixture(scope="module")
def joint() -> Any:
    return make_net(2, seed=1)


@pytest.fixture(scope="module")
def joint_file(joint: Any, tmp_path_factory: pytest.TempPathFactory) -> ControlNetFile:
    return ControlNetFile(write_net(tmp_path_factory.mktemp("net") / "joint.safetensors", joint), PLACEMENT)


def pictures(count: int = 1, seed: int = 3) -> torch.Tensor:
    noise = torch.rand(count, 3, 6, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (HEIGHT, WIDTH), mode="bilinear").movedim(1, -1).contiguous()


@dataclass
class Net:
    """One net of a request."""

    file: ControlNetFile
    fields: dict[str, Any] = field(default_factory=dict)
    guide: torch.Tensor = field(default_factory=pictures)


def asked(nets: Sequence[Net], **fields: Any) -> tuple[Any, Materials]:
    entries = [{"model": f"net {i}", "guideImage": f"guide {i}", **net.fields} for i, net in enumerate(nets)]
    given = {"width": WIDTH, "height": HEIGHT, "steps": STEPS, "negativePrompt": "blue", "CFGScale": 4.5, **fields}
    materials = Materials(
        pictures={f"guide {i}": net.guide for i, net in enumerate(nets)},
        control_nets={f"net {i}": net.file for i, net in enumerate(nets)},
    )
    return request(**given, controlNet=entries), materials


def run(model: Model, nets: Sequence[Net], **fields: Any) -> Result:
    wanted, materials = asked(nets, **fields)
    return generate(wanted, model, Unwatched(), materials)


def latents(result: Result) -> torch.Tensor:
    return torch.stack([picture.latent for picture in result.pictures])


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


@contextmanager
def watched(module: torch.nn.Module) -> Iterator[list[dict[str, Any]]]:
    """What `module` is called with."""
    calls: list[dict[str, Any]] = []
    hook = module.register_forward_pre_hook(lambda _, given, named: calls.append(named), with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def expected(net: Any, call: dict[str, Any], hint: torch.Tensor, pooled: bool = False) -> list[torch.Tensor]:
    """What diffusers' module gives for the inputs of a call of the transformer."""
    joint = net.config.joint_attention_dim is not None
    with torch.inference_mode():
        return net(
            hidden_states=call["hidden_states"],
            controlnet_cond=hint.expand(len(call["hidden_states"]), -1, -1, -1),
            encoder_hidden_states=call["encoder_hidden_states"] if joint else None,
            pooled_projections=call["pooled_projections"] * (1.0 if pooled else 0.0),
            timestep=call["timestep"],
            return_dict=False,
        )[0]


def hint_of(model: Model, guide: torch.Tensor, shifted: bool = False) -> torch.Tensor:
    encoded = model.encode_picture(guide[0], Unwatched())
    return to_model(encoded) if shifted else encoded * SCALE


def test_nets_of_other_depth_and_kind_are_added_up(model: Model, joint: Any, joint_file: Any, tmp_path: Path) -> None:
    """Stock cuts such nets to the shortest and takes all configuration from the first, so its modules are added by
    hand: a joint net of 2 layers, one of single blocks with 4, and one with a layer for each of 3 blocks.
    """
    single, three = single_net(4, seed=2), make_net(3, seed=4)
    nets = [
        Net(joint_file, {"weight": 0.8}),
        Net(ControlNetFile(write_original(tmp_path / "a.safetensors", single), PLACEMENT), {"weight": -0.6}),
        Net(ControlNetFile(write_net(tmp_path / "b.safetensors", three), PLACEMENT), {}, pictures(seed=8)),
    ]
    transformer = model.transformer().module
    with watched(transformer) as calls:
        run(model, nets)
    assert len(calls) == STEPS
    single.pos_embed = transformer.pos_embed
    plain, shifted = hint_of(model, pictures()), hint_of(model, pictures(), shifted=True)
    for call in calls:
        first = expected(joint, call, plain)
        second = expected(single, call, shifted, pooled=True)
        third = expected(three, call, hint_of(model, pictures(seed=8)))
        added = call["block_controlnet_hidden_states"]
        assert len(added) == 4
        for block in range(3):
            theirs = 0.8 * first[block // 2] - 0.6 * second[block] + third[block]
            assert difference(added[block], theirs) < TOLERANCE


def test_a_mode_that_lets_the_net_lead_spares_the_other_branch(model: Model, joint: Any, joint_file: Any) -> None:
    with watched(model.transformer().module) as calls, watched(joint_file.resident().module) as evaluated:
        run(model, [Net(joint_file, {"controlMode": "controlnet"})])
    assert [len(call["hidden_states"]) for call in calls] == [2] * STEPS
    assert [len(call["hidden_states"]) for call in evaluated] == [1] * STEPS
    for call in calls:
        theirs = expected(joint, call, hint_of(model, pictures()))
        for block in range(3):
            ours = call["block_controlnet_hidden_states"][block]
            assert not ours[0].any()  # the negative prompt's
            assert difference(ours[1], theirs[block // 2][1]) < TOLERANCE


def test_a_mode_that_lets_the_prompt_lead_weakens_early_layers(model: Model, joint: Any, joint_file: Any) -> None:
    with watched(model.transformer().module) as calls:
        run(model, [Net(joint_file, {"controlMode": "prompt", "weight": 2.0})])
    for call in calls:
        theirs = expected(joint, call, hint_of(model, pictures()))
        for block, strength in enumerate((2 * 0.825, 2 * 0.825, 2)):
            assert difference(call["block_controlnet_hidden_states"][block], strength * theirs[block // 2]) < TOLERANCE


def test_modes_give_different_pictures(model: Model, joint_file: Any) -> None:
    made = [
        latents(run(model, [Net(joint_file, {"controlMode": mode})])) for mode in ("balanced", "controlnet", "prompt")
    ]
    assert min(difference(made[a], made[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 0.01
    without_guidance = [
        latents(run(model, [Net(joint_file, {"controlMode": mode})], CFGScale=1.0))
        for mode in ("balanced", "controlnet")
    ]
    assert torch.equal(*without_guidance)


@pytest.mark.parametrize(
    ("fields", "scheduler", "steps", "evaluations"),
    [
        ({"startStep": 1, "endStep": 3}, "Default", [1, 2], 2),
        ({"startStepPercentage": 50}, "Default", [2, 3], 2),
        ({"endStepPercentage": 25}, "Default", [0], 1),
        ({"startStepPercentage": 80, "endStepPercentage": 90}, "Default", [], 0),
        ({"weight": 0.0}, "Default", [], 0),
        # Two evaluations a step, but one in the last, which has nothing after it. The second one of a step is at the
        # next one's sigma, and so belongs to that.
        ({"startStep": 1, "endStep": 3}, "Heun", [1, 2], 4),
        ({"startStep": 1, "endStep": 3}, "DPM++ 2M", [1, 2], 2),
    ],
)
def test_a_net_is_not_run_outside_its_window_or_without_weight(
    model: Model, joint_file: Any, fields: dict[str, Any], scheduler: str, steps: list[int], evaluations: int
) -> None:
    with watched(model.transformer().module) as calls, watched(joint_file.resident().module) as evaluated:
        account = run(model, [Net(joint_file, fields)], scheduler=scheduler).report.accounts[0]
    given = [call["block_controlnet_hidden_states"] is not None for call in calls]
    assert len(evaluated) == sum(given) == evaluations
    assert (account.data["steps"], account.data["evaluations"]) == (steps, evaluations)


def test_a_net_that_does_not_act_is_neither_read_nor_shown_anything(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ControlNetFile(write_net(tmp_path / "net.safetensors", make_net()), PLACEMENT)
    monkeypatch.setattr(model, "encode_picture", lambda *_: pytest.fail("a hint was encoded"))
    result = run(model, [Net(file, {"weight": 0.0}), Net(file, {"startStepPercentage": 99})])
    assert file.reading_seconds == 0
    wanted, _ = asked([Net(file)])
    alone = generate(wanted.model_copy(update={"control_net": None}), model, Unwatched())
    assert torch.equal(latents(result), latents(alone))
    told = [account.lines for account in result.report.accounts]
    assert told == [
        ("ControlNet net.safetensors: not run, its weight is 0",),
        ("ControlNet net.safetensors: not run, no step lies in its window",),
    ]


def test_each_result_has_the_picture_of_its_own_run(model: Model, joint_file: Any) -> None:
    guides = pictures(2)
    together = run(model, [Net(joint_file, {}, guides)], numberResults=2)
    for index in range(2):
        alone = run(model, [Net(joint_file, {}, guides[index : index + 1])], seed=5 + index)
        assert torch.equal(together.pictures[index].latent, alone.pictures[0].latent)
        assert torch.equal(together.pictures[index].pixels, alone.pictures[0].pixels)


def test_a_guide_image_is_encoded_once_a_run(model: Model, joint_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, seen = model.encode_picture, []
    monkeypatch.setattr(model, "encode_picture", lambda *given: seen.append(given) or encode(*given))
    run(model, [Net(joint_file)], numberResults=3, steps=1)
    assert len(seen) == 1
    run(model, [Net(joint_file, {}, pictures(3))], numberResults=3, steps=1)
    assert len(seen) == 4


@pytest.mark.parametrize("mode", ["balanced", "controlnet"])
@pytest.mark.parametrize("make", [make_net, single_net])
def test_full_memory_gives_the_same_picture_streamed(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Any], mode: str
) -> None:
    """The first run fails in its second step; the other calls each branch by itself."""
    file = ControlNetFile(write_net(tmp_path / "net.safetensors", make(2)), PLACEMENT)
    net = Net(file, {"controlMode": mode, "endStep": 3})
    whole = latents(run(model, [net]))
    transformer = model.transformer().module
    forward, calls = transformer.forward, []

    def full_once(*given: Any, **named: Any) -> Any:
        calls.append(named)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*given, **named)

    monkeypatch.setattr(transformer, "forward", full_once)
    with watched(file.resident().module) as evaluated:
        assert difference(latents(run(model, [net])), whole) < 1e-5
    # Two calls for the first try, then one a branch; the negative prompt's is spared where the net leads.
    assert [len(call["hidden_states"]) for call in calls] == [2, 2] + [1] * 2 * STEPS
    expected_calls = 2 + (3 if mode == "controlnet" else 6)
    assert len(evaluated) == expected_calls
    monkeypatch.undo()
    assert difference(latents(run(model, [net])), whole) < 1e-6


def test_one_net_may_act_twice(model: Model, joint_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module is brought to the device once, or its memory would count twice."""
    halves = [Net(joint_file, {"weight": 0.5}), Net(joint_file, {"weight": 0.25})]
    whole = latents(run(model, [Net(joint_file, {"weight": 0.75})]))
    together, placed = model.placement.together, []
    monkeypatch.setattr(
        model.placement, "together", lambda those, *room, **how: placed.append(those) or together(those, *room, **how)
    )
    assert difference(latents(run(model, halves)), whole) < 1e-5
    assert placed == [[model.transformer(), joint_file.resident()]]


def test_nothing_of_the_shared_modules_changes(model: Model, joint_file: Any, tmp_path: Path) -> None:
    single = ControlNetFile(write_net(tmp_path / "single.safetensors", single_net()), PLACEMENT)
    nets = [Net(joint_file), Net(single)]
    modules = [model.transformer().module, joint_file.resident().module, single.resident().module]

    def state() -> list[tuple[str, int, Any]]:
        return [
            (name, id(tensor), tensor.clone())
            for module in modules
            for name, tensor in (*module.named_parameters(), *module.named_buffers())
        ]

    before, processors = state(), [id(each) for each in modules[0].attn_processors.values()]
    first, again = latents(run(model, nets)), latents(run(model, nets))
    assert torch.equal(first, again)
    for (name, identity, value), (_, identity_after, value_after) in zip(before, state(), strict=True):
        assert identity == identity_after, name
        assert torch.equal(value, value_after), name
    assert processors == [id(each) for each in modules[0].attn_processors.values()]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


@pytest.mark.parametrize(
    ("stored", "compute", "tolerance"),
    [
        (torch.float16, torch.float32, 1e-2),
        (torch.bfloat16, torch.float32, 5e-2),
        (torch.float8_e4m3fn, torch.float32, 0.3),
        (torch.float16, torch.bfloat16, 0.1),
    ],
)
def test_narrow_files_and_other_precisions_than_the_transformer_s(
    model: Model, tmp_path: Path, stored: torch.dtype, compute: torch.dtype, tolerance: float
) -> None:
    net = make_net(2)
    narrow = {name: value.to(stored if value.ndim == 2 else torch.float16) for name, value in net.state_dict().items()}
    placement = LocalPlacement(torch.device("cpu"), compute)
    file = ControlNetFile(write_tensors(tmp_path / "narrow.safetensors", narrow), placement)
    full = ControlNetFile(write_net(tmp_path / "full.safetensors", net), PLACEMENT)
    ours, theirs = (latents(run(model, [Net(each, {"weight": 0.3})], steps=2)) for each in (file, full))
    assert 0 < difference(ours, theirs) < tolerance
    layer = file.resident().module.controlnet_blocks[0]
    assert layer.weight.dtype == stored


def test_a_file_in_the_compute_type_is_not_copied(model: Model, tmp_path: Path) -> None:
    """Weights are views of one mapping of the file."""
    file = ControlNetFile(write_net(tmp_path / "net.safetensors", make_net(2)), PLACEMENT)
    places = [value.data_ptr() for value in file.resident().module.state_dict().values()]
    size = (tmp_path / "net.safetensors").stat().st_size
    assert max(places) - min(places) < size


def features_of(model: Model, net: Net, canvas: Canvas, **fields: Any) -> torch.Tensor:
    """The hint that a net is shown on a canvas."""
    wanted, materials = asked([net])
    inputs = {name: f"test:{name}" for name in fields if name.endswith("Image")}
    if inputs:
        materials = Materials.merged([materials, Materials(pictures={inputs[name]: fields[name] for name in inputs})])
        wanted = request(**{**wanted.model_dump(by_alias=True, exclude_none=True, mode="json"), "inputs": inputs})
    (control,) = ControlNets(wanted, model, materials, Unwatched()).features(canvas, 0)
    return control._hint


def test_the_guide_image_is_cut_with_the_canvas(model: Model, joint_file: Any) -> None:
    large = pictures().repeat_interleave(2, 1).repeat_interleave(2, 2)
    framed = torch.nn.functional.pad(large, (0, 0, 50, 50))  # of other proportions; what is over is cut off
    canvas = Canvas(WIDTH, HEIGHT, box=Canvas.whole(64, 64).box, painted_width=64, painted_height=64)
    hint = features_of(model, Net(joint_file, {}, framed), canvas)
    expected_hint = model.encode_picture(pictures()[0, :64, :64], Unwatched()) * SCALE
    assert hint.shape == (1, 16, 8, 8)
    assert difference(hint, expected_hint) < 0.05


def test_an_inpainting_net_is_told_the_run_s_mask(model: Model, tmp_path: Path) -> None:
    file = ControlNetFile(write_net(tmp_path / "net.safetensors", make_net(1, extra=1)), PLACEMENT)
    mask = torch.zeros(1, HEIGHT, WIDTH, 1)
    mask[:, 16:40, 24:72] = 1
    mask[:, :, :8] = 0.4  # changes in part: still shown
    whole = Canvas.whole(WIDTH, HEIGHT)
    # Transparency does not count beside a mask.
    guide = torch.cat([pictures(), torch.ones(1, HEIGHT, WIDTH, 1)], dim=-1)
    hint = features_of(model, Net(file, {}, guide), whole, seedImage=pictures(seed=9), maskImage=mask)
    white = mask[0] > 0.5
    black = pictures()[0].masked_fill(white, 0.0)
    assert difference(hint[:, :16], to_model(model.encode_picture(black, Unwatched()))) < 1e-6
    assert torch.equal(hint[0, 16], 1 - white[::8, ::8, 0].float())
    kept = features_of(model, Net(file), whole)
    assert torch.equal(kept[0, 16], torch.ones(8, 12))
    assert difference(kept[:, :16], to_model(model.encode_picture(pictures()[0], Unwatched()))) < 1e-6
    result = run(model, [Net(file)], steps=1)
    assert "an inpainting net without a mask" in str(result.report)


def test_weights_that_are_no_numbers_are_told_of_their_net(model: Model, joint_file: Any, tmp_path: Path) -> None:
    content = make_net().state_dict()
    content["controlnet_blocks.1.bias"][3] = float("nan")
    file = ControlNetFile(write_tensors(tmp_path / "net.safetensors", content), PLACEMENT)
    with pytest.raises(RequestError, match=r"NaN or infinite weights \(\"controlnet_blocks\.1\.bias\"\)") as caught:
        run(model, [Net(joint_file), Net(file)])
    assert [fault.parameter for fault in caught.value.faults] == ["controlNet[1].model"]


def test_all_wrong_nets_are_told_before_anything_is_read(model: Model, joint_file: Any, tmp_path: Path) -> None:
    wide = ControlNetFile(write_net(tmp_path / "net.safetensors", make_net(1, width=128)), PLACEMENT)
    with pytest.raises(RequestError) as caught:
        run(model, [Net(joint_file, {}, torch.rand(1, 1, 1, 3)), Net(wide)])
    assert [fault.parameter for fault in caught.value.faults] == ["controlNet[0].guideImage", "controlNet[1].model"]
    assert wide.reading_seconds == 0
