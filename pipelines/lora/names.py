"""What the layers of LoRA files are called, in all forms that trainers write, and which weights they mean.

The forms, by who writes them: `transformer.` diffusers and SimpleTuner, `base_model.model.` PEFT, `lora_unet_` and
`lora_te1_` kohya's sd-scripts, `lora_transformer_` and `transformer.joint_blocks.` OneTrainer, `lycoris_` LyCORIS,
`diffusion_model.` ComfyUI; and none at all. Each may use diffusers' names of the layers or the published file's, where
queries, keys and values are one matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..loading import ModelPlan
from ..loading.layout import Target
from ..loading.plan import component_targets
from ..loading.transformer_keys import transformer_targets

ENCODERS = {"clip_l": ("1", "text_encoder"), "clip_g": ("2", "text_encoder_2"), "t5": ("3", "text_encoder_3")}
"""Kind -> its number in kohya's names, and its name in diffusers'."""


@dataclass(frozen=True)
class Site:
    """A matrix that a LoRA layer changes: one of a module's, or several stacked along the first dimension.

    `kind` is the component, `targets` its parameters in their order; where they are `swapped`, the LoRA knows the two
    halves of the matrix in the other order. `has_bias` says whether each has a bias beside it.
    """

    kind: str
    targets: tuple[Target, ...]
    swapped: bool = False
    has_bias: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole matrix."""
        first = self.targets[0].shape
        return (first[0] * len(self.targets), *first[1:])


def sites(plan: ModelPlan) -> dict[str, Site]:
    """The names of all LoRA layers that would mean something in this model, without what follows them."""
    found: dict[str, Site] = {}
    for name, site in _transformer(plan):
        found.setdefault(name, site)
    for kind in ENCODERS:
        source = getattr(plan, kind)
        if source is not None:
            targets = component_targets(source)
            biased = _biased(targets)
            for target in _matrices(targets):
                layer = _layer(target.name)
                for name in _encoder_names(kind, layer):
                    found.setdefault(name, Site(kind, (target,), has_bias=layer in biased))
    return found


def _transformer(plan: ModelPlan) -> Iterator[tuple[str, Site]]:
    stacked: dict[str, list[Target]] = {}
    every = transformer_targets(plan.transformer.shape, True)
    biased = _biased(every)

    def site(*targets: Target, swapped: bool = False) -> Site:
        return Site("transformer", targets, swapped, all(_layer(target.name) in biased for target in targets))

    for target in _matrices(every):
        stacked.setdefault(_layer(target.source), []).append(target)
        # The module's own order of halves is diffusers'.
        for name in _transformer_names(_layer(target.name)):
            yield name, site(target)
    for layer, targets in stacked.items():
        targets.sort(key=lambda target: target.part)
        for name in _transformer_names(layer):
            yield name, site(*targets, swapped=targets[0].swap)
        if len(targets) > 1:
            # OneTrainer splits a stacked layer by numbers behind its name.
            for number, target in enumerate(targets):
                for name in _transformer_names(f"{layer}.{number}"):
                    yield name, site(target)


def _matrices(targets: list[Target]) -> list[Target]:
    """Weights with rows and columns; a file's name for them ends with `.weight`."""
    return [target for target in targets if len(target.shape) > 1 and target.source.endswith(".weight")]


def _biased(targets: list[Target]) -> set[str]:
    """The layers that have a bias."""
    return {target.name.removesuffix(".bias") for target in targets if target.name.endswith(".bias")}


def _layer(parameter: str) -> str:
    return parameter.removesuffix(".weight")


def _transformer_names(layer: str) -> tuple[str, ...]:
    flat = layer.replace(".", "_")
    dotted = ("transformer.", "diffusion_model.", "model.diffusion_model.", "base_model.model.", "")
    return (*(prefix + layer for prefix in dotted), f"lora_unet_{flat}", f"lora_transformer_{flat}", f"lycoris_{flat}")


def _encoder_names(kind: str, layer: str) -> tuple[str, ...]:
    number, diffusers = ENCODERS[kind]
    flat = layer.replace(".", "_")
    published = "t5xxl" if kind == "t5" else kind
    names = [f"lora_te{number}_{flat}", f"{diffusers}.{layer}", f"text_encoders.{published}.transformer.{layer}"]
    # OneTrainer's newer form; and diffusers' with transformers 5, whose CLIPTextModel has no inner `text_model`.
    names += [f"{kind}.{layer}", f"{diffusers}.{layer.removeprefix('text_model.')}"]
    # A model with one CLIP has no number for it.
    return (*names, f"lora_te_{flat}") if kind == "clip_l" else tuple(names)


def layer_of(key: str, names: Mapping[str, Site]) -> str | None:
    """The name among `names` that a key of a file belongs to, by what trainers put behind it; None for none."""
    end = len(key)
    while (end := key.rfind(".", 0, end)) >= 0:
        head = key[:end]
        for name in (head, head.removesuffix("_lora")):
            if name in names:
                return name
    return None
