"""From the files a user chose to a plan of components, by reading headers only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import RequestError
from . import faults
from .checkpoint import Table, read_table
from .folder import read_component, read_folder
from .identify import describe, find_add_on, find_components
from .layout import Target, storage_dtype, verify
from .source import ModelFiles, ModelPlan, Source
from .text_keys import clip_kind, clip_shape, clip_table, clip_targets, t5_shape, t5_targets, thing_of
from .transformer_keys import THING as TRANSFORMER
from .transformer_keys import is_stability, transformer_shape, transformer_targets, verify_blocks
from .vae_keys import THING as VAE
from .vae_keys import is_original, vae_shape, vae_targets

_ENCODERS = ("clip_l", "clip_g", "t5")
# A patch of the transformer is 2 x 2 latent places, each of 8 x 8 pixels.
_PIXELS_PER_PATCH = 16

Components = dict[str, tuple[Path, Table]]


def inspect_model(files: ModelFiles) -> ModelPlan:
    """What the chosen files hold, checked as far as headers can tell: names, shapes, types, and how the parts fit.

    Nothing but headers is read. Raises RequestError with all faults of all files; each names the request's field
    ("model", "vae", "textEncoder1"...), the file and the reason.
    """
    faulty: list[RequestError] = []

    def attempt(step: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return step(*arguments)
        except RequestError as error:
            faulty.append(error)
            return None

    chosen: dict[str, Source] = {}
    for index, path in enumerate(files.text_encoders, start=1):
        if path is None:
            continue
        for source in attempt(_encoders, path, f"textEncoder{index}") or ():
            if source.kind in chosen:
                faulty.append(
                    faults.incompatible(
                        source.path,
                        f"is {thing_of(source.kind)}, and so is "
                        f'"{faults.label(chosen[source.kind].path)}"; choose one of them.',
                        source.parameter,
                    )
                )
            chosen.setdefault(source.kind, source)
    if files.vae is not None and (vae := attempt(_separate_vae, files.vae, "vae")) is not None:
        chosen["vae"] = vae
    components: Components = attempt(_model_components, files.model, "model") or {}
    for kind, (path, table) in components.items():
        replaced = kind in chosen or (kind == "vae" and files.vae is not None)
        if not replaced and (source := attempt(_source, kind, path, table, "model")) is not None:
            chosen[kind] = source
    if (transformer := chosen.get("transformer")) is not None:
        for kind in _ENCODERS:
            if kind in chosen:
                attempt(_check_widths, transformer, chosen[kind], chosen)
    if faulty:
        raise RequestError.of(fault for error in faulty for fault in error.faults)
    shape = chosen["transformer"].shape
    return ModelPlan(
        transformer=chosen["transformer"],
        vae=chosen.get("vae"),
        clip_l=chosen.get("clip_l"),
        clip_g=chosen.get("clip_g"),
        t5=chosen.get("t5"),
        name=shape.name,
        max_side=shape.table * _PIXELS_PER_PATCH,
        native_side=shape.native_side,
        context_width=shape.context_width,
        pooled_width=shape.pooled_width,
    )


def component_targets(source: Source) -> list[Target]:
    """Every parameter of the component's module with its place in the file."""
    match source.kind:
        case "transformer":
            return transformer_targets(source.shape, is_stability(source.tensors))
        case "vae":
            return vae_targets(source.shape, is_original(source.tensors))
        case "t5":
            return t5_targets(source.shape)
        case _:
            return clip_targets(source.shape)


def _open(path: Path, parameter: str) -> Table:
    if path.is_dir():
        return read_component(path, parameter)
    return read_table(path, parameter)


def _model_components(path: Path, parameter: str) -> Components:
    if path.is_dir():
        components: Components = dict(read_folder(path, parameter))
        if "transformer" not in components:
            raise faults.invalid(path, "has no transformer folder; download it again.", parameter)
        return components
    table = read_table(path, parameter)
    add_on = find_add_on(table)
    found = find_components(table)
    if add_on is not None or "transformer" not in found:
        held = add_on or describe(table)
        where = {
            "a VAE": " Choose it as the VAE.",
            "a T5 text encoder": " Choose it as a text encoder.",
            "a CLIP text encoder": " Choose it as a text encoder.",
        }.get(held, "")
        raise faults.unsupported(path, f"is not an SD3 model: it holds {held}.{where}", parameter)
    # A CLIP encoder with bare names beside a transformer does not say which it is.
    return {kind: (path, part) for kind, part in found.items() if kind != "clip"}


def _separate_vae(path: Path, parameter: str) -> Source:
    table = _open(path, parameter)
    found = find_components(table)
    if find_add_on(table) is not None or "vae" not in found:
        raise faults.unsupported(path, f"is not a VAE: it holds {describe(table)}.", parameter)
    return _source("vae", path, found["vae"], parameter)


def _encoders(path: Path, parameter: str) -> list[Source]:
    table = _open(path, parameter)
    found = {kind: part for kind, part in find_components(table).items() if kind in (*_ENCODERS, "clip")}
    if find_add_on(table) is not None or not found:
        raise faults.unsupported(path, f"is not a text encoder of SD3: it holds {describe(table)}.", parameter)
    if (clip := found.pop("clip", None)) is not None:
        found[clip_kind(clip_table(clip), path)] = clip
    return [_source(kind, path, part, parameter) for kind, part in found.items()]


def _source(kind: str, path: Path, table: Mapping[str, Any], parameter: str) -> Source:
    match kind:
        case "transformer":
            thing, shape = TRANSFORMER, transformer_shape(table, path, parameter)
            targets = transformer_targets(shape, is_stability(table))
        case "vae":
            thing, shape = VAE, vae_shape(table, path, parameter)
            targets = vae_targets(shape, is_original(table))
        case "t5":
            thing, shape = thing_of(kind), t5_shape(table, path, parameter)
            targets = t5_targets(shape)
        case _:
            table = clip_table(table)
            thing, shape = thing_of(kind), clip_shape(table, kind, path, parameter)
            targets = clip_targets(shape)
    verify(table, targets, thing, path, parameter)
    if kind == "transformer":
        verify_blocks(table, targets, path, parameter)
    entries = [table[name] for name in {target.source for target in targets}]
    return Source(
        kind,
        path,
        parameter,
        shape,
        storage_dtype(table, targets),
        sum(entry.numel for entry in entries),
        sum(entry.nbytes for entry in entries),
        table,
    )


def _check_widths(transformer: Source, encoder: Source, chosen: Mapping[str, Source]) -> None:
    """Raises RequestError where the encoder's features do not fit what the transformer takes."""
    context, pooled = transformer.shape.context_width, transformer.shape.pooled_width
    width, kind = encoder.shape.width, encoder.kind
    if kind == "t5":
        if width != context:
            raise faults.incompatible(
                encoder.path, f"gives tokens of {width} features; this model takes {context}.", encoder.parameter
            )
        return
    other = chosen.get("clip_g" if kind == "clip_l" else "clip_l")
    if kind == "clip_g" and other is not None:
        # Said once, for clip_l.
        return
    tokens = width + (other.shape.width if other is not None else 0)
    vector = encoder.shape.pooled_width + (other.shape.pooled_width if other is not None else 0)
    if tokens > context or vector > pooled or (other is not None and vector != pooled):
        both = f' with "{faults.label(other.path)}"' if other is not None and other.path != encoder.path else ""
        raise faults.incompatible(
            encoder.path,
            f"gives{both} tokens of {tokens} and a pooled vector of {vector} features; this model "
            f"takes {context} and {pooled}.",
            encoder.parameter,
        )
