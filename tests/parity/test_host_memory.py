"""Modules under ComfyUI's own memory manager, in this process: counted, evicted, and the same afterwards."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from tests.checkpoints import CheckpointSpec, TransformerSpec, VAESpec, write_checkpoint


@pytest.fixture
def memory(comfy):
    """host/memory.py beside the real comfy.model_management, which is left empty."""
    import comfy.model_management as mm
    import sd3_local.host.memory as memory

    yield memory
    mm.unload_all_models()
    gc.collect()


def tied() -> torch.nn.Module:
    """A module with a tied weight and a buffer, and the read-only `device` that Hugging Face's models have."""

    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.register_buffer("table", torch.arange(4.0))

        @property
        def device(self):
            return self.first.weight.device

    return Tied().requires_grad_(False)


def tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict([*module.named_parameters(remove_duplicate=False), *module.named_buffers()])


def test_leaving_the_device_copies_nothing_back(memory) -> None:
    module = tied()
    before = tensors(module)
    managed = memory.ManagedModule(module)
    managed.to(torch.device("meta"))
    there = tensors(module)
    assert {tensor.device.type for tensor in there.values()} == {"meta"}
    assert there["first.weight"] is there["second.weight"], "tied weights stay tied on the device"
    assert isinstance(there["first.weight"], torch.nn.Parameter)
    managed.to(torch.device("cpu"))
    assert all(tensor is before[name] for name, tensor in tensors(module).items())


def test_weights_that_were_streamed_are_the_mapped_file_again(memory) -> None:
    with torch.inference_mode():  # as inside a node
        module = tied()
    places = {name: tensor.data_ptr() for name, tensor in tensors(module).items()}
    managed = memory.ManagedModule(module)
    # What streaming does to a parameter: there and back, into memory of its own.
    with torch.inference_mode():
        module.first.weight.data = module.first.weight.data.clone()
        assert module.first.weight.data_ptr() != places["first.weight"]
        managed.to(torch.device("cpu"))
    assert {name: tensor.data_ptr() for name, tensor in tensors(module).items()} == places


def test_tied_weights_are_counted_once(memory) -> None:
    assert memory.ManagedModule(tied()).nbytes == 4 * (16 + 4 + 4 + 4)


def test_comfyui_counts_the_module_and_evicts_it(memory, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management as mm

    def free(device=None, torch_free_too=False):
        return (2**30, 0) if torch_free_too else 2**30

    # "meta" stands for a GPU: a device without data, of whose memory only the size has to be told.
    monkeypatch.setattr(mm, "get_free_memory", free)
    resident = memory._ComfyResident(tied(), torch.device("meta"), torch.device("cpu"))
    mm.load_models_gpu([resident.patcher], force_full_load=True)
    assert resident.module.device.type == "meta"
    assert [loaded.model_loaded_memory() for loaded in mm.current_loaded_models] == [112]
    mm.free_memory(2**40, torch.device("meta"))
    assert mm.current_loaded_models == []
    assert resident.module.device.type == "cpu"


def test_a_model_that_is_dropped_leaves_nothing_in_comfyui_s_list(memory) -> None:
    import comfy.model_management as mm

    placement = memory.ComfyPlacement("auto")
    resident = placement.adopt("transformer", tied())
    with resident.on_device(0) as device:
        assert device.type == "cpu"
    assert len(mm.current_loaded_models) == 1
    del resident
    gc.collect()
    mm.cleanup_models_gc()
    assert mm.current_loaded_models == []


def test_streamed_weights_come_and_go_and_the_module_is_what_it_was(memory, tmp_path: Path) -> None:
    from sd3_local.pipelines.loading import ModelFiles, inspect_model, load_transformer

    path = write_checkpoint(tmp_path / "m.safetensors", CheckpointSpec(TransformerSpec(), VAESpec()), torch.float32)
    plan = inspect_model(ModelFiles(path))
    with torch.inference_mode():  # as inside a node
        module = load_transformer(plan.transformer, storage=None, compute=torch.float32)
    before = tensors(module)
    inputs = {
        "hidden_states": torch.randn(1, 16, 8, 8),
        "encoder_hidden_states": torch.randn(1, 7, 128),
        "pooled_projections": torch.randn(1, 128),
        "timestep": torch.tensor([500.0]),
    }
    resident = memory.ComfyPlacement("auto").adopt("transformer", module)
    with torch.inference_mode(), resident.on_device(0):
        whole = module(**inputs).sample
    with torch.inference_mode(), resident.on_device(0, streamed=True):
        streamed = module(**inputs).sample
    assert torch.equal(whole, streamed)
    assert all(tensor is before[name] for name, tensor in tensors(module).items())
    with torch.inference_mode(), resident.on_device(0):
        assert torch.equal(module(**inputs).sample, whole)


@pytest.mark.parametrize(
    ("dtype", "stored", "kept", "computes"),
    [
        ("auto", torch.float16, torch.float32, torch.float32),
        ("auto", torch.float8_e4m3fn, None, torch.float32),
        ("fp16", torch.float32, torch.float16, torch.float32),
        ("fp8_e4m3fn", torch.float16, torch.float8_e4m3fn, torch.float32),
        ("fp32", torch.float16, torch.float32, torch.float32),
    ],
)
def test_a_cpu_computes_in_float32_whatever_is_kept(memory, dtype, stored, kept, computes) -> None:
    precision = memory.ComfyPlacement(dtype).precision("transformer", stored, 1000)
    assert (precision.storage, precision.compute) == (kept, computes)


def test_weights_that_would_not_fit_widened_stay_as_they_are(memory) -> None:
    precision = memory.ComfyPlacement("auto").precision("transformer", torch.float16, 10**13)
    assert (precision.storage, precision.compute) == (None, torch.float32)
