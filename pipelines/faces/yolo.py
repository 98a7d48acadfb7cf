"""ultralytics' YOLO as a detector of faces."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..canvas import Box
from ..errors import RequestError
from ..loading import faults
from ..placement import when_full
from .checkpoint import PARAMETER, read_checkpoint
from .detector import Found
from .library import load_library

if TYPE_CHECKING:
    import torch

DEFAULT_SIDE = 640
"""Pixels a side that a detector looks at where its file does not say, as in ultralytics."""

UNSURE = 0.01
"""Confidence below which nothing counts as found, however little is asked for."""

OVERLAP = 0.7
"""Boxes that share more of their union than this are one face: ultralytics' own default."""

MOST = 300
"""Faces in a picture at most: ultralytics' own default."""

_FACE_NAMES = ("face", "head")


class YoloDetector:
    """A detector read from a file; `device` is where it works. It lies on the CPU in between."""

    def __init__(self, name: str, network: torch.nn.Module, side: int, classes: Sequence[int], device: torch.device):
        self.name = name
        self._network = network
        self._side = side
        self._classes = list(classes)
        self._device = device

    def find(self, picture: torch.Tensor) -> list[Found]:
        """The faces in a picture [height, width, 3] from 0 to 1, the surest first."""
        found = when_full(lambda small: self._find(picture, "cpu" if small else self._device), _exhausted)[0]
        return [Found(_outward(corners, picture), confidence) for *corners, confidence, _ in found]

    def _find(self, picture: torch.Tensor, device: torch.device | str) -> list[list[float]]:
        """[left, top, right, bottom, confidence, class] of each face, in pixels of the picture."""
        import torch

        augment, nms, ops = load_library("ultralytics.data.augment", "ultralytics.utils.nms", "ultralytics.utils.ops")
        with torch.inference_mode():
            # A copy, because a network that came back from a device would not be the one that left.
            network = self._network if str(device) == "cpu" else copy.deepcopy(self._network).to(device)
            page = (picture[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
            fit = augment.LetterBox((self._side, self._side), auto=True, stride=_stride(self._network))
            seen = torch.from_numpy(fit(image=page)).movedim(-1, 0)[None].to(device).float() / 255
            boxes = network(seen)
            while isinstance(boxes, (list, tuple)):
                # Beside the boxes lie outlines, and what a training would want.
                boxes = boxes[0]
            boxes = nms.non_max_suppression(
                boxes,
                UNSURE,
                OVERLAP,
                classes=self._classes,
                max_det=MOST,
                nc=len(self._network.names),
                end2end=getattr(self._network, "end2end", False),
            )[0].float()
            boxes[:, :4] = ops.scale_boxes(seen.shape[2:], boxes[:, :4], page.shape)
            return boxes[:, :6].cpu().tolist()


def open_detector(path: Path, device: torch.device | None = None, name: str | None = None) -> YoloDetector:
    """The detector in an ultralytics file, which may find boxes, outlines or points of faces.

    `device` is where it is to work, the CPU where not given. Raises RequestError for what is no such file, finds no
    faces, or holds code.
    """
    import torch

    (tasks,) = load_library("ultralytics.nn.tasks")
    content = read_checkpoint(path)
    network = content.get("ema") or content.get("model")
    # Others that are derived from these put their boxes in other ways.
    known = (tasks.DetectionModel, tasks.SegmentationModel, tasks.PoseModel)
    names = _names(network) if type(network) in known else {}
    if not names:
        told = "is a file of another kind than an ultralytics detector (YOLOv8 or later); choose a detector of faces."
        raise faults.unsupported(path, told, PARAMETER)
    network.names = names
    classes = [index for index, name in names.items() if len(names) == 1 or _is_face(name)]
    if not classes:
        shown = ", ".join(list(names.values())[:5])
        told = f"finds {len(names)} kinds of things ({shown[:100]}...), but no faces; choose another detector."
        raise faults.unsupported(path, told, PARAMETER)
    try:
        network = network.float().requires_grad_(False).eval()
        if not all(tensor.isfinite().all() for tensor in network.state_dict().values()):
            raise faults.invalid(path, "has NaN or infinite weights; download it again.", PARAMETER)
        detector = YoloDetector(name or path.name, network, _side(content), classes, device or torch.device("cpu"))
        # What a file lacks shows when it is run: here, and not after minutes of sampling.
        detector._find(torch.zeros(_stride(network), _stride(network), 3), "cpu")
    except RequestError:
        raise
    except Exception as error:
        told = (
            f"does not run ({type(error).__name__}: {str(error)[:100]}); it may be of another version of ultralytics."
        )
        raise faults.unsupported(path, told, PARAMETER) from error
    return detector


def _names(network: torch.nn.Module) -> dict[int, str]:
    """What the network calls the kinds of things that it finds; nothing where that makes no sense."""
    names = getattr(network, "names", None)
    names = dict(enumerate(names)) if isinstance(names, (list, tuple)) else names
    sound = isinstance(names, dict) and all(type(index) is int for index in names)
    return {index: str(name) for index, name in names.items()} if sound else {}


def _is_face(name: str) -> bool:
    return any(word in name.lower() for word in _FACE_NAMES)


def _side(content: dict[str, Any]) -> int:
    options = content.get("train_args")
    side = options.get("imgsz") if isinstance(options, dict) else None
    side = max(side) if isinstance(side, (list, tuple)) and side else side
    return side if type(side) is int and 32 <= side <= 4096 else DEFAULT_SIDE


def _stride(network: torch.nn.Module) -> int:
    return max(32, int(max(network.stride)))


def _outward(corners: Sequence[float], picture: torch.Tensor) -> Box:
    """Whole pixels of the picture that cover a box."""
    height, width = picture.shape[:2]
    left, top, right, bottom = corners
    return Box(
        max(0, math.floor(left)), max(0, math.floor(top)), min(width, math.ceil(right)), min(height, math.ceil(bottom))
    )


def _exhausted() -> RequestError:
    return RequestError("insufficientMemory", "There is not enough memory for the face detector.", "ultralytics")
