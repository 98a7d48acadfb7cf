"""The IP-Adapters of one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..features import Account, Feature
from ..inputs import opaque
from ..loading.faults import within
from .combine import combined
from .feature import Acting, PicturePrompts, Tally
from .weights import LAYOUT_TYPES, block_weights

if TYPE_CHECKING:
    import torch

    from ..materials import Materials
    from ..model import Model
    from ..monitor import Monitor
    from ..request import ImageInference, IPAdapter


class IPAdapters:
    """All adapters of a request; their guide images are encoded once a run."""

    def __init__(self, request: ImageInference, model: Model, materials: Materials, monitor: Monitor):
        self._entries = request.ip_adapters
        self._files = [materials.ip_adapters[entry.model] for entry in self._entries]
        blocks = model.plan.transformer.shape.blocks
        self._weights = [block_weights(entry, blocks) for entry in self._entries]
        self._tallies = [Tally() for _ in self._entries]
        self._model = model
        self._pictures = materials.pictures
        self._monitor = monitor
        self._embeddings: dict[int, torch.Tensor] = {}

    def features(self) -> list[Feature]:
        """One for all adapters that have a weight in some block, none where there is no such adapter."""
        acting = [number for number, weights in enumerate(self._weights) if any(weights)]
        return [PicturePrompts([self._acting(number) for number in acting])] if acting else []

    def accounts(self) -> list[Account]:
        """What each adapter did, in their order in the request."""
        return [self._account(number) for number in range(len(self._entries))]

    def _acting(self, number: int) -> Acting:
        entry, file = self._entries[number], self._files[number]
        before = file.reading_seconds
        with within(f"ipAdapters[{number}]"):
            resident = file.resident()
            if number not in self._embeddings:
                self._embeddings[number] = self._encoded(number)
        self._model.reading_seconds += file.reading_seconds - before
        return Acting(
            resident, self._embeddings[number], self._weights[number], entry.embed_scaling, self._tallies[number]
        )

    def _encoded(self, number: int) -> torch.Tensor:
        """The adapter's guide images as its resampler is given them."""
        import torch

        entry, encoder = self._entries[number], self._files[number].encoder
        pictures = [picture for name in entry.guide_images for picture in self._pictures[name]]
        embeddings = [encoder.encode(opaque(picture.cpu()), self._monitor) for picture in pictures]
        return combined(torch.stack(embeddings), entry.combine_method)

    def _account(self, number: int) -> Account:
        entry, file, tally = self._entries[number], self._files[number], self._tallies[number]
        weights, steps = self._weights[number], sorted(tally.steps)
        images = sum(len(self._pictures[name]) for name in entry.guide_images)
        blocks = [index for index, weight in enumerate(weights) if weight]
        data: dict[str, object] = {
            "model": entry.model,
            "encoder": file.encoder.name,
            "weight": entry.weight,
            "guideImages": images,
            "combineMethod": entry.combine_method,
            "embedScaling": entry.embed_scaling,
            "weightType": entry.weight_type,
            "blockWeights": list(weights),
            "steps": steps,
            "evaluations": tally.evaluations,
        }
        told = f"IP-Adapter {file.name}: "
        if not blocks:
            told += "not run, " + ("its weight is 0" if entry.weight == 0 else "its weight is 0 in every block")
        elif not steps:
            told += "not run, there was nothing to sample"
        else:
            told += f"weight {entry.weight:g} ({entry.embed_scaling}, {entry.weight_type})"
            told += f" in {len(blocks)} of {len(weights)} blocks and {len(steps)} steps, {images} guide "
            told += f"images by {entry.combine_method}" if images > 1 else "image"
        warnings = [message for message in (_unused(entry),) if message is not None]
        notes = tuple(f"IP-Adapter {file.name}: {warning}" for warning in warnings)
        return Account("ipAdapters", (told, *notes), {**data, "warnings": warnings}, notes)


def _unused(entry: IPAdapter) -> str | None:
    if entry.weight_composition is None or entry.weight_type in LAYOUT_TYPES:
        return None
    return f"weightComposition has no effect with the weight type {entry.weight_type}"
