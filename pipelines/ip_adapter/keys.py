"""The published layouts of SD3 IP-Adapters, and the configuration that the shapes of their tensors imply.

There are two names for each tensor of the resampler: InstantX's (SD3.5-Large-IP-Adapter, as a pickle of two dicts or
flat in safetensors), and those of diffusers' `IPAdapterTimeImageProjection`, which converted files have. They are
mapped as diffusers' loaders/transformer_sd3.py maps them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..loading import faults
from ..loading.checkpoint import Table
from ..loading.identify import describe, find_add_on
from ..loading.layout import Target, count_blocks, linear, require, vector, verify
from ..loading.transformer_keys import HEAD

THING = "an SD3 IP-Adapter"
PROJECTION, BLOCKS = "image_proj.", "ip_adapter."

# InstantX's names of what a layer of the resampler has, by diffusers'.
_ORIGINAL = {
    "ln0": "0.norm1",
    "ln1": "0.norm2",
    "attn.to_q": "0.to_q",
    "attn.to_kv": "0.to_kv",
    "attn.to_out.0": "0.to_out",
    "adaln_norm": "1.0",
    "ff.net.0.proj": "1.1",
    "ff.net.2": "1.3",
    "adaln_proj": "2.1",
}
# What adapters without SD3's own layers were made for, by the text features that their keys are made from.
_OTHERS = {768: "Stable Diffusion 1.5", 1024: "Stable Diffusion 2", 2048: "SDXL", 4096: "Flux"}


@dataclass(frozen=True)
class IPAdapterShape:
    """The configuration of an SD3 IP-Adapter.

    `blocks` and `width` are those of the transformer that it was made for, `embed_width` the features of the image
    encoder's tokens. The resampler of `layers` layers and `hidden` features makes `queries` tokens of each picture.
    """

    blocks: int
    width: int
    embed_width: int
    hidden: int
    queries: int
    layers: int
    heads: int
    timestep_features: int
    feed_ratio: int


def identify(table: Table, path: Path, parameter: str) -> IPAdapterShape:
    """The configuration that the tensors imply. Raises RequestError where the file is no IP-Adapter of SD3, where
    something of it is missing, and where its parts do not fit together.
    """
    if not any(name.endswith(".norm_ip.linear.weight") for name in table):
        other = _other(table)
        if other is not None:
            raise faults.unsupported(
                path, f"is an IP-Adapter for {other}; this pack runs those for SD3 and SD3.5.", parameter
            )
        if find_add_on(table) != "an IP-Adapter":
            raise faults.unsupported(path, f"is not an IP-Adapter: it holds {describe(table)}.", parameter)
    shape = _shape(table, path, parameter)
    targets = ip_adapter_targets(shape, is_original(table))
    verify(table, targets, THING, path, parameter)
    known = {target.source for target in targets}
    extra = [name for name in table if name.startswith((PROJECTION, BLOCKS)) and name not in known]
    if extra:
        told = f'has {len(extra)} tensors that no known IP-Adapter for SD3 has, the first is "{extra[0]}".'
        raise faults.unsupported(path, told, parameter)
    return shape


def is_original(table: Table) -> bool:
    """Whether the resampler has InstantX's names and not diffusers'."""
    return f"{PROJECTION}layers.0.0.to_q.weight" in table


def ip_adapter_targets(shape: IPAdapterShape, original: bool) -> list[Target]:
    """Every parameter of the adapter's module, `image_proj` and `ip_adapter` in one, with its place in a file."""
    width, hidden = shape.width, shape.hidden
    latents = f"{PROJECTION}latents"
    targets = [
        Target(latents, latents, (1, shape.queries, hidden)),
        *_same(linear, f"{PROJECTION}proj_in", hidden, shape.embed_width),
        *_same(linear, f"{PROJECTION}proj_out", width, hidden),
        *_same(vector, f"{PROJECTION}norm_out", width),
        *_same(linear, f"{PROJECTION}time_embedding.linear_1", hidden, shape.timestep_features),
        *_same(linear, f"{PROJECTION}time_embedding.linear_2", hidden, hidden),
    ]
    for number in range(shape.layers):
        targets += _layer(f"{PROJECTION}layers.{number}", shape, original)
    for number in range(shape.blocks):
        block = f"{BLOCKS}{number}"
        targets += _same(linear, f"{block}.norm_ip.linear", 2 * width, hidden)
        targets += _same(linear, f"{block}.to_k_ip", width, width, False)
        targets += _same(linear, f"{block}.to_v_ip", width, width, False)
        for norm in ("norm_q", "norm_k", "norm_ip_k"):
            targets += _same(vector, f"{block}.{norm}", HEAD, False)
    return targets


