"""LoRAs in a module's weights, and out of them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..loading.cast import CastLinear
from ..loading.layout import Target
from .file import Patch

if TYPE_CHECKING:
    import torch

    from ..placement import Resident

Weighted = tuple[Patch, float]
"""A patch and its strength."""


class Merged:
    """A module's weights with patches in them, from `put` to `undo`.

    A weight that computes as it is stored is changed once, so that a step costs what it did. One that is cast when it
    is used (fp8) would lose most of a LoRA to its rounding: it stays, and what it is cast to is changed. Weights that
    were copied to a device are changed where they are and copied again afterwards; weights at home, which may be a
    mapped file's, are replaced meanwhile. Either way the module is the same to the last bit afterwards.
    """

    def __init__(self, resident: Resident):
        self._resident = resident
        self._undo: list[Callable[[], None]] = []

    def put(self, patches: Iterable[Weighted]) -> None:
        """Adds the patches, in their order where they meet in one weight."""
        for group in _groups(patches):
            self._put(group)

    def undo(self) -> None:
        """Leaves the module as it was."""
        while self._undo:
            self._undo.pop()()

    def _put(self, group: Sequence[Weighted]) -> None:
        """Patches that meet in the same weights."""
        layers = {target.name: self._layer(target) for patch, _ in group for target in patch.site.targets}
        matrices = [(patch, strength) for patch, strength in group if not patch.bias]
        cast = {name: layer for name, layer in layers.items() if isinstance(layer, CastLinear)}
        # What one tensor of a file was cut into is stored alike.
        if cast and matrices:
            for name, layer in cast.items():
                self._cast(layer, name, cast, matrices)
        else:
            worked = _Worked(lambda name: layers[name].weight)
            for patch, strength in matrices:
                worked.apply(patch, strength)
            for name, value in worked.changed.items():
                self._replace(layers[name], "weight", value)
        for patch, strength in group:
            if patch.bias:
                self._bias(patch, strength, layers)

    def _layer(self, target: Target) -> torch.nn.Module:
        module, name = self._resident.module, target.name.removesuffix(".weight")
        if not hasattr(module, "text_model"):
            # transformers 5 has no inner `text_model` in CLIPTextModel; files keep the name.
            name = name.removeprefix("text_model.")
        return module.get_submodule(name)

    def _cast(
        self, layer: CastLinear, name: str, layers: Mapping[str, CastLinear], patches: Sequence[Weighted]
    ) -> None:
        def recomputed(weight: torch.Tensor) -> torch.Tensor:
            def original(other: str) -> torch.Tensor:
                # Where weights are brought layer by layer, the others are not here.
                return weight if other == name else layers[other].unpatched_weight(weight.dtype).to(weight.device)

            worked = _Worked(original, weight.dtype)
            for patch, strength in patches:
                worked.apply(patch, strength)
            return worked.changed.get(name, weight)

        # Patches of no low rank are made anew for each use: slower, but a matrix of each layer would take the memory
        # that narrow weights save.
        layer.patch = _low_rank(name, patches) or recomputed
        self._undo.append(lambda: setattr(layer, "patch", None))

    def _bias(self, patch: Patch, strength: float, layers: Mapping[str, torch.nn.Module]) -> None:
        import torch

        parts = [layers[target.name] for target in patch.site.targets]
        stacked = _ordered(torch.cat([part.bias.float() for part in parts]), patch)
        stacked = _ordered(patch.adapter(stacked, strength), patch)
        for part, value in zip(parts, stacked.chunk(len(parts)), strict=True):
            self._replace(part, "bias", value)

    def _replace(self, layer: torch.nn.Module, attribute: str, value: torch.Tensor) -> None:
        import torch

        old = layer._parameters[attribute]
        original = self._resident.original(old)
        if original is old:
            # At home: nothing writes to these.
            layer._parameters[attribute] = torch.nn.Parameter(value.to(old.dtype), requires_grad=False)
            self._undo.append(lambda: layer._parameters.__setitem__(attribute, old))
        else:
            old.data.copy_(value)
            self._undo.append(lambda: old.data.copy_(original))


@contextmanager
def merged(resident: Resident, patches: Iterable[Weighted]) -> Iterator[None]:
    """The module has the patches in its weights inside this context."""
    weights = Merged(resident)
    try:
        weights.put(patches)
        yield
    finally:
        weights.undo()


class _Worked:
    """Matrices as patches make them, by the names of their parameters; `original(name)` is where they start."""

    def __init__(self, original: Callable[[str], torch.Tensor], dtype: torch.dtype | None = None):
        self.changed: dict[str, torch.Tensor] = {}
        self._original = original
        self._dtype = dtype

    def apply(self, patch: Patch, strength: float) -> None:
        import torch

        names = [target.name for target in patch.site.targets]
        weight = torch.cat([self._current(name) for name in names]) if len(names) > 1 else self._current(names[0])
        weight = _ordered(patch.adapter(_ordered(weight, patch), strength), patch)
        self.changed.update(zip(names, weight.chunk(len(names)), strict=True))

    def _current(self, name: str) -> torch.Tensor:
        """A copy that may be written to: float32, or the dtype asked for."""
        import torch

        if name in self.changed:
            return self.changed[name]
        return self._original(name).detach().to(self._dtype or torch.float32, copy=True)


class _LowRank:
    """weight + up @ down, with factors that follow the weight's type and device."""

    def __init__(self, up: torch.Tensor, down: torch.Tensor):
        self._up, self._down = up, down

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        import torch

        self._up, self._down = (factor.to(weight.device, weight.dtype) for factor in (self._up, self._down))
        return torch.addmm(weight, self._up, self._down)


def _low_rank(name: str, patches: Sequence[Weighted]) -> _LowRank | None:
    """All that the patches add to the weight `name`, as one product; None where one of them does something else."""
    import torch

    ups, downs = [], []
    for patch, strength in patches:
        names = [target.name for target in patch.site.targets]
        if name not in names:
            continue
        if (factors := patch.adapter.factors()) is None:
            return None
        rows = _ordered(factors[0], patch).chunk(len(names))[names.index(name)]
        ups.append(strength * rows)
        downs.append(factors[1])
    return _LowRank(torch.cat(ups, 1), torch.cat(downs)) if ups else None


def _ordered(matrix: torch.Tensor, patch: Patch) -> torch.Tensor:
    """The rows of `matrix` in the order that the patch knows, from that of the module; or back."""
    import torch

    return torch.cat(matrix.chunk(2)[::-1]) if patch.site.swapped else matrix


def _groups(patches: Iterable[Weighted]) -> Iterator[list[Weighted]]:
    """The patches by the file's tensor that they change, a stacked one counting as one: what belongs to different
    groups has no weight in common, so that only one group's copies are in memory at a time.
    """
    groups: dict[str, list[Weighted]] = {}
    for patch, strength in patches:
        groups.setdefault(patch.site.targets[0].source, []).append((patch, strength))
    yield from groups.values()
