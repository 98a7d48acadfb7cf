"""A LoRA's file, and what of it fits a model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import Fault, RequestError
from ..loading import ModelPlan, faults
from ..loading.checkpoint import read_metadata, read_table
from ..loading.identify import describe
from .names import Site, layer_of, sites
from .shapes import DOWNS, matrix_shape, origin

if TYPE_CHECKING:
    import torch

PARAMETER = "model"

# What trainers put behind a layer's name: (the two factors, or all of a Kronecker product) of each kind of adapter.
_SUFFIX = re.compile(
    r"(lora[_.](up|down|mid|A|B|linear_layer|magnitude)|hada_[wt]|lokr_[wt]|dora_scale|oft_|boft_|glora|\.[ab][12]\."
    r"|\.diff(_b)?$|\.set_weight$|\.w_norm$|\.b_norm$|\.alpha$)"
)
_BIASES = (".diff_b", ".b_norm")

_TEXT = ("lora_te", "text_encoder")
"""Beginnings of the names of text encoders' layers."""

_MAGNITUDE = (".lora_magnitude_vector.default.weight", ".lora_magnitude_vector.weight", ".lora_magnitude_vector")


class Adapter(Protocol):
    """What a LoRA makes of a matrix."""

    def __call__(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        """The matrix with the LoRA at `strength`, of the same shape and dtype; `weight` may be written to.

        Raises ValueError where it is not for a matrix of this shape; tells so on the meta device too.
        """
        ...

    def factors(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(up [rows, rank], down [rank, columns]) in float32, where all that it does is to add strength * up @ down."""
        ...


Parser = Callable[[Mapping[str, "torch.Tensor"], Sequence[str]], Mapping[tuple[str, str], Adapter]]
"""(tensors of a file, names of layers) -> the adapter of each (layer, "weight" or "bias") that the file has.

Raises ValueError, with what is wrong as a predicate, where tensors of a layer are missing or are no such thing.
"""


@dataclass(frozen=True, eq=False)
class Patch:
    """One layer of a LoRA: it changes the matrix at `site`, or where `bias` is set, the bias beside it."""

    layer: str
    site: Site
    adapter: Adapter
    bias: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what it changes."""
        return self.site.shape[:1] if self.bias else self.site.shape


@dataclass(frozen=True)
class Match:
    """What of a file fits a model: its patches, and its keys that found their layer and that did not."""

    patches: tuple[Patch, ...]
    matched: int
    unmatched: tuple[str, ...]

    def of(self, kinds: Sequence[str]) -> list[Patch]:
        """The patches of some components."""
        return [patch for patch in self.patches if patch.site.kind in kinds]


class LoraFile:
    """An opened LoRA. `text_weight` is its weight in text encoders where that differs from the one in the transformer.

    Raises RequestError for what is no LoRA, or is damaged.
    """

    def __init__(self, path: Path, parser: Parser, text_weight: float | None = None):
        table = read_table(path, PARAMETER)
        if not any(_SUFFIX.search(key) for key in table):
            raise faults.unsupported(path, f"is not a LoRA: it holds {describe(table)}.", PARAMETER)
        unread = next((entry for entry in table.values() if entry.dtype is None), None)
        if unread is not None:
            told = f"has tensors of type {unread.type_name}, which cannot be read; use one in fp16, bf16 or fp32."
            raise faults.unsupported(path, told, PARAMETER)
        status = path.stat()
        self.name = faults.label(path)
        self.text_weight = text_weight
        self.stamp = (str(path), status.st_mtime_ns, status.st_size)
        self._path = path
        self._parser = parser
        self._tensors = {key: entry.read() for key, entry in table.items()}
        self._check_finite()
        self._matched: tuple[ModelPlan, Match] | None = None

    def match(self, plan: ModelPlan) -> Match:
        """What of the file fits the model; remembered. Raises RequestError where tensors of a layer are missing."""
        if self._matched is None or self._matched[0] is not plan:
            self._matched = plan, self._match(plan)
        return self._matched[1]

    def faults(self, plan: ModelPlan, parameter: str) -> Iterator[Fault]:
        """What stands against this file in the model, at the path `parameter` in the request."""
        try:
            match = self.match(plan)
        except RequestError as error:
            yield from (replace(fault, parameter=parameter) for fault in error.faults)
            return
        foreign = [key for key in match.unmatched if not key.startswith(_TEXT)]
        # CLIP is in other models too: what else such a file changes tells whose it is.
        if not match.patches or (foreign and not match.of(("transformer",))):
            made_for = origin(foreign)
            told = (
                f'"{self.name}" changes nothing in the transformer of {plan.name}: none of its {len(self._tensors)} '
                f'tensors belongs to a layer there (the first is "{(foreign or list(self._tensors))[0][:100]}"). It is '
                f"made for another kind of model{f', {made_for}' if made_for else ''}."
            )
            yield Fault("incompatibleLora", told, parameter)
            return
        if (misfit := next(self._misfits(match), None)) is not None:
            yield Fault(
                "incompatibleLora", f'"{self.name}" is made for another model than {plan.name}: {misfit}', parameter
            )

    def _misfits(self, match: Match) -> Iterator[str]:
        """What does not fit, beginning with what says most of the model that the file is for."""
        wrong = []
        for patch in match.patches:
            shape = None if patch.bias else matrix_shape(self._tensors, patch.layer)
            wanted = (patch.site.shape[0], math.prod(patch.site.shape[1:]))
            if shape is not None and shape != wanted:
                wrong.append((patch.layer, shape, wanted))
        if wrong:
            layer, shape, wanted = wrong[0]
            more = f", and so it is with {len(wrong) - 1} more" if len(wrong) > 1 else ""
            yield f'its layer "{layer}" is {shape[0]} x {shape[1]}, the model\'s is {wanted[0]} x {wanted[1]}{more}.'
        for patch in match.patches:
            try:
                patch.adapter(self._blank(patch), 1.0)
            except ValueError:
                yield (
                    f'the tensors of its layer "{patch.layer}" go neither with each other nor with the model\'s '
                    f"{' x '.join(map(str, patch.shape))} there."
                )

    def _blank(self, patch: Patch) -> torch.Tensor:
        """A tensor in which a patch can show whether it fits."""
        import torch

        if f"{patch.layer}.oft_blocks" in self._tensors:
            # These act on rows alone, and by values that the meta device does not have.
            return torch.zeros(patch.shape[0], 1)
        return torch.empty(patch.shape, device="meta")

    def _match(self, plan: ModelPlan) -> Match:
        names = sites(plan)
        tensors = dict(self._tensors)
        owners = {key: layer_of(key, names) for key in tensors}
        layers = list(dict.fromkeys(layer for layer in owners.values() if layer is not None))
        magnitudes = {layer: found for layer in layers if (found := _magnitude(tensors, layer)) is not None}
        _add_alphas(tensors, layers, read_metadata(self._path))
        try:
            adapters = dict(self._parser(tensors, layers))
        except ValueError as error:
            raise faults.invalid(self._path, f"{error}; download it again.", PARAMETER) from None
        for layer, magnitude in magnitudes.items():
            if (layer, "weight") in adapters:
                adapters[layer, "weight"] = _Decomposed(adapters[layer, "weight"], magnitude)
        patches = tuple(
            Patch(layer, names[layer], adapter, end == "bias")
            for (layer, end), adapter in adapters.items()
            if end == "weight" or names[layer].has_bias
        )
        known = {layer for layer, end in adapters if end == "weight"}
        known_biases = {patch.layer for patch in patches if patch.bias}
        unmatched = tuple(
            key for key, layer in owners.items() if layer not in (known_biases if key.endswith(_BIASES) else known)
        )
        return Match(patches, len(owners) - len(unmatched), unmatched)

    def _check_finite(self) -> None:
        for key, tensor in self._tensors.items():
            if tensor.is_floating_point() and not tensor.float().isfinite().all():
                told = f'has NaN or infinite weights ("{key}"); the file is damaged, or its training failed.'
                raise faults.invalid(self._path, told, PARAMETER)


def _magnitude(tensors: dict[str, torch.Tensor], layer: str) -> torch.Tensor | None:
    """Takes out the magnitudes of a DoRA: a column [rows, 1], as PEFT's and most others, or a row [1, columns]."""
    if (magnitude := tensors.pop(f"{layer}.dora_scale", None)) is not None:
        return magnitude.flatten(1)
    peft = [tensors.pop(layer + suffix) for suffix in _MAGNITUDE if layer + suffix in tensors]
    return peft[0].reshape(-1, 1) if peft else None


class _Decomposed:
    """m (W + B A) / |W + B A|, Liu et al. 2024, https://arxiv.org/abs/2402.09353, equation 5; a strength goes from W
    towards it.

    The norm is that of the changed matrix, as PEFT and LyCORIS train it; ComfyUI divides by that of W where the
    magnitudes are a column (comfy/weight_adapter/base.py, weight_decompose).
    """

    def __init__(self, adapter: Adapter, magnitude: torch.Tensor):
        self._adapter = adapter
        self._magnitude = magnitude

    def __call__(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        scale = self._magnitude.to(weight.device, weight.dtype)
        changed = self._adapter(weight.clone(), 1.0).flatten(1)
        by_rows = scale.shape[1] == 1
        if scale.shape != ((len(changed), 1) if by_rows else (1, changed.shape[1])):
            raise ValueError(f"Magnitudes {list(scale.shape)} do not fit a weight of the shape {list(weight.shape)}.")
        norm = changed.norm(dim=1 if by_rows else 0, keepdim=True)
        return weight + strength * ((scale * changed / norm).view_as(weight) - weight)

    def factors(self) -> None:
        """See `Adapter`: it divides by what it adds."""


def _add_alphas(tensors: dict[str, torch.Tensor], layers: Sequence[str], metadata: Mapping[str, str]) -> None:
    """The alpha of diffusers' files, which is in their header: `lora_adapter_metadata`, PEFT's LoraConfig by component.

    PEFT scales by alpha / rank, or alpha / sqrt(rank) with `use_rslora`; a file's alpha stands for the former.
    """
    import torch

    try:
        config: Any = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        config = {}
    if not isinstance(config, dict):
        return
    for layer in layers:
        component = layer.partition(".")[0]
        alpha = config.get(f"{component}.lora_alpha")
        patterns = config.get(f"{component}.alpha_pattern")
        for pattern, value in (patterns if isinstance(patterns, dict) else {}).items():
            if re.fullmatch(rf"(.*\.)?{re.escape(pattern)}", layer):
                alpha = value
        rank = next((tensors[layer + end].shape[0] for end in DOWNS if layer + end in tensors), None)
        if f"{layer}.alpha" in tensors or rank is None or not isinstance(alpha, (int, float)):
            continue
        scaled = alpha * math.sqrt(rank) if config.get(f"{component}.use_rslora") else alpha
        tensors[f"{layer}.alpha"] = torch.tensor(float(scaled))
