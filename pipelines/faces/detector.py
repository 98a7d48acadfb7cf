"""Who finds the faces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..canvas import Box
from ..errors import Fault

if TYPE_CHECKING:
    import torch

    from ..materials import Materials
    from ..request import ImageInference


class Found(NamedTuple):
    """A face in a picture, and how sure the detector is of it, from 0 to 1."""

    box: Box
    confidence: float


class FaceDetector(Protocol):
    """Finds faces. `name` is what the user picked."""

    name: str

    def find(self, picture: torch.Tensor) -> Sequence[Found]:
        """The faces in a picture [height, width, 3] from 0 to 1, also those that it is hardly sure of; the caller
        chooses.
        """
        ...


def check_faces(request: ImageInference, materials: Materials) -> list[Fault]:
    """What is wrong with a request for painting faces again."""
    if materials.detector is not None:
        return []
    told = (
        "ultralytics is given, but no detector finds the faces: choose one in SD3 Face Fix, a .pt file in ComfyUI's "
        "folder models/ultralytics/bbox, or leave ultralytics out."
    )
    return [Fault("missingDetector", told, "ultralytics")]
