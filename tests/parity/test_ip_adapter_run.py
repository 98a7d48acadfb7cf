"""What IP-Adapters do to a run beside their sum: signs, samplers, precisions, and that they leave nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.ip_adapter import IPAdapterFile, VisionFile
from sd3_local.pipelines.ip_adapter.attention import PictureTerm, Shown
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched
from sd3_local.pipelines.placement import LocalPlacement

from tests.checkpoints import CheckpointSpec, ClipSpec, TransformerSpec, VAESpec, write_checkpoint
from tests.engines import open_model
from tests.ip_adapters import (
    Entry,
    Halves,
    asked,
    difference,
    guide,
    latents,
    make_adapter,
    make_vision,
    run,
    write_adapter,
    write_vision,
)

CLIPS = {"clip_l": ClipSpec(768, 3), "clip_g": ClipSpec(1280, 3, 1280)}
BLOCKS, WIDTH, STEPS = 3, 128, 3
SPEC = TransformerSpec(blocks=BLOCKS, width=WIDTH, context=2048, pooled=2048, rms=True, dual=(0, 1))
PLACEMENT = LocalPlacement(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    return write_checkpoint(path, CheckpointSpec(SPEC, VAESpec(), **CLIPS), torch.float32)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Model:
    return open_model(checkpoint)


@pytest.fixture(scope="module")
def halves() -> Halves:
    return make_adapter(BLOCKS, WIDTH, seed=30)


@pytest.fixture
def paths(halves: Halves, tmp_path: Path) -> tuple[Path, Path]:
    """The files of an adapter and its encoder."""
    vision = write_vision(tmp_path / "vision.safetensors", make_vision())
    return write_adapter(tmp_path / "adapter.safetensors", halves), vision


def opened(paths: tuple[Path, Path], placement: LocalPlacement = PLACEMENT) -> IPAdapterFile:
    return IPAdapterFile(paths[0], VisionFile(paths[1], placement), placement)


def layers_of(file: IPAdapterFile) -> Any:
    return file.resident().module.ip_adapter[0]


def naive(layers: Any, shown: Shown, weight: float, scaling: str, qkv: Any) -> torch.Tensor:
    """The term by its formula, one head and one token at a time."""
    u, c = abs(weight), WIDTH / 1280
    if scaling in ("kv_penalty_c", "k_mean_v_penalty_c"):
        u = c * u

    def normed(x: torch.Tensor, norm: Any) -> torch.Tensor:
        return x / (x.pow(2).mean() + 1e-6).sqrt() * norm.weight

    pictures = layers.norm_ip(shown.tokens, temb=shown.time)
    keys, values = layers.to_k_ip(pictures), layers.to_v_ip(pictures)
    out = torch.zeros_like(qkv[0])
    for row in range(len(out)):
        for head in range(2):
            part = slice(64 * head, 64 * head + 64)
            q, k, v = (each[row, head] for each in qkv)
            v_p = values[row, :, part]
            if scaling == "k_mean_v_penalty_c":
                v_p = v_p - v_p.mean(0) + u * v_p.mean(0)
                v = v * u
            else:
                v, v_p = u * v, u * v_p
            if weight < 0:
                v = 0 * v
            times = 1.0 if scaling == "only_v" else u
            all_keys = [normed(each, layers.norm_k) for each in k]
            all_keys += [normed(each, layers.norm_ip_k) * times for each in keys[row, :, part]]
            for token in range(len(q)):
                scores = torch.stack(all_keys) @ normed(q[token], layers.norm_q) / 8
                out[row, head, token] = scores.softmax(0) @ torch.cat([v, v_p])
    return out if weight > 0 else -out


@pytest.mark.parametrize("scaling", ["only_v", "kv", "kv_penalty_c", "k_mean_v_penalty_c"])
@pytest.mark.parametrize("weight", [1.0, 2.5, -1.0, -0.7])
def test_a_term_is_its_formula(paths: tuple[Path, Path], scaling: str, weight: float) -> None:
    generator = torch.Generator().manual_seed(2)
    qkv = torch.randn(3, 2, 2, 6, 64, generator=generator)
    shown = Shown(torch.randn(2, 8, WIDTH, generator=generator), torch.randn(2, 64, generator=generator))
    with torch.inference_mode():
        layers = layers_of(opened(paths))
        ours = PictureTerm(layers, shown, weight, scaling)(*qkv)
        assert difference(ours, naive(layers, shown, weight, scaling, qkv)) < 1e-5


def test_a_negative_weight_takes_away_what_the_guides_add_and_nothing_of_the_image(paths: tuple[Path, Path]) -> None:
    generator = torch.Generator().manual_seed(3)
    qkv = torch.randn(3, 1, 2, 6, 64, generator=generator)
    shown = Shown(torch.randn(1, 8, WIDTH, generator=generator), torch.randn(1, 64, generator=generator))
    query, key, value = qkv
    with torch.inference_mode():
        layers = layers_of(opened(paths))
        for scaling in ("only_v", "kv", "kv_penalty_c", "k_mean_v_penalty_c"):
            added = PictureTerm(layers, shown, 0.6, scaling)(query, key, torch.zeros_like(value))
            assert torch.equal(PictureTerm(layers, shown, -0.6, scaling)(*qkv), -added)


def test_negative_weights_steer_to_the_other_side_of_the_run(
    model: Model, halves: Halves, tmp_path: Path, paths: tuple[Path, Path]
) -> None:
    """With small weights, so that the way there is straight."""
    plain = latents(run(model, []))
    file = opened(paths)
    up, down = (
        latents(run(model, [Entry(file, {"weight": weight, "embedScaling": "only_v"})])) - plain
        for weight in (0.02, -0.02)
    )
    assert torch.nn.functional.cosine_similarity(up.flatten(), down.flatten(), dim=0) < 0
    # A guide that adds nothing is nothing to steer away from: the run is as without the adapter, to the last bit.
    silent = {
        name: torch.zeros_like(value) if name.endswith("to_v_ip.weight") else value
        for name, value in halves["ip_adapter"].items()
    }
    path = write_adapter(tmp_path / "silent.safetensors", {**halves, "ip_adapter": silent})
    silenced = Entry(opened((path, paths[1])), {"weight": -2.0})
    assert difference(latents(run(model, [silenced])), plain) < 1e-6


@pytest.mark.parametrize("guidance", [4.5, 1.0])
def test_both_branches_in_one_call_or_two_are_the_same(
    model: Model, paths: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, guidance: float
) -> None:
    """The first try runs out of memory in the middle of the transformer; the second one brings the weights layer by
    layer, and evaluates the branches one after the other.
    """
    entries = [Entry(opened(paths), {"weight": 0.9}, [guide(1), guide(2)])]
    together = latents(run(model, entries, CFGScale=guidance))
    block = model.transformer().module.transformer_blocks[1]
    forward, failures, batches = block.forward, [torch.OutOfMemoryError("CUDA out of memory")], []

    def full_once(*arguments: Any, **named: Any) -> Any:
        if failures:
            raise failures.pop()
        batches.append(len(named["hidden_states"]))
        return forward(*arguments, **named)

    monkeypatch.setattr(block, "forward", full_once)
    apart = latents(run(model, entries, CFGScale=guidance))
    assert batches == [1] * STEPS * (2 if guidance > 1 else 1)
    assert difference(apart, together) < 1e-5


def test_several_results_are_those_of_their_own_seeds(model: Model, paths: tuple[Path, Path]) -> None:
    entries = [Entry(opened(paths), {"weight": -0.8}, [guide(1), guide(2), guide(3)])]
    for scheduler in ("Default", "Heun", "DPM++ 2M SDE"):
        result = run(model, entries, scheduler=scheduler, numberResults=2, seed=7)
        for picture in result.pictures:
            alone = run(model, entries, scheduler=scheduler, seed=picture.seed).pictures[0]
            assert torch.equal(alone.latent, picture.latent)
        (account,) = result.report.accounts
        assert account.data["steps"] == list(range(STEPS))
        assert account.data["guideImages"] == 3


class Stop(BaseException):
    """As newer hosts interrupt a run."""


class Stopping(Unwatched):
    def step(self, done: int, total: int, x0: torch.Tensor, reused: bool) -> None:
        raise Stop


def test_the_model_is_as_it_was_whatever_happens(
    model: Model, paths: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    transformer, file = model.transformer().module, opened(paths)
    shared = {"transformer": transformer, "adapter": file.resident().module}

    def state() -> list[Any]:
        kept = [
            (name, value.clone(), id(value)) for each in shared.values() for name, value in each.state_dict().items()
        ]
        return [*kept, *((name, None, id(each)) for name, each in transformer.attn_processors.items())]

    def same(before: list[Any]) -> bool:
        after = state()
        return len(before) == len(after) and all(
            first[0] == second[0]
            and (torch.equal(first[1], second[1]) if first[1] is not None else first[2] == second[2])
            for first, second in zip(before, after, strict=True)
        )

    before, processors = state(), dict(transformer.attn_processors)
    plain = latents(run(model, []))
    entries = [Entry(file), Entry(file, {"weight": -1.0, "weightType": "style_transfer"})]
    run(model, entries)
    assert same(before)
    with pytest.raises(Stop):
        run(model, entries, Stopping())
    assert same(before)
    monkeypatch.setattr(transformer.transformer_blocks[2].ff, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(model, entries)
    monkeypatch.undo()
    assert same(before)
    assert transformer.attn_processors == processors
    assert torch.equal(latents(run(model, [])), plain)


def test_no_weight_is_no_work(model: Model, paths: tuple[Path, Path]) -> None:
    plain = latents(run(model, []))
    off = opened(paths)
    layout = {"weightType": "composition", "weightComposition": 0.0}
    result = run(model, [Entry(off, {"weight": 0.0}), Entry(off, layout)])
    assert torch.equal(latents(result), plain)
    assert off.reading_seconds == 0
    first, second = result.report.accounts
    assert "not run, its weight is 0" in first.lines[0] and "in every block" in second.lines[0]
    assert first.data["evaluations"] == second.data["evaluations"] == 0


def test_guide_images_are_encoded_once_a_run(model: Model, paths: tuple[Path, Path], monkeypatch: Any) -> None:
    file, seen = opened(paths), []
    encode = file.encoder.encode
    monkeypatch.setattr(file.encoder, "encode", lambda *given: seen.append(given[0].shape) or encode(*given))
    run(model, [Entry(file, guides=[guide(1), guide(2, 40, 90)])], numberResults=2)
    assert seen == [(64, 64, 3), (90, 40, 3)]


def test_the_report_says_what_each_adapter_did(model: Model, paths: tuple[Path, Path]) -> None:
    fields = {"weight": 0.5, "weightComposition": 0.2, "combineMethod": "average"}
    (account,) = run(model, [Entry(opened(paths), fields, [guide(1), guide(2)])]).report.accounts
    assert account.lines == (
        "IP-Adapter adapter.safetensors: weight 0.5 (kv, normal) in 3 of 3 blocks and 3 steps, "
        "2 guide images by average",
        "IP-Adapter adapter.safetensors: weightComposition has no effect with the weight type normal",
    )
    assert account.data["blockWeights"] == [0.5] * 3
    assert account.data["evaluations"] == STEPS


@pytest.mark.parametrize(
    ("compute", "stored", "limit"), [(torch.bfloat16, torch.float16, 0.1), (torch.float16, torch.bfloat16, 0.1)]
)
def test_model_and_adapter_of_other_precisions_work_together(
    checkpoint: Path, halves: Halves, paths: tuple[Path, Path], compute: Any, stored: Any, limit: float
) -> None:
    expected = latents(run(open_model(checkpoint), [Entry(opened(paths))], steps=2))
    half = open_model(checkpoint, LocalPlacement(torch.device("cpu"), compute))
    write_adapter(paths[0], halves, stored)
    file = IPAdapterFile(paths[0], VisionFile(paths[1], PLACEMENT), LocalPlacement(torch.device("cpu"), stored))
    ours = latents(run(half, [Entry(file)], steps=2))
    assert difference(ours, expected) < limit < difference(latents(run(half, [], steps=2)), expected)


def test_damaged_weights_are_told_of_their_place_in_the_request(
    model: Model, halves: Halves, paths: tuple[Path, Path]
) -> None:
    broken = {**halves["image_proj"], "proj_in.bias": halves["image_proj"]["proj_in.bias"] * torch.nan}
    path = write_adapter(paths[0].with_name("broken.safetensors"), {**halves, "image_proj": broken})
    entries = [Entry(opened(paths)), Entry(opened((path, paths[1])))]
    with pytest.raises(RequestError, match="NaN") as caught:
        run(model, entries)
    assert caught.value.faults[0].parameter == "ipAdapters[1].model"


def test_nothing_is_read_when_something_is_wrong(paths: tuple[Path, Path], checkpoint: Path) -> None:
    fresh, file = open_model(checkpoint), opened(paths)
    wanted, materials = asked([Entry(file, {}, [torch.zeros(1, 1, 1, 3), guide()])])
    from sd3_local.pipelines.generate import generate

    with pytest.raises(RequestError, match=r"ipAdapters\[0\].guideImages\[0\] is 1 x 1 pixels"):
        generate(wanted, fresh, Unwatched(), materials)
    assert fresh.reading_seconds == file.reading_seconds == 0
