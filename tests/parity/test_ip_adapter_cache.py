"""IP-Adapters under step caches, which call some blocks of a step apart from others and leave some out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sd3_local.pipelines.generate import Result
from sd3_local.pipelines.ip_adapter import IPAdapterFile, VisionFile
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.placement import LocalPlacement

from tests.caches import ALWAYS, NEVER, TECHNIQUES
from tests.checkpoints import CheckpointSpec, ClipSpec, TransformerSpec, VAESpec, write_checkpoint
from tests.engines import open_model
from tests.ip_adapters import (
    Entry,
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
SPEC = TransformerSpec(blocks=4, width=128, context=2048, pooled=2048)
STEPS = 6
PLACEMENT = LocalPlacement(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    return open_model(write_checkpoint(path, CheckpointSpec(SPEC, VAESpec(), **CLIPS), torch.float32))


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    """Two adapters in one file, with weights of either sign."""
    folder: Path = tmp_path_factory.mktemp("adapter")
    vision = VisionFile(write_vision(folder / "vision.safetensors", make_vision()), PLACEMENT)
    file = IPAdapterFile(write_adapter(folder / "adapter.safetensors", make_adapter(4, 128)), vision, PLACEMENT)
    return [Entry(file, {"weight": 0.9}, [guide(1)]), Entry(file, {"weight": -0.4}, [guide(2)])]


@pytest.mark.parametrize("options", NEVER, ids=TECHNIQUES)
def test_a_cache_that_never_reuses_changes_nothing(model: Model, entries: list[Entry], options: dict[str, Any]) -> None:
    plain = latents(run(model, entries, steps=STEPS))
    assert torch.equal(latents(run(model, entries, steps=STEPS, acceleratorOptions=options)), plain)


@pytest.mark.parametrize(("technique", "options"), list(zip(TECHNIQUES, ALWAYS, strict=True)), ids=TECHNIQUES)
def test_reused_steps_show_each_branch_its_own_pictures(
    model: Model, entries: list[Entry], technique: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one batch a branch can't be shown the other's pictures, so this is what two calls, one block at a time for
    both, are held to. The first try runs out of memory, and the second one has the branches apart.
    """
    fields: dict[str, Any] = {"steps": STEPS, "acceleratorOptions": options}
    whole = run(model, entries, **fields)
    together = latents(whole)
    assert whole.report.accounts[-1].data["runs"][0]["reused"] > 0
    assert difference(together, latents(run(model, [], **fields))) > 0.05
    block = model.transformer().module.transformer_blocks[1]
    forward, failures, batches = block.forward, [torch.OutOfMemoryError("CUDA out of memory")], []

    def full_once(*arguments: Any, **named: Any) -> Any:
        if failures:
            raise failures.pop()
        batches.append(len(named["hidden_states"]))
        return forward(*arguments, **named)

    monkeypatch.setattr(block, "forward", full_once)
    halves = run(model, entries, **fields)
    assert batches and set(batches) == {1}
    assert difference(latents(halves), together) < 1e-5
    assert evaluations(whole) == [acted_in(whole, technique)] * 2
    # The step that ran out of memory was begun once more.
    assert evaluations(halves) == [2 * acted_in(whole, technique) + 1] * 2


def evaluations(result: Result) -> list[int]:
    """The calls of the transformer in which each adapter acted, as the report has them."""
    return [account.data["evaluations"] for account in result.report.accounts if account.feature == "ipAdapters"]


def acted_in(result: Result, technique: str) -> int:
    """The steps in which blocks were computed: with TeaCache those that were not reused."""
    run = result.report.accounts[-1].data["runs"][0]
    return run["computed"] if technique == "tea" else STEPS
