"""Model files in the published layouts, at any size, with random weights.

Names and shapes are written down here a second time, from the published files and not from the loader's tables: a
mistake in those must not repeat itself in the files that test them. `write_checkpoint` streams, so that a full-size
SD3 Medium takes no memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

TYPE_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.uint8: "U8",
}
FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class TransformerSpec:
    """Stability's MMDiT. ComfyUI's loader takes only those with width = 64 x blocks, context 4096 and pooled 2048."""

    blocks: int = 2
    width: int = 128
    context: int = 128
    pooled: int = 128
    table: int = 32
    rms: bool = False
    dual: tuple[int, ...] = ()

    def shapes(self) -> Shapes:
        width = self.width
        shapes: Shapes = {
            "pos_embed": (1, self.table**2, width),
            "x_embedder.proj.weight": (width, 16, 2, 2),
            "x_embedder.proj.bias": (width,),
            **_linear("t_embedder.mlp.0", width, 256),
            **_linear("t_embedder.mlp.2", width, width),
            **_linear("y_embedder.mlp.0", width, self.pooled),
            **_linear("y_embedder.mlp.2", width, width),
            **_linear("context_embedder", width, self.context),
            **_linear("final_layer.linear", 64, width),
            **_linear("final_layer.adaLN_modulation.1", 2 * width, width),
        }
        for block in range(self.blocks):
            for side in ("x_block", "context_block"):
                name = f"joint_blocks.{block}.{side}"
                last = side == "context_block" and block == self.blocks - 1
                dual = side == "x_block" and block in self.dual
                shapes |= _linear(f"{name}.adaLN_modulation.1", (2 if last else 9 if dual else 6) * width, width)
                for attention in ("attn", "attn2") if dual else ("attn",):
                    shapes |= _linear(f"{name}.{attention}.qkv", 3 * width, width)
                    if not last:
                        shapes |= _linear(f"{name}.{attention}.proj", width, width)
                    if self.rms:
                        shapes |= {f"{name}.{attention}.ln_{each}.weight": (64,) for each in "qk"}
                if not last:
                    shapes |= _linear(f"{name}.mlp.fc1", 4 * width, width)
                    shapes |= _linear(f"{name}.mlp.fc2", width, 4 * width)
        return shapes


@dataclass(frozen=True)
class VAESpec:
    """The latent-diffusion VAE of SD3. The published one has channels (128, 256, 512, 512) and two blocks a level."""

    channels: tuple[int, ...] = (16, 32, 32, 32)
    blocks: int = 1
    latent: int = 16

    def shapes(self) -> Shapes:
        shapes: Shapes = {}
        top, levels = self.channels[-1], len(self.channels)
        for half, entry, out, end in (
            ("encoder", (self.channels[0], 3), 2 * self.latent, top),
            ("decoder", (top, self.latent), 3, self.channels[0]),
        ):
            shapes |= _conv(f"{half}.conv_in", *entry)
            shapes |= _resnet(f"{half}.mid.block_1", top, top) | _resnet(f"{half}.mid.block_2", top, top)
            shapes |= _norm(f"{half}.mid.attn_1.norm", top)
            for name in ("q", "k", "v", "proj_out"):
                shapes |= _conv(f"{half}.mid.attn_1.{name}", top, top, 1)
            shapes |= _norm(f"{half}.norm_out", end) | _conv(f"{half}.conv_out", out, end)
        width = self.channels[0]
        for level, wide in enumerate(self.channels):
            for block in range(self.blocks):
                shapes |= _resnet(f"encoder.down.{level}.block.{block}", width, wide)
                width = wide
            if level < levels - 1:
                shapes |= _conv(f"encoder.down.{level}.downsample.conv", wide, wide)
        for level in reversed(range(levels)):
            wide = self.channels[level]
            for block in range(self.blocks + 1):
                shapes |= _resnet(f"decoder.up.{level}.block.{block}", width, wide)
                width = wide
            if level:
                shapes |= _conv(f"decoder.up.{level}.upsample.conv", wide, wide)
        return shapes


@dataclass(frozen=True)
class ClipSpec:
    """A CLIP text encoder; `projection` is None in published clip_l files."""

    width: int = 64
    layers: int = 3
    projection: int | None = None
    vocabulary: int = 49408
    positions: int = 77

    def shapes(self) -> Shapes:
        width = self.width
        shapes: Shapes = {
            "text_model.embeddings.token_embedding.weight": (self.vocabulary, width),
            "text_model.embeddings.position_embedding.weight": (self.positions, width),
            **_norm("text_model.final_layer_norm", width),
        }
        for layer in range(self.layers):
            name = f"text_model.encoder.layers.{layer}"
            shapes |= _norm(f"{name}.layer_norm1", width) | _norm(f"{name}.layer_norm2", width)
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                shapes |= _linear(f"{name}.self_attn.{part}", width, width)
            shapes |= _linear(f"{name}.mlp.fc1", 4 * width, width) | _linear(f"{name}.mlp.fc2", width, 4 * width)
        if self.projection is not None:
            shapes["text_projection.weight"] = (self.projection, width)
        return shapes


@dataclass(frozen=True)
class T5Spec:
    """A T5 v1.1 encoder. The published t5xxl has width 4096, 24 layers, 64 heads of 64, 10240 hidden features."""

    width: int = 128
    layers: int = 2
    heads: int = 4
    head_width: int = 16
    hidden: int = 160
    vocabulary: int = 32128

    def shapes(self) -> Shapes:
        inner = self.heads * self.head_width
        shapes: Shapes = {
            "shared.weight": (self.vocabulary, self.width),
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (32, self.heads),
            "encoder.final_layer_norm.weight": (self.width,),
        }
        for layer in range(self.layers):
            name = f"encoder.block.{layer}.layer"
            shapes |= {f"{name}.0.SelfAttention.{each}.weight": (inner, self.width) for each in "qkv"}
            shapes |= {
                f"{name}.0.SelfAttention.o.weight": (self.width, inner),
                f"{name}.0.layer_norm.weight": (self.width,),
                f"{name}.1.DenseReluDense.wi_0.weight": (self.hidden, self.width),
                f"{name}.1.DenseReluDense.wi_1.weight": (self.hidden, self.width),
                f"{name}.1.DenseReluDense.wo.weight": (self.width, self.hidden),
                f"{name}.1.layer_norm.weight": (self.width,),
            }
        return shapes


@dataclass(frozen=True)
class CheckpointSpec:
    """A file of any of the components, with the prefixes of the published all-in-one files."""

    transformer: TransformerSpec | None = None
    vae: VAESpec | None = None
    clip_l: ClipSpec | None = None
    clip_g: ClipSpec | None = None
    t5: T5Spec | None = None

    def shapes(self) -> Shapes:
        prefixes = {
            "transformer": "model.diffusion_model.",
            "vae": "first_stage_model.",
            "clip_l": "text_encoders.clip_l.transformer.",
            "clip_g": "text_encoders.clip_g.transformer.",
            "t5": "text_encoders.t5xxl.transformer.",
        }
        parts = ((prefix, getattr(self, kind)) for kind, prefix in prefixes.items())
        return {
            prefix + name: shape for prefix, part in parts if part is not None for name, shape in part.shapes().items()
        }


Spec = TransformerSpec | VAESpec | ClipSpec | T5Spec | CheckpointSpec

SD3_MEDIUM = TransformerSpec(blocks=24, width=1536, context=4096, pooled=2048, table=192)
SD35_MEDIUM = TransformerSpec(24, 1536, 4096, 2048, 384, rms=True, dual=tuple(range(13)))
SD35_LARGE = TransformerSpec(38, 2432, 4096, 2048, 192, rms=True)
SD3_VAE = VAESpec((128, 256, 512, 512), blocks=2)
CLIP_L = ClipSpec(768, 12)
CLIP_G = ClipSpec(1280, 32, 1280)
T5_XXL = T5Spec(4096, 24, 64, 64, 10240)
SD3_MEDIUM_FILE = CheckpointSpec(SD3_MEDIUM, SD3_VAE)

TINY_CLIP_L = ClipSpec(64, vocabulary=512)
TINY_CLIP_G = ClipSpec(64, projection=64, vocabulary=512)
TINY_T5 = T5Spec(vocabulary=384)
TINY = CheckpointSpec(TransformerSpec(), VAESpec(), TINY_CLIP_L, TINY_CLIP_G, TINY_T5)


def state_dict(spec: Spec, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, torch.Tensor]:
    """The tensors of `spec` in memory, as a file of `write_checkpoint` has them."""
    return {name: _cast(value, dtype) for name, value in tensors(spec, seed)}


def tensors(spec: Spec, seed: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and fp32 value of each tensor; signals keep their size through the layers, and every part matters."""
    for index, (name, shape) in enumerate(spec.shapes().items()):
        yield name, _random(name, shape, seed * 100_003 + index)


