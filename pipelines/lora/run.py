"""The LoRAs of one run."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import Fault
from ..features import Account, Feature, Moment, Stage
from .file import LoraFile
from .merge import Merged, Weighted, merged
from .names import ENCODERS

if TYPE_CHECKING:
    import torch

    from ..materials import Materials
    from ..model import Model
    from ..placement import Resident
    from ..request import ImageInference

SHOWN = 3
"""Unmatched keys that the report names."""


def check_loras(request: ImageInference, model: Model, materials: Materials) -> list[Fault]:
    """What stands against the LoRAs of a request in this model."""
    return [
        fault
        for number, entry in enumerate(request.lora)
        for fault in materials.loras[entry.model].faults(model.plan, f"lora[{number}].model")
    ]


def is_early(moment: Moment) -> bool:
    """Whether a moment lies in the high-noise part of a run: its first half, the middle step included."""
    return moment.step < (moment.steps + 1) // 2


class Loras:
    """All LoRAs of a request, added up in their order."""

    def __init__(self, request: ImageInference, model: Model, materials: Materials):
        self._entries = request.lora
        self._files: list[LoraFile] = [materials.loras[entry.model] for entry in self._entries]
        self._matches = [file.match(model.plan) for file in self._files]
        self._plan = model.plan

    @property
    def text(self) -> TextLoras | None:
        """The text encoders' weights; None where no LoRA changes them."""
        patches: list[Weighted] = []
        key: list[Hashable] = []
        for entry, file, match in zip(self._entries, self._files, self._matches, strict=True):
            weight = entry.weight if file.text_weight is None else file.text_weight
            own = match.of(tuple(ENCODERS))
            if weight and own:
                patches += [(patch, weight) for patch in own]
                key.append((file.stamp, weight))
        return TextLoras(patches, tuple(key)) if patches else None

    def features(self) -> list[Feature]:
        """The transformer's part; none where no LoRA changes it."""
        early, late = (self._transformer_patches(part) for part in ("high", "low"))
        return [TransformerLoras(early, late)] if early or late else []

    def accounts(self) -> list[Account]:
        """What of each LoRA was found in the model, and where it acted."""
        return [self._account(number) for number in range(len(self._entries))]

    def _transformer_patches(self, part: str) -> list[Weighted]:
        return [
            (patch, entry.weight)
            for entry, match in zip(self._entries, self._matches, strict=True)
            if entry.weight and entry.transformer in (part, "both")
            for patch in match.of(("transformer",))
        ]

    def _account(self, number: int) -> Account:
        entry, file, match = self._entries[number], self._files[number], self._matches[number]
        total = match.matched + len(match.unmatched)
        where = {
            "high": "in the first half of the steps",
            "low": "in the second half of the steps",
            "both": "throughout",
        }
        told = f"LoRA {file.name}: weight {entry.weight:g} {where[entry.transformer]}, "
        told += "not applied" if not entry.weight else f"{match.matched} of {total} tensors matched"
        layers = {kind: len(match.of((kind,))) for kind in ("transformer", *ENCODERS)}
        lines = [told]
        if match.unmatched:
            shown = ", ".join(match.unmatched[:SHOWN])
            lines.append(
                f"LoRA {file.name}: without a layer in {self._plan.name}: {shown}"
                + (f" and {len(match.unmatched) - SHOWN} more" if len(match.unmatched) > SHOWN else "")
            )
        data = {
            "model": entry.model,
            "weight": entry.weight,
            "transformer": entry.transformer,
            "matched": match.matched,
            "unmatched": list(match.unmatched),
            "layers": {kind: count for kind, count in layers.items() if count},
        }
        return Account("lora", tuple(lines), data)


class TextLoras:
    """Text encoders with LoRAs in their weights."""

    def __init__(self, patches: list[Weighted], key: Hashable):
        self.key = key
        self._patches = patches

    def applied(self, kind: str, resident: Resident) -> AbstractContextManager[Any]:
        return merged(resident, [(patch, weight) for patch, weight in self._patches if patch.site.kind == kind])


class TransformerLoras(Feature):
    """The transformer with LoRAs in its weights: `early` ones in the first half of the steps, `late` ones in the rest.

    The weights are changed when the run starts, and once more in its middle where the two differ.
    """

    def __init__(self, early: list[Weighted], late: list[Weighted]):
        self._stages = {True: early, False: late}
        self._weights: Merged | None = None
        self._early: bool | None = None

    @contextmanager
    def running(self, stage: Stage) -> Iterator[None]:
        self._weights, self._early = Merged(stage.resident), None
        try:
            yield
        finally:
            self._weights.undo()

    def prepare(self, x: torch.Tensor, moment: Moment) -> torch.Tensor:
        early = is_early(moment)
        if self._early is None or (early != self._early and self._stages[True] != self._stages[False]):
            self._weights.undo()
            self._weights.put(self._stages[early])
        self._early = early
        return x
