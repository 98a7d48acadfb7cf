"""A module in a file of its own, beside a model: known by its header, read when it is first needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checkpoint import Table
from .fill import Role, assign, check_complete, in_background, values
from .layout import Target, storage_dtype
from .source import Source

if TYPE_CHECKING:
    import torch

    from ..placement import Placement, Resident


def matrix_role(target: Target) -> Role:
    """A parameter's role from its shape alone, for modules whose only matrices are the weights of Linear layers."""
    return Role.LINEAR if len(target.shape) == 2 else Role.OTHER


class Part:
    """A module that stays, once it is read, for as long as this object lives.

    `kind` is what the placement calls it, `shape` its configuration, and `without_memory` makes it on the meta device;
    it may import what takes long, since weights are read meanwhile. `role` tells what a parameter is for, `inner` gives
    the module that `targets` name parts of, where that is not the whole, and `finish` sets what no file holds.
    """

    def __init__(
        self,
        kind: str,
        path: Path,
        parameter: str,
        shape: Any,
        table: Table,
        targets: Sequence[Target],
        placement: Placement,
        without_memory: Callable[[], torch.nn.Module],
        *,
        role: Callable[[Target], Role] = matrix_role,
        inner: Callable[[torch.nn.Module], torch.nn.Module] = lambda module: module,
        finish: Callable[[torch.nn.Module], None] = lambda module: None,
    ):
        entries = [table[name] for name in {target.source for target in targets}]
        self.source = Source(
            kind,
            path,
            parameter,
            shape,
            storage_dtype(table, targets),
            sum(entry.numel for entry in entries),
            sum(entry.nbytes for entry in entries),
            table,
        )
        self.reading_seconds = 0.0
        self._targets = targets
        self._placement = placement
        self._without_memory = without_memory
        self._role = role
        self._inner = inner
        self._finish = finish
        self._resident: Resident | None = None

    def resident(self) -> Resident:
        """The module, under its placement. Raises RequestError where the file has changed, or has weights that are no
        numbers.
        """
        if self._resident is None:
            started = time.perf_counter()
            source = self.source
            precision = self._placement.precision(source.kind, source.dtype, source.parameters)
            storage, compute = precision.storage, precision.compute
            with in_background(values(source, self._targets, self._role, storage, compute)) as ready:
                module = self._without_memory()
                assign(self._inner(module), self._targets, ready(), compute)
            self._finish(module)
            check_complete(module)
            self._resident = self._placement.adopt(source.kind, module.eval())
            self.reading_seconds += time.perf_counter() - started
        return self._resident
