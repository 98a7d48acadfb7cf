"""What a feature is to the sampling loop: an object with the few methods that the loop calls."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from .placement import Resident


@dataclass(frozen=True)
class Moment:
    """Where in a run a velocity is asked for: in the step `step`, from 0, of the `steps` that are executed."""

    step: int
    steps: int
    sigma: float


@dataclass(frozen=True)
class Call:
    """What one call of the transformer is given.

    `latents` [B, 16, height / 8, width / 8], `context` [B, tokens, width] and `pooled` [B, width] are in the compute
    dtype, `timestep` [B] is float32. `conditional` says for each of the batch whether it is the prompt's, or the
    negative prompt's.
    """

    moment: Moment
    latents: torch.Tensor
    context: torch.Tensor
    pooled: torch.Tensor
    timestep: torch.Tensor
    conditional: tuple[bool, ...]


@dataclass(frozen=True)
class Stage:
    """What a run's latents are sampled on: the transformer, placed on `device` and computing in `dtype`."""

    transformer: torch.nn.Module
    resident: Resident
    device: torch.device
    dtype: torch.dtype


class Feature:
    """A part of one run. Made new for each run; a feature overrides what it needs.

    Whatever `running` changes in shared modules it undoes, also after an error or an interrupt.
    """

    @property
    def residents(self) -> Sequence[Resident]:
        """Modules that must be on the device beside the transformer while this feature runs."""
        return ()

    def activation_bytes(self, tokens: int) -> int:
        """Memory that this feature needs beside the weights, where one tensor of hidden states has `tokens` bytes."""
        return 0

    def running(self, stage: Stage) -> AbstractContextManager[Any]:
        """Entered before the first step, left after the last."""
        return nullcontext()

    def prepare(self, x: torch.Tensor, moment: Moment) -> torch.Tensor:
        """`x` [1, 16, h, w], float32, as the transformer is to see it; called before each evaluation."""
        return x

    def signature(self, moment: Moment) -> Hashable:
        """What the transformer is at this moment, as far as this feature makes it: where it differs from the last
        moment's, nothing of an earlier step can be reused.
        """
        return None

    def residuals(self, call: Call) -> Sequence[torch.Tensor] | None:
        """What is added to the hidden states [B, tokens, width] after each block of the transformer but the last, one
        tensor a block and one for the last, which is not used; None adds nothing.
        """
        return None

    def attention(self, call: Call) -> Mapping[str, Any]:
        """Keyword arguments for the transformer's attention processors."""
        return {}

    def correct(self, x: torch.Tensor, seen: torch.Tensor, velocity: torch.Tensor, moment: Moment) -> torch.Tensor:
        """The guided `velocity`, evaluated at `seen` (what `prepare` made of `x`), as the sampler at `x` is to see
        it.
        """
        return velocity

    def finish(self, latent: torch.Tensor) -> torch.Tensor:
        """The sampled latent as it is to be decoded."""
        return latent


@dataclass(frozen=True)
class Account:
    """What one feature did in a run, for the report: `lines` for people, `data` (JSON types) for programs. `notes` are
    those of the lines that are to be seen by who does not ask.
    """

    feature: str
    lines: tuple[str, ...]
    data: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
