"""LoRA files that can't be used, each with one clear error before anything is sampled; and those that fit in part."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.generate import generate
from sd3_local.pipelines.lora import LoraFile
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.model import Model
from sd3_local.pipelines.monitor import Unwatched

from tests.checkpoints import TransformerSpec, VAESpec, write_checkpoint
from tests.engines import open_model, request
from tests.loras import FORMS, factors, layers, write_lora
from tests.nano import ASSETS, asset, open_nano

NANO_LAYERS = layers(128, 8, 128)


@pytest.fixture(scope="module")
def parser(comfy):
    from sd3_local.host.lora import parse_adapters

    return parse_adapters


@pytest.fixture(scope="module")
def nano() -> Model:
    return open_nano()


class Code:
    def __reduce__(self):
        return (exec, ("open('it-ran', 'w')",))


def not_loras(folder: Path) -> dict[str, tuple[Path, str]]:
    """Name -> (file, what its error says)."""
    (folder / "text.safetensors").write_text("I am a LoRA.")
    (folder / "empty.safetensors").touch()
    (folder / "code.pt").write_bytes(pickle.dumps(Code()))
    torch.save({"lora_unet_x.lora_up.weight": Code()}, folder / "zip.pt")
    whole = write_lora(folder / "cut.safetensors", FORMS["kohya"](NANO_LAYERS, factors(NANO_LAYERS)))
    whole.write_bytes(whole.read_bytes()[:-100])
    nan = {name: tensor * float("nan") for name, tensor in FORMS["peft"](NANO_LAYERS, factors(NANO_LAYERS)).items()}
    write_lora(folder / "nan.safetensors", nan)
    write_checkpoint(folder / "vae.safetensors", VAESpec())
    return {
        "text": (folder / "text.safetensors", "is not a safetensors file"),
        "empty": (folder / "empty.safetensors", "is empty"),
        "pickle": (folder / "code.pt", "pickle"),
        "code in a zip": (folder / "zip.pt", "refused before anything in it ran"),
        "cut": (folder / "cut.safetensors", "is cut short"),
        "NaN": (folder / "nan.safetensors", "NaN or infinite"),
        "vae": (folder / "vae.safetensors", "is not a LoRA: it holds a VAE"),
        "model": (ASSETS / "sd3-nano.safetensors", "is not a LoRA: it holds an SD3 transformer"),
        "controlnet": (asset("nano-edges"), "is not a LoRA: it holds a ControlNet"),
        "missing": (folder / "nothing.safetensors", "is not there"),
    }


def test_what_is_no_lora_is_refused_when_it_is_opened(parser, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, (path, told) in not_loras(tmp_path).items():
        with pytest.raises(RequestError) as refusal:
            LoraFile(path, parser)
        assert len(refusal.value.faults) == 1, name
        assert told in str(refusal.value), name
        assert path.name in str(refusal.value), name
    assert not (tmp_path / "it-ran").exists()


def refused(model: Model, file: LoraFile) -> list[tuple[str, str, str]]:
    with pytest.raises(RequestError) as refusal:
        asked = request(lora=[{"model": "good", "weight": 0.0}, {"model": "bad"}])
        good = LoraFile(asset("nano-stripes"), file._parser)
        generate(asked, model, Unwatched(), Materials(loras={"good": good, "bad": file}))
    return [(fault.code, fault.parameter, fault.message) for fault in refusal.value.faults]


def test_a_lora_for_another_width_names_both(parser, nano: Model, tmp_path: Path) -> None:
    other = layers(192, 3, 4096)
    for form in ("peft", "kohya", "onetrainer-omi", "lycoris-loha", "lycoris-lokr", "full-difference"):
        file = LoraFile(write_lora(tmp_path / f"{form}.safetensors", FORMS[form](other, factors(other))), parser)
        faults = refused(nano, file)
        assert [fault[:2] for fault in faults] == [("incompatibleLora", "lora[1].model")], form
        assert "is made for another model than SD3 (8 blocks, width 128)" in faults[0][2], form
        assert "192" in faults[0][2] and "128" in faults[0][2], form


def test_a_lora_for_another_kind_of_model_is_told_from_one_that_fits(parser, nano: Model, tmp_path: Path) -> None:
    pair = {"lora_up.weight": torch.ones(64, 2), "lora_down.weight": torch.ones(2, 64)}
    sdxl = {
        # Its text encoder has names, and here even sizes, that this model's have too.
        **{f"lora_te1_text_model_encoder_layers_0_self_attn_q_proj.{end}": value for end, value in pair.items()},
        **{f"lora_unet_input_blocks_4_1_proj_in.{end}": value for end, value in pair.items()},
    }
    flux = {f"transformer.single_transformer_blocks.0.attn.to_q.{end}": value for end, value in pair.items()}
    for name, tensors in {"sdxl": sdxl, "flux": flux}.items():
        file = LoraFile(write_lora(tmp_path / f"{name}.safetensors", tensors), parser)
        faults = refused(nano, file)
        assert [fault[:2] for fault in faults] == [("incompatibleLora", "lora[1].model")], name
        assert "It is made for another kind of model" in faults[0][2], name


def test_what_fits_in_part_says_how_much(parser, nano: Model, tmp_path: Path) -> None:
    tensors = FORMS["peft"](NANO_LAYERS, factors(NANO_LAYERS, scale=0.01))
    tensors["transformer.transformer_blocks.99.attn.to_q.lora_A.weight"] = torch.ones(4, 128)
    tensors["transformer.transformer_blocks.99.attn.to_q.lora_B.weight"] = torch.ones(128, 4)
    file = LoraFile(write_lora(tmp_path / "part.safetensors", tensors), parser)
    asked = request(lora=[{"model": "part"}], steps=1)
    result = generate(asked, nano, Unwatched(), Materials(loras={"part": file}))
    account = result.report.accounts[0]
    assert f"{len(tensors) - 2} of {len(tensors)} tensors matched" in account.lines[0]
    assert "transformer_blocks.99.attn.to_q" in account.lines[1]
    assert len(account.data["unmatched"]) == 2


def test_published_sizes_are_known_by_their_names(parser, tmp_path: Path) -> None:
    """A LoRA of SD3.5 Large's width on a model of SD3 Medium's, from headers alone."""
    medium = TransformerSpec(blocks=2, width=1536, context=4096, pooled=2048)
    path = write_checkpoint(tmp_path / "medium.safetensors", medium)
    large = layers(2432, 2, 4096)[:1]
    file = LoraFile(write_lora(tmp_path / "large.safetensors", FORMS["kohya"](large, factors(large))), parser)
    faults = list(file.faults(open_model(path).plan, "lora[0].model"))
    assert "is 7296 x 2432, the model's is 4608 x 1536" in faults[0].message
