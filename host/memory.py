"""diffusers and transformers modules under ComfyUI's memory management."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import comfy.model_management as mm
import psutil
import torch
from comfy.model_patcher import ModelPatcher

from ..pipelines.placement import Precision, Resident, streamed_weights

DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
}
TRANSFORMER_DTYPES = [torch.float16, torch.bfloat16, torch.float32]
VAE_DTYPES = [torch.bfloat16, torch.float32]


class ComfyPlacement:
    """ComfyUI decides devices and precisions. `dtype` is a key of DTYPES or "auto", and concerns the transformer."""

    def __init__(self, dtype: str):
        self._dtype = dtype

    def precision(self, kind: str, dtype: torch.dtype, parameters: int) -> Precision:
        # The keys and values of an IP-Adapter meet the transformer's inside one attention, so it computes as that does.
        if kind in ("transformer", "controlnet", "ip_adapter"):
            return self._transformer_precision(dtype, parameters)
        if kind == "vae":
            return Precision(None, mm.vae_dtype(mm.vae_device(), VAE_DTYPES))
        # ComfyUI's own text encoders keep the file's dtype and compute in float32, and prompts must mean the same here.
        return Precision(None, torch.float32)

    def _transformer_precision(self, dtype: torch.dtype, parameters: int) -> Precision:
        device = mm.get_torch_device()
        if self._dtype == "auto":
            if dtype.itemsize == 1:
                return Precision(None, mm.unet_manual_cast(dtype, device) or torch.float32)
            kept = mm.unet_dtype(device, parameters, TRANSFORMER_DTYPES, dtype)
            if kept.itemsize > dtype.itemsize and parameters * kept.itemsize > psutil.virtual_memory().available * 0.7:
                # A widened copy would not fit: leave the weights in the file and widen them layer by layer.
                return Precision(None, kept)
        else:
            kept = DTYPES[self._dtype]
        return Precision(kept, mm.unet_manual_cast(kept, device) or kept)

    def adopt(self, kind: str, module: torch.nn.Module) -> Resident:
        if kind in ("transformer", "controlnet", "ip_adapter"):
            return _ComfyResident(module, mm.get_torch_device(), mm.unet_offload_device())
        if kind == "vae":
            return _ComfyResident(module, mm.vae_device(), mm.vae_offload_device())
        return _ComfyResident(module, mm.text_encoder_device(), mm.text_encoder_offload_device())

    def together(
        self, residents: Sequence[_ComfyResident], activation_bytes: int, *, streamed: bool = False
    ) -> AbstractContextManager[torch.device]:
        return _on_device(residents, activation_bytes, streamed)


class ManagedModule(torch.nn.Module):
    """What ComfyUI moves in place of a diffusers or transformers module.

    It owns the writable `device` that ModelPatcher sets and those classes forbid. It hides the module's layers, because
    only layers made of ComfyUI's operations can be loaded in part: this one is on the device or it is not. And it keeps
    the tensors that the module came with, so that leaving the device copies nothing: weights mapped from a file are
    that file again.
    """

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.device: torch.device | None = None
        self._copies: dict[int, torch.Tensor] = {}
        self._home = [
            # The alias, because whoever streams the weights gives the very tensors other data.
            (store, name, tensor, tensor.detach())
            for part in module.modules()
            for store in (part._parameters, part._buffers)
            for name, tensor in store.items()
            if tensor is not None
        ]

    @property
    def nbytes(self) -> int:
        """Bytes of the weights, tied ones counted once."""
        return sum({id(tensor): tensor.nbytes for _, _, tensor, _ in self._home}.values())

    def to(self, device: torch.device) -> ManagedModule:
        moved: dict[int, torch.Tensor] = {}
        self._copies = {}
        for store, name, tensor, data in self._home:
            if id(tensor) not in moved:
                if data.device == device:
                    moved[id(tensor)] = _at_home(tensor, data)
                else:
                    moved[id(tensor)] = copy = _copy(tensor, data, device)
                    self._copies[id(copy)] = data
            store[name] = moved[id(tensor)]
        return self

    def original(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor at home that `tensor` is a copy of on a device, or itself where it is at home."""
        return self._copies.get(id(tensor), tensor)


def _at_home(tensor: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    if tensor.data_ptr() != data.data_ptr():
        tensor.data = data
    return tensor


def _copy(tensor: torch.Tensor, data: torch.Tensor, device: torch.device) -> torch.Tensor:
    copy = data.to(device)
    return torch.nn.Parameter(copy, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else copy


class _ComfyResident:
    """A module that ComfyUI loads, counts and evicts like a model of its own."""

    def __init__(self, module: torch.nn.Module, load_device: torch.device, offload_device: torch.device):
        self.module = module
        self.managed = ManagedModule(module)
        # The plain patcher, not the dynamic one of newer hosts, which replaces parameters that others hold.
        self.patcher = ModelPatcher(self.managed, load_device, offload_device, size=self.managed.nbytes)

    def original(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.managed.original(tensor)

    def on_device(self, activation_bytes: int, *, streamed: bool = False) -> AbstractContextManager[torch.device]:
        return _on_device([self], activation_bytes, streamed)


@contextmanager
def _on_device(residents: Sequence[_ComfyResident], activation_bytes: int, streamed: bool) -> Iterator[torch.device]:
    device = residents[0].patcher.load_device
    if streamed or not _fit(residents, device, activation_bytes):
        mm.free_memory(mm.get_total_memory(device), device)
        with ExitStack() as stack:
            for resident in residents:
                stack.callback(resident.managed.to, resident.patcher.offload_device)
                stack.enter_context(streamed_weights(resident.module, device))
            yield device
        return
    # In one call, because each call may evict what was loaded by the one before.
    patchers = [resident.patcher for resident in residents]
    mm.load_models_gpu(patchers, memory_required=activation_bytes, force_full_load=True)
    yield device


def _fit(residents: Sequence[_ComfyResident], device: torch.device, activation_bytes: int) -> bool:
    """Whether weights and activations go into the device together; a device of the machine's own memory is always
    asked.
    """
    if mm.is_device_cpu(device):
        return True
    if mm.vram_state == mm.VRAMState.NO_VRAM:
        return False
    weights = sum(resident.managed.nbytes for resident in residents)
    return weights + activation_bytes < mm.get_total_memory(device) - mm.extra_reserved_memory()
