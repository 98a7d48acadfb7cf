"""Faces found in a finished picture and painted again in detail."""

from .detector import FaceDetector, Found, check_faces
from .fix import FaceFix
from .yolo import open_detector

__all__ = ["FaceDetector", "FaceFix", "Found", "check_faces", "open_detector"]
