"""Conditioning equal to that of ComfyUI's own SD3 text encoders, and of diffusers' pipeline where the two agree."""

from __future__ import annotations

import itertools
import json
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sd3_local.pipelines.text import TextEncoders, TokenBatch, TokenizerFiles, Tokenizers, weighted_segments
from torch import nn

# T5 is as wide as the published one, since ComfyUI pads its CLIPs to 4096 whatever their own width; the rest is tiny.
CLIP_L = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 6}
CLIP_G = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 7}
T5 = {"d_model": 4096, "d_ff": 24, "d_kv": 8, "num_heads": 2, "num_layers": 3}
NAMES = ("clip_l", "clip_g", "t5")

PROMPTS = {
    "empty": "",
    "short": "a photo of a red cat on a blue chair",
    "150 words": " ".join(f"{color} {thing}," for color in ("red", "teal", "dark blue") for thing in ["house"] * 50),
    "weighted": r"a (red:1.3) cat, ((very) fluffy), (dull:0.5) and (gone:0) \(not weighted\), (a:-0.4)",
    "weighted over chunks": "a long (winding road:1.2) " * 30,
    "short segments over chunks": "(cat:1.1) (dog) " * 40,
    "seven at a chunk's end": "cat " * 70 + "(one two three four five six seven:1.2)",
    "eight at a chunk's end": "cat " * 70 + "(one two three four five six seven eight:1.2)",
    "unicode": "Ein Mädchen 漢字 🐈‍⬛ ﬁ ½ 𝔘 naïve «»",
    "newlines": "a cat\n\n  and\ta dog \r\n",
    "73 words": "cat " * 73,
    "74 words": "cat " * 74,
    "75 words": "cat " * 75,
    "76 words": "cat " * 76,
    "77 words": "cat " * 77,
    "unpaired": "a) (b (c:1.2 d) ((e)",
    "special tokens": "a <|endoftext|> cat (<|startoftext|>:1.4) </s> <pad>",
    "only spaces": "   ",
}


@pytest.fixture(scope="module")
def files(comfy: ModuleType) -> TokenizerFiles:
    (folder,) = map(Path, comfy.__path__)
    return TokenizerFiles(clip=folder / "sd1_tokenizer", t5=folder / "text_encoders" / "t5_tokenizer")


@pytest.fixture(scope="module")
def tokenizers(files: TokenizerFiles) -> Tokenizers:
    return Tokenizers(files)


@pytest.fixture(scope="module")
def comfy_tokenizer(comfy: ModuleType) -> Any:
    from comfy.text_encoders.sd3_clip import SD3Tokenizer

    return SD3Tokenizer()


@pytest.fixture(scope="module")
def modules(comfy: ModuleType) -> dict[str, nn.Module]:
    """Stock transformers encoders with random weights large enough for every layer to matter."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    clip_common = {"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407}
    (folder,) = map(Path, comfy.__path__)
    t5 = json.loads((folder / "text_encoders" / "t5_config_xxl.json").read_text())
    torch.manual_seed(0)
    clip_l = CLIPTextModel(CLIPTextConfig(**clip_common, **CLIP_L, hidden_act="quick_gelu", projection_dim=16))
    clip_g = CLIPTextModelWithProjection(CLIPTextConfig(**clip_common, **CLIP_G, hidden_act="gelu", projection_dim=32))
    with torch.device("meta"):
        t5 = T5EncoderModel(T5Config(vocab_size=t5["vocab_size"], feed_forward_proj="gated-gelu", **T5))
    for clip in (clip_l, clip_g):
        for parameter in clip.parameters():
            nn.init.normal_(parameter, std=0.3)
    weights = {name: torch.randn(tensor.shape) * 0.2 for name, tensor in t5.state_dict().items() if tensor.ndim == 1}
    weights |= {
        name: torch.randn(tensor.shape) / tensor.shape[1] ** 0.5
        for name, tensor in t5.state_dict().items()
        if tensor.ndim == 2 and "shared" not in name and "embed_tokens" not in name
    }
    # A table of half a gigabyte for the price of a row: row i starts at the i-th number of one long vector.
    table = torch.randn(t5.config.vocab_size + t5.config.d_model - 1).unfold(0, t5.config.d_model, 1)
    weights |= {name: table for name in t5.state_dict() if "shared" in name or "embed_tokens" in name}
    t5.load_state_dict(weights, assign=True)
    return {"clip_l": clip_l.eval(), "clip_g": clip_g.eval(), "t5": t5.eval()}


def comfy_encoders(modules: dict[str, nn.Module], names: tuple[str, ...]) -> Any:
    """ComfyUI's SD3 text encoder of these parts, with the same weights."""
    from comfy.text_encoders.sd3_clip import SD3ClipModel

    options = {"clip_l_model_config": CLIP_L, "clip_g_model_config": CLIP_G, "t5xxl_model_config": T5}
    model = SD3ClipModel(**{name: name in names for name in NAMES}, dtype=torch.float32, model_options=options)
    for name, own in (("clip_l", model.clip_l), ("clip_g", model.clip_g), ("t5", model.t5xxl)):
        if own is None:
            continue
        if name == "t5":
            weights = {key: value for key, value in modules[name].state_dict().items() if "embed_tokens" not in key}
        else:
            weights = {f"text_model.{key}": value for key, value in text_model(modules[name]).state_dict().items()}
        if name == "clip_g":
            weights["text_projection.weight"] = modules[name].text_projection.weight
        missing, unexpected = own.transformer.load_state_dict(weights, strict=False, assign=True)
        assert not unexpected and missing == (["text_projection.weight"] if name == "clip_l" else [])
    return model.eval()


