"""Faces painted again, one after the other, each at the size that the model paints best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..canvas import Canvas
from ..features import Account
from .area import FaceArea, apart
from .detector import FaceDetector, Found
from .preview import with_boxes

if TYPE_CHECKING:
    import torch

    from ..loading import ModelPlan
    from ..request import Ultralytics

Paint = Callable[[Canvas, "torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""(canvas, picture [height, width, 3], mask [height, width]) -> [painted height, painted width, 3]."""


class FaceFix:
    """The faces of one run's results. `previews` are the results in which faces were looked for, [height, width, 3],
    as they were before, with the boxes that were found.
    """

    def __init__(self, options: Ultralytics, detector: FaceDetector, plan: ModelPlan):
        self.previews: list[torch.Tensor] = []
        self._options = options
        self._detector = detector
        self._plan = plan
        self._results: list[dict[str, Any]] = []

    def fix(self, picture: torch.Tensor, index: int, paint: Paint) -> torch.Tensor:
        """Result `index`, [height, width, 3] from 0 to 1, with its faces painted again, the surest first.

        Each is painted into the picture as it is by then, so where two meet, the later one shows. What lies outside
        all their masks is the very same.
        """
        if self._options.strength == 0:
            self._results.append({"result": index, "faces": [], "bestUnsure": None})
            return picture
        found = self._detector.find(picture)
        faces = apart([face for face in found if face.confidence >= self._options.confidence])
        unsure = [face.confidence for face in found if face.confidence < self._options.confidence]
        self.previews.append(with_boxes(picture, faces))
        told = []
        for face in faces:
            area = self._area(face, picture)
            picture = area.put(picture, paint(area.canvas, picture, area.changing))
            told.append(_told(face, area))
        self._results.append({"result": index, "faces": told, "bestUnsure": max(unsure, default=None)})
        return picture

    def accounts(self) -> Sequence[Account]:
        """What was found in each result, and at what size it was painted."""
        lines = [line for result in self._results for line in self._lines(result)]
        data = {
            "detector": self._detector.name,
            "confidence": self._options.confidence,
            "strength": self._options.strength,
            "results": self._results,
        }
        notes = [line for result in self._results if not result["faces"] for line in self._lines(result)]
        return [Account("ultralytics", tuple(lines), data, tuple(notes))]

    def _area(self, face: Found, picture: torch.Tensor) -> FaceArea:
        height, width = picture.shape[:2]
        side = self._plan.native_side
        return FaceArea.of(
            face.box,
            width,
            height,
            padding=self._options.mask_padding,
            blur=self._options.mask_blur,
            area=width * height if side is None else side**2,
            max_side=self._plan.max_side,
        )

    def _lines(self, result: dict[str, Any]) -> list[str]:
        where = f"faces of result {result['result'] + 1}"
        if self._options.strength == 0:
            return [f"{where}: not looked for, strength is 0"]
        if not result["faces"]:
            best = result["bestUnsure"]
            near = "" if best is None else f"; the surest has {best:.2f}, asked for is {self._options.confidence:g}"
            return [f"{where}: none found by {self._detector.name}, the picture is unchanged{near}"]
        return [
            f"{where}: {face['box']['right'] - face['box']['left']} x {face['box']['bottom'] - face['box']['top']} px "
            f"at ({face['box']['left']}, {face['box']['top']}), confidence {face['confidence']:.2f}, painted at "
            f"{face['width']} x {face['height']}"
            for face in result["faces"]
        ]


def _told(face: Found, area: FaceArea) -> dict[str, Any]:
    return {
        "box": face.box._asdict(),
        "confidence": face.confidence,
        "crop": area.canvas.box._asdict(),
        "width": area.canvas.painted_width,
        "height": area.canvas.painted_height,
    }
