"""The ControlNets of one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..canvas import Canvas
from ..features import Account, Feature
from ..loading.faults import within
from ..painting import remaining
from .check import suits
from .feature import Control, Tally, steps_of
from .file import ControlNetFile
from .hints import Hints

if TYPE_CHECKING:
    from ..materials import Materials
    from ..model import Model
    from ..monitor import Monitor
    from ..request import ControlNet, ImageInference


class ControlNets:
    """All nets of a request; each acts for itself, and the loop adds up what they give."""

    def __init__(self, request: ImageInference, model: Model, materials: Materials, monitor: Monitor):
        self._entries = request.control_net
        self._files = [materials.control_nets[entry.model] for entry in self._entries]
        self._tallies = [Tally() for _ in self._entries]
        self._model = model
        self._hints = Hints(request, model, materials, monitor)
        seeded = request.inputs is not None and request.inputs.seed_image is not None
        every = range(request.steps + 1)
        self._steps = len(remaining(every, request.strength) if seeded else every) - 1

    def features(self, canvas: Canvas, index: int) -> list[Feature]:
        """Those of result `index` on a canvas; a net without weight or without a step in its window has none."""
        acting = [number for number, entry in enumerate(self._entries) if self._acts(entry)]
        return [self._control(number, acting, canvas, index) for number in acting]

    def accounts(self) -> list[Account]:
        """What each net did, in their order in the request."""
        return [self._account(number) for number in range(len(self._entries))]

    def _acts(self, entry: ControlNet) -> bool:
        return entry.weight != 0 and len(steps_of(entry, self._steps)) > 0

    def _control(self, number: int, acting: Sequence[int], canvas: Canvas, index: int) -> Control:
        entry, file = self._entries[number], self._files[number]
        with within(f"controlNet[{number}]"):
            self._read(file)
        return Control(
            entry,
            file,
            self._hints.hint(file.shape, entry.guide_image, canvas, index),
            self._model.plan.transformer.shape.blocks,
            self._tallies[number],
            beside=len(acting) > 1,
            brings=number == next(other for other in acting if self._files[other] is file),
        )

    def _read(self, file: ControlNetFile) -> None:
        """The file, if it was not read before; the time counts as the model's reading."""
        before = file.reading_seconds
        file.resident()
        self._model.reading_seconds += file.reading_seconds - before

    def _account(self, number: int) -> Account:
        entry, file, tally = self._entries[number], self._files[number], self._tallies[number]
        steps = sorted(tally.steps)
        data: dict[str, object] = {
            "model": entry.model,
            "kind": file.shape.kind,
            "layers": file.shape.layers,
            "weight": entry.weight,
            "controlMode": entry.control_mode,
            "steps": steps,
            "evaluations": tally.evaluations,
        }
        told = f"ControlNet {file.name}: "
        if steps:
            told += f"weight {entry.weight:g}, {entry.control_mode}, in {len(steps)} of {self._steps} steps"
            told += f" ({steps[0] + 1} to {steps[-1] + 1})"
        else:
            told += "not run, " + ("its weight is 0" if entry.weight == 0 else "no step lies in its window")
        warnings = []
        if steps and not suits(file.shape, self._model):
            warnings.append("made for another model of the same width; expect little of it")
        if steps and file.shape.inpaints and not self._hints.has_mask(entry.guide_image):
            warnings.append("an inpainting net without a mask: it keeps all that the guide image shows")
        notes = tuple(f"ControlNet {file.name}: {warning}" for warning in warnings)
        return Account("controlNet", (told, *notes), {**data, "warnings": warnings}, notes)
