"""What a table of tensor names holds: which of SD3's components, or which other kind of model."""

from __future__ import annotations

from collections.abc import Iterable

from .checkpoint import Table

# Prefixes under which a component is found in files, the most telling first; "" is a file of this component alone.
_PREFIXES = {
    "transformer": ("model.diffusion_model.", "diffusion_model.", "transformer.", ""),
    "vae": ("first_stage_model.", "vae.", ""),
    "clip_l": ("text_encoders.clip_l.transformer.", "text_encoders.clip_l."),
    "clip_g": ("text_encoders.clip_g.transformer.", "text_encoders.clip_g."),
    "clip": ("",),
    "t5": ("text_encoders.t5xxl.transformer.", "text_encoders.t5xxl.", ""),
}
# Beginnings of names, after the prefix, that tell a component. All of one tuple must occur.
_SIGNS = {
    "transformer": (("joint_blocks.",), ("transformer_blocks.", "pos_embed.", "time_text_embed.")),
    "vae": (("decoder.conv_in.",), ("decoder.up.",), ("decoder.up_blocks.",)),
    "clip_l": (("text_model.",),),
    "clip_g": (("text_model.",),),
    "clip": (("text_model.",), ("embeddings.token_embedding.", "encoder.layers.")),
    "t5": (("encoder.block.",),),
}
# Add-ons to a model, told by a part of a name; looked for first, since they carry the names of the model's layers.
_ADD_ONS = (
    ("a LoRA", ("lora_up.", "lora_down.", ".lora_A.", ".lora_B.", ".lora.", "hada_w1", "lokr_w", "dora_scale")),
    ("a ControlNet", ("controlnet_blocks.", "control_model.", "controlnet_", "input_hint_block.", "pos_embed_input.")),
    ("an IP-Adapter", ("ip_adapter.", "image_proj.")),
)
# Other models, told by a part of a name, the most telling first.
_OTHERS = (
    ("an SDXL model", ("conditioner.embedders.", "add_embedding.linear_1.", "label_emb.0.0.")),
    ("a Stable Diffusion 1.5 or 2 model", ("cond_stage_model.", "input_blocks.", "down_blocks.0.attentions.")),
    ("a Flux model", ("double_blocks.", "single_transformer_blocks.")),
    ("a Stable Cascade model", ("clip_txt_mapper.", "clip_mapper.")),
    ("an AuraFlow model", ("double_layers.", "joint_transformer_blocks.")),
    ("a Qwen-Image model", ("img_mlp.",)),
    ("a Wan video model", ("patch_embedding.", "text_embedding.0.")),
    ("a PixArt model", ("caption_projection.", "y_embedder.y_proj.")),
    ("a language model", ("model.layers.0.self_attn.", "model.embed_tokens.")),
    ("a CLIP text encoder in OpenCLIP's layout", ("transformer.resblocks.",)),
    ("a CLIP vision encoder", ("vision_model.", "visual.")),
    ("an image upscaler", ("RRDB_trunk.", "conv_body.", "upsampler.")),
)
_COMPONENTS = {
    "transformer": "an SD3 transformer",
    "vae": "a VAE",
    "clip_l": "a CLIP text encoder",
    "clip_g": "a CLIP text encoder",
    "clip": "a CLIP text encoder",
    "t5": "a T5 text encoder",
}


def find_components(table: Table) -> dict[str, Table]:
    """Kind -> that component's part of the table, its prefix removed.

    Beside the kinds of `Source` there is "clip": a file of one CLIP text encoder, whose names do not say which.
    """
    return {
        kind: {name[len(prefix) :]: entry for name, entry in table.items() if name.startswith(prefix)}
        for kind, prefixes in _PREFIXES.items()
        if (prefix := next((each for each in prefixes if _has(table, each, _SIGNS[kind])), None)) is not None
    }


def describe(table: Table) -> str:
    """What a file that is not what was asked for holds instead: "a LoRA", "a VAE"..., or "no model known here"."""
    if (add_on := find_add_on(table)) is not None:
        return add_on
    components = find_components(table)
    if "transformer" in components:
        return _COMPONENTS["transformer"]
    if (other := _first(table, _OTHERS)) is not None:
        return other
    return next((_COMPONENTS[kind] for kind in components), "no model known here")


def find_add_on(table: Table) -> str | None:
    """What kind of add-on to a model the file is, or None."""
    return _first(table, _ADD_ONS)


def _has(table: Table, prefix: str, signs: Iterable[tuple[str, ...]]) -> bool:
    return any(all(any(name.startswith(prefix + part) for name in table) for part in parts) for parts in signs)


def _first(table: Table, kinds: Iterable[tuple[str, tuple[str, ...]]]) -> str | None:
    return next((kind for kind, parts in kinds if any(part in name for name in table for part in parts)), None)