def _layer(layer: str, shape: IPAdapterShape, original: bool) -> list[Target]:
    """A layer of the resampler: attention to the picture, then a feed-forward layer, both told the timestep."""
    hidden, inner = shape.hidden, shape.heads * HEAD

    def part(make: Callable[..., list[Target]], name: str, *sizes: int | bool) -> list[Target]:
        return make(f"{layer}.{name}", f"{layer}.{_ORIGINAL[name] if original else name}", *sizes)

    return [
        *part(vector, "ln0", hidden),
        *part(vector, "ln1", hidden),
        *part(linear, "attn.to_q", inner, hidden, False),
        *part(linear, "attn.to_kv", 2 * inner, hidden, False),
        *part(linear, "attn.to_out.0", hidden, inner, False),
        *part(vector, "adaln_norm", hidden),
        *part(linear, "ff.net.0.proj", shape.feed_ratio * hidden, hidden, False),
        *part(linear, "ff.net.2", hidden, shape.feed_ratio * hidden, False),
        *part(linear, "adaln_proj", 4 * hidden, hidden),
    ]


def _same(make: Callable[..., list[Target]], name: str, *sizes: int | bool) -> list[Target]:
    """Targets whose name in the file is their name in the module."""
    return make(name, name, *sizes)


def _shape(table: Table, path: Path, parameter: str) -> IPAdapterShape:
    original = is_original(table)
    query, feed = (
        f"{PROJECTION}layers.0.{_ORIGINAL[name] if original else name}.weight"
        for name in ("attn.to_q", "ff.net.0.proj")
    )
    names = (
        f"{PROJECTION}latents",
        f"{PROJECTION}proj_in.weight",
        f"{PROJECTION}proj_out.weight",
        f"{PROJECTION}time_embedding.linear_1.weight",
        query,
        feed,
        f"{BLOCKS}0.norm_ip.linear.weight",
    )
    require(table, names, THING, path, parameter)
    latents, *matrices = (table[name].shape for name in names)
    fits = len(latents) == 3 and all(len(matrix) == 2 and 0 not in matrix for matrix in matrices)
    if fits:
        (hidden, embed_width), (width, _), (_, timestep_features), (inner, _), (feeding, _), _ = matrices
        fits = not (inner % HEAD or feeding % hidden or width % HEAD)
    if not fits:
        shapes = ", ".join(str(list(table[name].shape)) for name in names)
        told = f"does not fit together: as {THING} its first layers have the shapes {shapes}."
        raise faults.invalid(path, told, parameter)
    return IPAdapterShape(
        blocks=count_blocks(table, BLOCKS),
        width=width,
        embed_width=embed_width,
        hidden=hidden,
        queries=latents[1],
        layers=count_blocks(table, f"{PROJECTION}layers."),
        heads=inner // HEAD,
        timestep_features=timestep_features,
        feed_ratio=feeding // hidden,
    )


def _other(table: Table) -> str | None:
    """What an IP-Adapter that is none for SD3 was made for, where its names or shapes tell."""
    if any("ip_adapter_double_stream_" in name or name.startswith("ip_adapter_proj_model.") for name in table):
        return "Flux"
    keys = (
        entry.shape for name, entry in table.items() if name.startswith(BLOCKS) and name.endswith(".to_k_ip.weight")
    )
    return next((_OTHERS[shape[1]] for shape in keys if len(shape) == 2 and shape[1] in _OTHERS), None)
