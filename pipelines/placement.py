"""Where modules live while they work: the engine asks, whoever runs it answers.

ComfyUI's memory manager answers in `host/`; `LocalPlacement` answers for programs that own their device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from .errors import RequestError

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")


@dataclass(frozen=True)
class Precision:
    """`storage`: the dtype that the large weights are kept in, None for the file's own. `compute`: the dtype they work
    in.
    """

    storage: torch.dtype | None
    compute: torch.dtype


class Resident(Protocol):
    """A module that somebody moves to the compute device when it is needed."""

    module: torch.nn.Module

    def original(self, tensor: torch.Tensor) -> torch.Tensor:
        """What a parameter of the module, as it is now, was made from: the same values, in memory that nobody writes
        to. It is `tensor` itself where the module was not copied to where it is.
        """
        ...

    def on_device(self, activation_bytes: int, *, streamed: bool = False) -> AbstractContextManager[torch.device]:
        """The device that the module computes on inside this context, with room for `activation_bytes` beside it.

        `streamed` keeps the weights off the device and brings them a few layers at a time: slow, but small.
        """
        ...


class Placement(Protocol):
    """Who decides devices and precisions.

    `kind` is one of transformer, vae, clip_l, clip_g, t5, controlnet, ip_adapter, vision.
    """

    def precision(self, kind: str, dtype: torch.dtype, parameters: int) -> Precision:
        """How a component stored as `dtype` with so many parameters should be kept and computed."""
        ...

    def adopt(self, kind: str, module: torch.nn.Module) -> Resident:
        """Takes charge of a module that was just loaded, for as long as the returned object lives."""
        ...

    def together(
        self, residents: Sequence[Resident], activation_bytes: int, *, streamed: bool = False
    ) -> AbstractContextManager[torch.device]:
        """As `Resident.on_device`, for modules that work side by side and so must all be there at once."""
        ...


class LocalPlacement:
    """Everything on one device of the caller's, in one compute dtype."""

    def __init__(self, device: torch.device, compute: torch.dtype, storage: torch.dtype | None = None):
        self.device = device
        self._precision = Precision(storage, compute)

    def precision(self, kind: str, dtype: torch.dtype, parameters: int) -> Precision:
        return self._precision

    def adopt(self, kind: str, module: torch.nn.Module) -> Resident:
        return _LocalResident(module.to(self.device), self.device)

    @contextmanager
    def together(
        self, residents: Sequence[Resident], activation_bytes: int, *, streamed: bool = False
    ) -> Iterator[torch.device]:
        with ExitStack() as stack:
            for resident in residents:
                stack.enter_context(resident.on_device(activation_bytes, streamed=streamed))
            yield self.device


@dataclass
class _LocalResident:
    module: torch.nn.Module
    device: torch.device

    def original(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    @contextmanager
    def on_device(self, activation_bytes: int, *, streamed: bool = False) -> Iterator[torch.device]:
        if not streamed:
            yield self.device
            return
        with streamed_weights(self.module, self.device):
            yield self.device
        self.module.to(self.device)


@contextmanager
def streamed_weights(module: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Keeps `module`'s weights on the CPU and brings each layer to `device` only while it computes (diffusers' group
    offloading).
    """
    import torch
    from diffusers.hooks import HookRegistry, apply_group_offloading

    apply_group_offloading(module, device, torch.device("cpu"), offload_type="leaf_level")
    try:
        yield
    finally:
        HookRegistry.check_if_exists_or_initialize(module).remove_hook("group_offloading", recurse=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that a device or the machine ran out of memory; PyTorch has no one class for all
    backends.
    """
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "DefaultCPUAllocator: can't allocate" in text
    )


def when_full(work: Callable[[bool], Result], exhausted: Callable[[], RequestError]) -> tuple[Result, bool]:
    """`work(False)`, or `work(True)`, its cheaper form, when the first ran out of memory; and whether it was the
    cheaper one.

    When both run out, raises what `exhausted` makes. The second try starts after the first one's exception is gone,
    since its traceback holds the tensors that filled the memory.
    """
    try:
        return work(False), False
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    try:
        return work(True), True
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    raise exhausted()
