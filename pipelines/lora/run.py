"""The LoRAs of one run."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import Fault
from ..features import Account, Feature, Moment, Stage
from ..painting import remaining
from .file import LoraFile
from .merge import Merged, Weighted, merged
from .names import ENCODERS

if TYPE_CHECKING:
    import torch

    from ..materials import Materials
    from ..model import Model
    from ..placement import Resident
    from ..request import ImageInference, Lora

SHOWN = 3
"""Unmatched keys that the report names."""


def check_loras(request: ImageInference, model: Model, materials: Materials) -> list[Fault]:
    """What stands against the LoRAs of a request in this model."""
    return [
        fault
        for number, entry in enumerate(request.lora)
        for fault in materials.loras[entry.model].faults(model.plan, f"lora[{number}].model")
    ]


def steps_of(part: str, steps: int) -> range:
    """Those of the executed steps that a LoRA for `part` of the sampling acts in: "high" is the first half, with the
    middle step.
    """
    middle = (steps + 1) // 2
    return {"high": range(middle), "low": range(middle, steps), "both": range(steps)}[part]


class Loras:
    """All LoRAs of a request, added up in their order."""

    def __init__(self, request: ImageInference, model: Model, materials: Materials):
        self._entries = request.lora
        self._files: list[LoraFile] = [materials.loras[entry.model] for entry in self._entries]
        self._matches = [file.match(model.plan) for file in self._files]
        self._plan = model.plan
        seeded = request.inputs is not None and request.inputs.seed_image is not None
        every = range(request.steps + 1)
        self._steps = len(remaining(every, request.strength) if seeded else every) - 1

    @property
    def text(self) -> TextLoras | None:
        """The text encoders' weights; None where no LoRA changes them."""
        patches: list[Weighted] = []
        key: list[Hashable] = []
        for entry, file, match in zip(self._entries, self._files, self._matches, strict=True):
            weight = _text_weight(entry, file)
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
        steps, in_text = list(steps_of(entry.transformer, self._steps)), _text_weight(entry, file)
        found = f"{match.matched} of {match.matched + len(match.unmatched)} tensors matched"
        told = f"LoRA {file.name}: weight {entry.weight:g}"
        if not entry.weight or not match.of(("transformer",)):
            steps = []
        elif not steps:
            told += ", no step in its part of the sampling"
        else:
            told += f" in {len(steps)} of {self._steps} steps ({steps[0] + 1} to {steps[-1] + 1})"
        acts_in_text = bool(in_text and match.of(tuple(ENCODERS)))
        if acts_in_text:
            told += f", {in_text:g} in the text encoders"
        told += f", {found}" if steps or acts_in_text else ", not applied"
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
            "steps": steps,
            "textWeight": in_text if acts_in_text else 0.0,
            "matched": match.matched,
            "unmatched": list(match.unmatched),
            "layers": {kind: count for kind, count in layers.items() if count},
        }
        return Account("lora", tuple(lines), data)


def _text_weight(entry: Lora, file: LoraFile) -> float:
    return entry.weight if file.text_weight is None else file.text_weight


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

    def signature(self, moment: Moment) -> Hashable:
        return self._stages[True] != self._stages[False] and moment.step in steps_of("high", moment.steps)

    def prepare(self, x: torch.Tensor, moment: Moment) -> torch.Tensor:
        early = moment.step in steps_of("high", moment.steps)
        if self._early is None or (early != self._early and self._stages[True] != self._stages[False]):
            self._weights.undo()
            self._weights.put(self._stages[early])
        self._early = early
        return x
