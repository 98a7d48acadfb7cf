"""Whether finished pictures are unsafe to show."""

from .check import Classifier, SafetyCheck, check_safety
from .folder import open_folder
from .opennsfw import open_packaged

__all__ = ["Classifier", "SafetyCheck", "check_safety", "open_folder", "open_packaged"]
