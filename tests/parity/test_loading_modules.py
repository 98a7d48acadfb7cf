"""How weights are kept, what they cost in memory, and weights that are no numbers."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.loading import (
    CastEmbedding,
    CastLinear,
    ModelFiles,
    ModelPlan,
    Source,
    inspect_model,
    load_clip,
    load_t5,
    load_transformer,
)
from sd3_local.pipelines.loading.fill import check_complete, fill
from sd3_local.pipelines.loading.plan import component_targets

from tests.checkpoints import (
    TINY,
    TINY_CLIP_G,
    TINY_CLIP_L,
    TINY_T5,
    CheckpointSpec,
    TransformerSpec,
    VAESpec,
    dequantised,
    scaled_fp8,
    state_dict,
    write_checkpoint,
    write_tensors,
)
from tests.loading import LOADERS, MODEL, relative, run

ROOT = Path(__file__).parents[2]
FULL = {"storage": torch.float32, "compute": torch.float32}


def transformer_of(path: Path, content: dict[str, torch.Tensor]) -> Source:
    return inspect_model(ModelFiles(write_tensors(path, content))).transformer


def t5_of(path: Path, content: dict[str, torch.Tensor]) -> Source:
    model = write_checkpoint(path.parent / "model.safetensors", TransformerSpec())
    source = inspect_model(ModelFiles(model, text_encoders=(write_tensors(path, content),))).t5
    assert source is not None
    return source


def linears(module: torch.nn.Module) -> list[torch.nn.Linear]:
    return [each for each in module.modules() if isinstance(each, torch.nn.Linear)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelPlan:
    spec = CheckpointSpec(MODEL, VAESpec(), TINY_CLIP_L, TINY_CLIP_G, TINY_T5)
    return inspect_model(ModelFiles(write_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.safetensors", spec)))


def with_storage(plan: ModelPlan) -> list[tuple[Callable[..., torch.nn.Module], Source | None]]:
    """The components whose large weights may be kept in another type, with their loaders."""
    return [
        (load_transformer, plan.transformer),
        (load_clip, plan.clip_l),
        (load_clip, plan.clip_g),
        (load_t5, plan.t5),
    ]


@pytest.mark.parametrize("kind", LOADERS)
def test_modules_are_for_inference_and_in_one_type(tiny: ModelPlan, kind: str) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        module = LOADERS[kind](getattr(tiny, kind), dtype)
        assert not module.training and not any(each.training for each in module.modules())
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert {parameter.device.type for parameter in module.parameters()} == {"cpu"}
        kept = {name: parameter.dtype for name, parameter in module.named_parameters() if parameter.dtype != dtype}
        assert not kept


@pytest.mark.parametrize("kind", LOADERS)
def test_weights_of_the_files_own_type_are_the_mapped_file(tiny: ModelPlan, kind: str) -> None:
    source = getattr(tiny, kind)
    tensors = [entry.read() for entry in source.tensors.values()]
    spans = [(tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes) for tensor in tensors]
    module = LOADERS[kind](source, torch.float16)
    copied = [
        name
        for name, tensor in module.state_dict().items()
        if not any(begin <= tensor.data_ptr() < end for begin, end in spans)
    ]
    # Where Stability's files have shift and scale in the other order.
    swapped = [
        f"{layer}.linear.{end}"
        for layer in ("transformer_blocks.2.norm1_context", "norm_out")
        for end in ("weight", "bias")
    ]
    assert sorted(copied) == (sorted(swapped) if kind == "transformer" else [])


@pytest.mark.parametrize("storage", [None, torch.float16])
def test_stored_in_half_computed_in_single(tiny: ModelPlan, storage: torch.dtype | None) -> None:
    for load, source in with_storage(tiny):
        kept = load(source, storage=storage, compute=torch.float32)
        assert all(isinstance(each, CastLinear) and each.weight.dtype == torch.float16 for each in linears(kept))
        assert torch.equal(run(kept), run(load(source, **FULL)))


@pytest.mark.parametrize("storage", [None, torch.float16, torch.float32, torch.float8_e4m3fn])
@pytest.mark.parametrize("form", ["plain", "scaled_fp8"])
def test_values_made_before_there_is_a_module_are_those_made_for_it(
    tmp_path: Path, form: str, storage: torch.dtype | None
) -> None:
    content = state_dict(MODEL, torch.float16)
    source = transformer_of(
        tmp_path / "model.safetensors", content if form == "plain" else scaled_fp8(content, form, torch.float8_e4m3fn)
    )
    before = set(threading.enumerate())
    ahead = load_transformer(source, storage=storage, compute=torch.float32)
    assert set(threading.enumerate()) == before
    with torch.device("meta"):
        filled = type(ahead).from_config(ahead.config)
    fill(filled, source, component_targets(source), storage, torch.float32)
    layers = dict(filled.named_modules())
    for name, layer in ahead.named_modules():
        assert type(layer) is type(layers[name]) and getattr(layer, "scale", 1) == getattr(layers[name], "scale", 1)
    expected = filled.state_dict()
    for name, tensor in ahead.state_dict().items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor.float(), expected[name].float())


def test_stored_as_computed_is_plain_linear(tiny: ModelPlan) -> None:
    for load, source in with_storage(tiny):
        module = load(source, **FULL)
        assert linears(module) and not any(isinstance(each, CastLinear | CastEmbedding) for each in module.modules())


@pytest.mark.parametrize("form", ["scaled_fp8", "comfy_quant"])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_scaled_fp8_is_weight_times_scale_exactly(tmp_path: Path, form: str, dtype: torch.dtype) -> None:
    for spec, make, load in ((MODEL, transformer_of, load_transformer), (TINY_T5, t5_of, load_t5)):
        content = scaled_fp8(state_dict(spec), form, dtype)
        source = make(tmp_path / "scaled.safetensors", content)
        reference = load(make(tmp_path / "plain.safetensors", dequantised(content)), **FULL)
        expected = run(reference)
        kept = load(source, storage=None, compute=torch.float32)
        assert source.dtype == dtype
        assert any(
            isinstance(each, CastLinear) and each.weight.dtype == dtype and each.scale != 1 for each in linears(kept)
        )
        assert torch.equal(run(kept), expected)
        assert torch.equal(run(load(source, **FULL)), expected)
        # Scales that are dropped, as by loaders that do not know them, give another picture altogether.
        for each in linears(kept):
            each.scale = 1.0
        assert not relative(run(kept), expected) < 0.5


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_plain_fp8_with_every_tensor_in_it(tmp_path: Path, dtype: torch.dtype) -> None:
    for spec, make, load in ((MODEL, transformer_of, load_transformer), (TINY_T5, t5_of, load_t5)):
        content = state_dict(spec, dtype)
        kept = load(make(tmp_path / "eight.safetensors", content), storage=None, compute=torch.float32)
        wide = {name: value.float() for name, value in content.items()}
        expected = run(load(make(tmp_path / "wide.safetensors", wide), **FULL))
        assert all(each.weight.dtype == dtype for each in linears(kept))
        assert torch.equal(run(kept), expected)


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("storage", "bound"), [(torch.float8_e4m3fn, 0.05), (torch.float8_e5m2, 0.1)])
def test_stored_in_fp8_on_request(tiny: ModelPlan, storage: torch.dtype, bound: float, compute: torch.dtype) -> None:
    for load, source in ((load_transformer, tiny.transformer), (load_t5, tiny.t5)):
        exact = load(source, **FULL)
        small = load(source, storage=storage, compute=compute)
        for ours, theirs in zip(linears(small), linears(exact), strict=True):
            assert ours.weight.dtype == storage
            assert relative(ours.effective_weight(torch.float32), theirs.weight) < bound
        assert relative(run(small, compute), run(exact)) < 0.3


def test_scales_are_applied_in_full_precision_in_half_types() -> None:
    layer = CastLinear(8, 4, bias=False, scale=1.00195)
    layer.weight = torch.nn.Parameter(torch.full((4, 8), 256.0).to(torch.float8_e4m3fn), requires_grad=False)
    # Rounded to bfloat16 first, the scale would be 1.
    assert layer.effective_weight(torch.float16).unique().item() == 256.5


@torch.no_grad()
def test_t5_in_half_does_not_overflow(tmp_path: Path) -> None:
    content = state_dict(TINY_T5)
    for name in content:
        if name.endswith("wo.weight"):
            content[name] *= 1000
        elif "wi_" in name:
            content[name] *= 10
    content = {name: value.half() for name, value in content.items()}
    source = t5_of(tmp_path / "t5.safetensors", content)
    expected = run(load_t5(source, **FULL))
    stock = load_t5(source, **FULL).half()
    assert relative(run(stock), expected) > 0.1 or not torch.isfinite(run(stock)).all()
    for storage in (None, torch.float16, torch.float8_e4m3fn):
        ours = run(load_t5(source, storage=storage, compute=torch.float16))
        assert ours.dtype == torch.float16
        assert relative(ours, expected) < (0.2 if storage == torch.float8_e4m3fn else 0.01)


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, kind: str, value: float) -> None:
    content = state_dict(
        CheckpointSpec(**{"transformer": MODEL, kind: getattr(TINY, kind) if kind != "transformer" else MODEL})
    )
    names = [name for name in content if (kind == "transformer") == name.startswith("model.")]
    largest = max(names, key=lambda name: content[name].numel())
    for name, where in ((names[-1], slice(1)), (largest, slice(None))):
        damaged = {each: tensor.clone() if each == name else tensor for each, tensor in content.items()}
        damaged[name].view(-1)[where] = value
        plan = inspect_model(ModelFiles(write_tensors(tmp_path / "broken.safetensors", damaged)))
        before = set(threading.enumerate())
        with pytest.raises(RequestError, match=r'"broken\.safetensors" has NaN or infinite weights') as caught:
            LOADERS[kind](getattr(plan, kind), torch.float32)
        assert set(threading.enumerate()) == before
        assert caught.value.faults[0].code == "invalidModel" and caught.value.faults[0].parameter == "model"


def test_a_tensor_without_memory_is_never_handed_out() -> None:
    with torch.device("meta"):
        module = torch.nn.BatchNorm1d(3)
    for name in ("weight", "bias"):
        setattr(module, name, torch.nn.Parameter(torch.ones(3)))
    with pytest.raises(RuntimeError, match=r"BatchNorm1d\.running_mean was not loaded"):
        check_complete(module)


def test_a_pickle_gives_the_same_module(tiny: ModelPlan, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": state_dict(MODEL, torch.float16)}, path)
    module = load_transformer(inspect_model(ModelFiles(path)).transformer, storage=None, compute=torch.float32)
    same = transformer_of(tmp_path / "model.safetensors", state_dict(MODEL, torch.float16))
    assert torch.equal(run(module), run(load_transformer(same, storage=None, compute=torch.float32)))


@pytest.mark.skipif(sys.platform != "linux", reason="Reads /proc.")
def test_views_take_no_memory_and_casts_take_one_copy(tmp_path: Path) -> None:
    spec = TransformerSpec(blocks=7, width=768, context=512, pooled=256, table=64)
    path = write_checkpoint(tmp_path / "model.safetensors", spec)
    size = path.stat().st_size / 2**20
    assert size > 250
    script = """
        import gc, sys, threading
        from pathlib import Path
        from tools.pack import import_pack

        import_pack()
        import torch
        from sd3_local.pipelines.loading import ModelFiles, inspect_model, load_transformer

        torch.set_num_threads(1)

        def anonymous():
            [line] = [line for line in open("/proc/self/status") if line.startswith("RssAnon")]
            return int(line.split()[1]) / 1024

        def load(plan, **how):
            gc.collect()
            before, peak, done = anonymous(), [0.0], threading.Event()

            def watch():
                while not done.wait(0.002):
                    peak[0] = max(peak[0], anonymous())

            watcher = threading.Thread(target=watch)
            watcher.start()
            module = load_transformer(plan.transformer, **how)
            done.set()
            watcher.join()
            print(f"{anonymous() - before:.1f} {max(peak[0], anonymous()) - before:.1f}")
            del module

        tiny = inspect_model(ModelFiles(Path(sys.argv[2])))
        load(tiny, storage=None, compute=torch.float16)
        plan = inspect_model(ModelFiles(Path(sys.argv[1])))
        load(plan, storage=None, compute=torch.float16)
        load(plan, storage=None, compute=torch.float32)
        load(plan, storage=torch.float32, compute=torch.float32)
    """
    tiny = write_checkpoint(tmp_path / "tiny.safetensors", TransformerSpec())
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), path, tiny],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    print(result.stdout)
    (views, _), (cast, _), (single, peak) = [
        tuple(map(float, line.split())) for line in result.stdout.splitlines()[-3:]
    ]
    assert views < 0.1 * size
    assert cast < 0.1 * size
    assert 1.9 * size < single < 2.1 * size
    largest = 6 * 768 * 768 * 4 / 2**20
    assert peak < single + 2 * largest + 0.05 * size