def text_model(clip: nn.Module) -> nn.Module:
    """The part without the projection, which newer versions of transformers do not wrap in CLIPTextModel."""
    return getattr(clip, "text_model", clip)


def ours(tokenizers: Tokenizers, modules: dict[str, nn.Module], names: tuple[str, ...] = NAMES) -> TextEncoders:
    # Where a CLIP is missing, ComfyUI leaves room for the published width of it.
    pooled_width = (16 if "clip_l" in names else 768) + (32 if "clip_g" in names else 1280)
    parts = {name: modules[name] for name in names}
    return TextEncoders(tokenizers, context_width=4096, pooled_width=pooled_width, **parts)


@torch.no_grad()
def assert_equal(subject: TextEncoders, comfy_tokenizer: Any, model: Any, prompt: str) -> None:
    context, pooled, _ = model.encode_token_weights(comfy_tokenizer.tokenize_with_weights(prompt))
    (found,) = subject.encode([prompt])
    assert found.context.shape == context.shape and found.pooled.shape == pooled.shape
    assert context.std() > 0.1 or not model.dtypes, "too small to compare"
    torch.testing.assert_close(found.context, context, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.pooled, pooled, rtol=1e-5, atol=1e-5)


# Tokens


def tokens_of(batch: TokenBatch) -> list[list[tuple[int, float]]]:
    return [list(zip(*row, strict=True)) for row in zip(batch.ids.tolist(), batch.weights.tolist(), strict=True)]


def assert_same_tokens(tokenizers: Tokenizers, comfy_tokenizer: Any, prompt: str) -> None:
    theirs = comfy_tokenizer.tokenize_with_weights(prompt)
    for key, batch in (
        ("l", tokenizers.clip_l(prompt)),
        ("g", tokenizers.clip_g(prompt)),
        ("t5xxl", tokenizers.t5(prompt)),
    ):
        expected = [[(token, torch.tensor(weight).item()) for token, weight in chunk] for chunk in theirs[key]]
        assert tokens_of(batch) == expected


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_tokens(tokenizers: Tokenizers, comfy_tokenizer: Any, prompt: str) -> None:
    assert_same_tokens(tokenizers, comfy_tokenizer, prompt)


# ComfyUI uses the characters 0 to 2 to mark escapes, cannot encode surrogates, and takes nan and inf for weights.
ANY_TEXT = st.text(alphabet=st.characters(exclude_characters="\0\1\2", exclude_categories=["Cs"]), max_size=400)
NOTATION = st.text(alphabet=st.sampled_from(list("ab(((()))):::.5012\\ ,\n")), max_size=120)


@settings(max_examples=300, deadline=None)
@given(prompt=ANY_TEXT | NOTATION)
def test_tokens_of_any_text(tokenizers: Tokenizers, comfy_tokenizer: Any, prompt: str) -> None:
    assert_same_tokens(tokenizers, comfy_tokenizer, prompt)


@settings(max_examples=1000, deadline=None)
@given(prompt=NOTATION)
def test_weights_of_any_notation(comfy: ModuleType, prompt: str) -> None:
    from comfy.sd1_clip import escape_important, token_weights, unescape_important

    theirs = [(unescape_important(text), weight) for text, weight in token_weights(escape_important(prompt), 1.0)]
    assert weighted_segments(prompt) == theirs