def write_checkpoint(path: Path, spec: Spec, dtype: torch.dtype = torch.float16, seed: int = 0) -> Path:
    """Writes a safetensors file of `spec`, one tensor at a time."""
    header, _ = _header(spec.shapes(), dtype)
    with path.open("wb") as file:
        file.write(_encoded(header))
        for _, value in tensors(spec, seed):
            file.write(_bytes(_cast(value, dtype)))
    return path


def write_tensors(path: Path, content: dict[str, torch.Tensor], pad: int = 8) -> Path:
    """Writes any tensors as a safetensors file. `pad` 1 leaves the data where the header ends, as old writers did."""
    header, offset = {}, 0
    for name, value in content.items():
        size = value.numel() * value.dtype.itemsize
        header[name] = {
            "dtype": TYPE_NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    path.write_bytes(_encoded(header, pad) + b"".join(_bytes(value) for value in content.values()))
    return path


def write_hollow(path: Path, shapes: Shapes, dtype: torch.dtype = torch.float16) -> Path:
    """Writes a file of true size whose data are a hole: its header is as a published file's, and it takes no room."""
    header, size = _header(shapes, dtype)
    with path.open("wb") as file:
        file.write(_encoded(header))
        file.truncate(file.tell() + size)
    return path


def scaled_fp8(
    content: dict[str, torch.Tensor], form: str, dtype: torch.dtype = torch.float8_e4m3fn
) -> dict[str, torch.Tensor]:
    """Linear weights as scaled fp8 in one of the published forms: "scaled_fp8" or "comfy_quant"; all else in fp16."""
    result = {"scaled_fp8": torch.empty(2, dtype=dtype)[:0]} if form == "scaled_fp8" else {}
    for name, value in content.items():
        layer = name.removesuffix(".weight")
        if value.ndim != 2 or "embed" in name or name.startswith("shared") or layer == name:
            result[name] = value.half()
            continue
        scale = value.float().abs().max() / torch.finfo(dtype).max
        result[name] = (value.float() / scale).to(dtype)
        if form == "scaled_fp8":
            result[f"{layer}.scale_weight"] = scale.reshape(())
            result[f"{layer}.scale_input"] = torch.tensor(1.0)
        else:
            result[f"{layer}.weight_scale"] = scale.reshape(())
            result[f"{layer}.comfy_quant"] = torch.tensor(
                list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8
            )
    return result


def dequantised(content: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What `scaled_fp8` content means, in fp32, without the scales."""
    result = {}
    for name, value in content.items():
        layer = name.removesuffix(".weight")
        scale = content.get(f"{layer}.scale_weight", content.get(f"{layer}.weight_scale")) if layer != name else None
        if not name.endswith(("scale_weight", "scale_input", "weight_scale", "comfy_quant", "scaled_fp8")):
            result[name] = value.float() if scale is None else value.float() * scale
    return result


# Tensors beyond this size repeat one block of random numbers: making new ones would take longer than writing the file.
_BLOCK = 1 << 22


def _random(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    count = math.prod(shape)
    value = torch.randn(min(count, _BLOCK), generator=generator)
    if count > _BLOCK:
        value = value.repeat(-(-count // _BLOCK))[:count]
    value = value.view(shape)
    if name.endswith("bias") and "relative" not in name:
        return value * 0.1
    if len(shape) == 1:
        return 1 + value * 0.1
    if "embedding" in name or name.endswith(("pos_embed", "shared.weight", "relative_attention_bias.weight")):
        return value * 0.5
    return value / math.sqrt(math.prod(shape[1:]))


def _cast(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return value.to(dtype) if dtype not in FP8 else value.clamp(-448, 448).to(dtype)


def _header(shapes: Shapes, dtype: torch.dtype) -> tuple[dict[str, object], int]:
    """The header of a file of these tensors, and how many bytes they take."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": TYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    return header, offset


def _encoded(header: dict[str, object], pad: int = 8) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % pad)
    return len(text).to_bytes(8, "little") + text


def _bytes(value: torch.Tensor) -> bytes:
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _linear(name: str, rows: int, columns: int) -> Shapes:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def _conv(name: str, rows: int, columns: int, size: int = 3) -> Shapes:
    return {f"{name}.weight": (rows, columns, size, size), f"{name}.bias": (rows,)}


def _resnet(name: str, inputs: int, outputs: int) -> Shapes:
    shapes = _norm(f"{name}.norm1", inputs) | _conv(f"{name}.conv1", outputs, inputs)
    shapes |= _norm(f"{name}.norm2", outputs) | _conv(f"{name}.conv2", outputs, outputs)
    return shapes | (_conv(f"{name}.nin_shortcut", outputs, inputs, 1) if inputs != outputs else {})
