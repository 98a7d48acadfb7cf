"""The check of a run's results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import Fault
from ..features import Account

if TYPE_CHECKING:
    import torch

    from ..materials import Materials
    from ..request import ImageInference

THRESHOLD = 0.5
"""Score from which a picture counts as unsafe: where a classifier holds that for the likelier of the two."""


class Classifier(Protocol):
    """Says how unsafe pictures are. `name` is what the user picked."""

    name: str

    def score(self, picture: torch.Tensor) -> float:
        """How likely it is that a picture [height, width, 3] from 0 to 1 is unsafe, from 0 to 1."""
        ...


def check_safety(request: ImageInference, materials: Materials) -> list[Fault]:
    """What is wrong with a request for checked results: a check that cannot be made must not pass for one."""
    if request.safety is None or request.safety.effective_mode == "none" or materials.classifier is not None:
        return []
    told = (
        "safety.checkContent is true, but there is no classifier that could check: choose one in SD3 Safety, or set "
        "checkContent to false."
    )
    return [Fault("missingClassifier", told, "safety.checkContent")]


class SafetyCheck:
    """The check of one run's results: one look of the classifier at each."""

    def __init__(self, classifier: Classifier):
        self._classifier = classifier
        self._results: list[dict[str, Any]] = []

    def is_unsafe(self, picture: torch.Tensor) -> bool:
        """Whether the next result, [height, width, 3] from 0 to 1, is unsafe. Raises ValueError where the classifier
        gives no score, rather than let the picture pass.
        """
        score = self._classifier.score(picture)
        if not 0 <= score <= 1:
            raise ValueError(f"{self._classifier.name} scored a picture as {score}, which is no probability.")
        self._results.append({"score": score, "nsfw": score >= THRESHOLD})
        return score >= THRESHOLD

    def accounts(self) -> Sequence[Account]:
        """What each result scored."""
        lines = [
            f"safety of result {index}: {'unsafe' if result['nsfw'] else 'safe'}, {result['score']:.2f} by "
            f"{self._classifier.name} (unsafe from {THRESHOLD:g})"
            for index, result in enumerate(self._results, 1)
        ]
        data = {"classifier": self._classifier.name, "threshold": THRESHOLD, "results": self._results}
        return [Account("safety", tuple(lines), data)]
