"""A classifier of the user's: a folder as transformers saves image classifiers, such as nsfw_image_detection."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..loading import faults

if TYPE_CHECKING:
    import torch

PARAMETER = "classifier"

UNSAFE = frozenset(
    {
        *("nsfw", "unsafe", "porn", "porno", "pornography", "pornographic", "hentai", "sexy", "sexual", "explicit"),
        *("nude", "nudity", "naked", "adult", "erotic", "erotica"),
    }
)
"""Words that make a label an unsafe one, such as "nsfw" or "explicit_nudity"."""

NEGATIONS = frozenset({"not", "non", "no", "never"})


class FolderClassifier:
    """An image classifier of transformers on the CPU; `unsafe` are the indices of its unsafe labels."""

    def __init__(self, name: str, network: torch.nn.Module, processor: Any, unsafe: list[int]):
        self.name = name
        self._network = network
        self._processor = processor
        self._unsafe = unsafe

    def score(self, picture: torch.Tensor) -> float:
        import torch
        from PIL import Image

        page = Image.fromarray((picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())
        with torch.inference_mode():
            seen = self._processor(images=page, return_tensors="pt")
            logits = self._network(**seen).logits[0].float()
        if self._network.config.problem_type == "multi_label_classification":
            # Labels that do not exclude each other: the worst of them counts.
            return logits.sigmoid()[self._unsafe].max().item()
        return min(logits.softmax(0)[self._unsafe].sum().item(), 1.0)


def open_folder(path: Path, name: str | None = None) -> FolderClassifier:
    """The classifier in a folder with config.json, preprocessor_config.json and safetensors weights.

    Raises RequestError for what is no such folder, for weights in pickles, and for labels that do not say which of
    them is unsafe. Nothing is fetched, and no code of the folder's is run.
    """
    labels = _labels(path)
    unsafe = [index for index, label in labels.items() if is_unsafe(label)]
    if not unsafe or len(unsafe) == len(labels):
        shown = ", ".join(labels.values())[:100]
        told = f"has the labels {shown}, of which none is clearly safe or none clearly unsafe (such as nsfw or porn)."
        raise faults.unsupported(path, f"{told} Choose another classifier.", PARAMETER)
    if not any(path.glob("model*.safetensors")):
        told = "has no weights in a file model.safetensors, the only kind that is read here"
        raise faults.invalid(path, f"{told}; download it again in that form.", PARAMETER)
    if not (path / "preprocessor_config.json").is_file():
        raise faults.invalid(path, "has no preprocessor_config.json; download the folder again.", PARAMETER)
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    given = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = AutoImageProcessor.from_pretrained(path, **given)
        network, loaded = AutoModelForImageClassification.from_pretrained(
            path, use_safetensors=True, output_loading_info=True, **given
        )
    except Exception as error:
        # transformers has no error of its own for any of what can be wrong with a folder.
        told = f"cannot be loaded by transformers ({type(error).__name__}: {str(error)[:150]})."
        raise faults.invalid(path, told, PARAMETER) from error
    lacking = sorted(loaded["missing_keys"])
    if lacking:
        # What the file lacks would be drawn at random, and such a check says nothing.
        told = f'lacks {len(lacking)} of its tensors, the first is "{lacking[0]}"; download it again.'
        raise faults.invalid(path, told, PARAMETER)
    return FolderClassifier(name or path.name, network.float().eval(), processor, unsafe)


def is_unsafe(label: str) -> bool:
    """Whether a label names pictures that are unsafe to show: "NSFW" and "explicit_nudity" do, "not_nsfw" does not."""
    words = set(re.findall("[a-z]+", label.lower()))
    return bool(words & UNSAFE) and not words & NEGATIONS


def _labels(path: Path) -> dict[int, str]:
    """The folder's labels by their indices."""
    if not path.is_dir():
        raise faults.missing(path, PARAMETER)
    try:
        named = json.loads((path / "config.json").read_text(encoding="utf-8"))["id2label"]
        labels = {int(index): str(label) for index, label in named.items()}
    except FileNotFoundError:
        told = "is a folder without config.json, so no image classifier; download it again."
        raise faults.invalid(path, told, PARAMETER) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        told = "has a config.json without labels (id2label) that say which pictures are unsafe; choose another."
        raise faults.unsupported(path, told, PARAMETER) from None
    if sorted(labels) != list(range(len(labels))):
        raise faults.unsupported(path, "numbers its labels in no order that can be read.", PARAMETER)
    return labels