def test_surrogates_are_joined_or_replaced(tokenizers: Tokenizers) -> None:
    assert torch.equal(tokenizers.clip_l("a \ud83d\ude00").ids, tokenizers.clip_l("a 😀").ids)
    assert torch.equal(tokenizers.t5("a \ud83d cat").ids, tokenizers.t5("a \ufffd cat").ids)


def test_tokenizers_load_without_a_network(files: TokenizerFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    fresh = Tokenizers(files)
    assert fresh.clip_l("cat").ids[0, :3].tolist() == [49406, 2368, 49407]
    assert fresh.t5("cat").ids[0, :2].tolist() == [1712, 1]


def test_a_missing_folder_is_not_taken_for_a_repository(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        Tokenizers(TokenizerFiles(clip=tmp_path / "gone", t5=tmp_path / "gone")).clip_l("cat")


# Conditioning


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_conditioning(comfy_tokenizer: Any, tokenizers: Tokenizers, modules: dict[str, nn.Module], prompt: str) -> None:
    assert_equal(ours(tokenizers, modules), comfy_tokenizer, comfy_encoders(modules, NAMES), prompt)


SUBSETS = [names for count in range(4) for names in itertools.combinations(NAMES, count)]


@pytest.mark.parametrize("names", SUBSETS, ids=lambda names: "+".join(names) or "none")
def test_subsets_of_the_encoders(
    comfy_tokenizer: Any, tokenizers: Tokenizers, modules: dict[str, nn.Module], names: tuple[str, ...]
) -> None:
    subject, model = ours(tokenizers, modules, names), comfy_encoders(modules, names)
    for name in ("empty", "weighted over chunks"):
        assert_equal(subject, comfy_tokenizer, model, PROMPTS[name])


@pytest.mark.parametrize("clip_skip", range(5))
@pytest.mark.parametrize("name", ["short", "weighted over chunks"])
@torch.no_grad()
def test_clip_skip(
    comfy_tokenizer: Any, tokenizers: Tokenizers, modules: dict[str, nn.Module], clip_skip: int, name: str
) -> None:
    model = comfy_encoders(modules, NAMES)
    # On the CLIPs alone: ComfyUI's own CLIP Set Last Layer would also move T5, which clipSkip does not.
    for clip in (model.clip_l, model.clip_g):
        clip.set_clip_options({"layer": -(clip_skip + 2)})
    context, pooled, _ = model.encode_token_weights(comfy_tokenizer.tokenize_with_weights(PROMPTS[name]))
    (found,) = ours(tokenizers, modules).encode([PROMPTS[name]], clip_skip)
    torch.testing.assert_close(found.context, context, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.pooled, pooled, rtol=1e-5, atol=1e-5)


# diffusers


@pytest.fixture(scope="module")
def pipeline(files: TokenizerFiles, modules: dict[str, nn.Module]) -> Any:
    """The stock pipeline around the same encoders; its loader, too, gives CLIP-L an identity for a projection."""
    from diffusers import StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5TokenizerFast

    clip_l = CLIPTextModelWithProjection(modules["clip_l"].config)
    clip_l.text_model = text_model(modules["clip_l"])
    nn.init.eye_(clip_l.text_projection.weight)
    return StableDiffusion3Pipeline(
        transformer=None,
        scheduler=None,
        vae=None,
        text_encoder=clip_l.eval(),
        tokenizer=CLIPTokenizer.from_pretrained(files.clip, model_max_length=77),
        text_encoder_2=modules["clip_g"],
        tokenizer_2=CLIPTokenizer.from_pretrained(files.clip, model_max_length=77, pad_token="!"),
        text_encoder_3=modules["t5"],
        tokenizer_3=T5TokenizerFast.from_pretrained(files.t5),
    )


@pytest.mark.parametrize("clip_skip", [0, 2])
@pytest.mark.parametrize("name", ["empty", "short", "unicode", "newlines", "74 words"])
@torch.no_grad()
def test_diffusers(
    pipeline: Any, tokenizers: Tokenizers, modules: dict[str, nn.Module], clip_skip: int, name: str
) -> None:
    prompt = PROMPTS[name]
    context, _, pooled, _ = pipeline.encode_prompt(
        prompt,
        None,
        None,
        device=torch.device("cpu"),
        do_classifier_free_guidance=False,
        clip_skip=clip_skip,
        max_sequence_length=77,
    )
    (found,) = ours(tokenizers, modules).encode([prompt], clip_skip)
    torch.testing.assert_close(found.context, context, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.pooled, pooled, rtol=1e-5, atol=1e-5)
