"""Detectors of faces from files: what is read, what is refused, and that nothing in a file is ever run."""

from __future__ import annotations

import io
import os
import pickle
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.faces import open_detector
from sd3_local.pipelines.faces.checkpoint import Inert, read_checkpoint

from tests.detectors import build_network, save_detector


class Touches:
    """Runs `os.system` when it is unpickled, as files with viruses do."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch '{self.file}'",)


class Calls:
    """Is whatever `called` gives for `arguments`, when it is unpickled."""

    def __init__(self, called, *arguments):
        self.reduced = called, arguments

    def __reduce__(self):
        return self.reduced


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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_detector(tmp_path_factory.mktemp("detector") / "tiny.pt")


def refusal(path: Path) -> str:
    with pytest.raises(RequestError) as caught:
        open_detector(path)
    (fault,) = caught.value.faults
    assert fault.parameter == "detector"
    return f"{fault.code}: {fault.message}"


def test_a_detector_that_ultralytics_saved_is_read_and_finds(tiny: Path) -> None:
    known = set(torch.serialization.get_safe_globals())
    detector = open_detector(tiny)
    assert set(torch.serialization.get_safe_globals()) == known
    found = detector.find(torch.rand(90, 140, 3, generator=torch.Generator().manual_seed(3)))
    assert detector.name == "tiny.pt"
    assert found
    assert [face.confidence for face in found] == sorted((face.confidence for face in found), reverse=True)
    for box, confidence in found:
        assert 0 <= box.left < box.right <= 140
        assert 0 <= box.top < box.bottom <= 90
        assert 0 < confidence <= 1


@pytest.mark.parametrize("form", ["pickle", "archive", "model"])
def test_code_in_a_file_is_refused_and_does_not_run(tmp_path: Path, form: str) -> None:
    path, touched = tmp_path / "virus.pt", tmp_path / "touched"
    if form == "pickle":
        path.write_bytes(pickle.dumps({"model": Touches(touched)}))
    elif form == "archive":
        torch.save({"model": Touches(touched)}, path)
    else:
        network = build_network()
        network.criterion = Touches(touched)
        torch.save({"model": network}, path)
    # The file does what it is accused of, for who loads it without care.
    if form == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert touched.exists()
    touched.unlink()
    told = refusal(path)
    assert told.startswith("unsupportedDetector")
    assert '"virus.pt"' in told
    assert form == "pickle" or "system" in told
    assert not touched.exists()


def test_a_file_cannot_construct_what_it_may_name(tmp_path: Path, no_network: list) -> None:
    from ultralytics.nn.modules.block import TorchVision

    made = []
    original = TorchVision.__init__
    TorchVision.__init__ = lambda self, *given: (made.append(given), original(self, *given))[0]
    try:
        path = tmp_path / "fetches.pt"
        # This constructor fetches weights from the network.
        torch.save({"model": Calls(TorchVision, "resnet18", "DEFAULT")}, path)
        assert refusal(path).startswith("unsupportedDetector")
    finally:
        TorchVision.__init__ = original
    assert not made
    assert not no_network


@pytest.mark.parametrize("name", ["__class__", "__init__", "apply", "load_state_dict"])
def test_of_a_layer_a_file_gets_its_ways_to_compute_only(tmp_path: Path, name: str) -> None:
    layer = build_network().model[0]
    path = tmp_path / "reaches.pt"
    torch.save({"model": Calls(getattr, layer, name)}, path)
    with pytest.raises(RequestError, match="refused before any of it ran"):
        read_checkpoint(path)
    torch.save({"model": Calls(getattr, layer, "forward_fuse")}, path)
    way = read_checkpoint(path)["model"]
    assert way.__func__ is type(layer).forward_fuse


def test_what_a_training_left_beside_the_network_does_nothing(tmp_path: Path) -> None:
    from ultralytics.utils import IterableSimpleNamespace

    path = tmp_path / "trained.pt"
    network = build_network()
    network.args = IterableSimpleNamespace(imgsz=64, box=7.5)
    beside = {"date": Path("somewhere"), "train_args": {"imgsz": 64}, "ema": None}
    torch.save({"model": network, **beside}, path)
    content = read_checkpoint(path)
    assert isinstance(content["date"], Inert)
    assert isinstance(content["model"].args, Inert)
    assert open_detector(path)._side == 64


@pytest.mark.parametrize("name", ["yolov5n.pt", "o'brien.pt", " spaces .pt", "model.PT"])
def test_no_name_makes_it_look_elsewhere(tmp_path: Path, tiny: Path, no_network: list, name: str) -> None:
    path = tmp_path / name
    assert refusal(path).startswith("missingDetector")
    path.write_bytes(tiny.read_bytes())
    assert open_detector(path).find(torch.zeros(64, 64, 3)) is not None
    assert not no_network
    assert list(tmp_path.iterdir()) == [path]


def zipped(**entries: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in entries.items():
            archive.writestr(f"archive/{name.replace('_', '.')}", data)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "invalidDetector"),
        (b"I am a detector, believe me.\n" * 40, "invalidDetector"),
        (b"PK\x03\x04" + bytes(200), "unsupportedDetector"),
        (zipped(data_pkl=b"\x80\x02garbage"), "invalidDetector"),
        (zipped(readme_txt=b"no pickle"), "invalidDetector"),
        (zipped(data_pkl=pickle.dumps({"epoch": 1}, 2), version=b"3\n"), "unsupportedDetector"),
    ],
    ids=["empty", "text", "torn", "garbage", "other zip", "no network"],
)
def test_a_file_that_is_no_detector_is_refused_in_one_sentence(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "face.pt"
    path.write_bytes(content)
    told = refusal(path)
    assert told.startswith(code)
    assert '"face.pt"' in told
    assert "\n" not in told


def test_torn_files_are_refused(tmp_path: Path, tiny: Path) -> None:
    whole, path = tiny.read_bytes(), tmp_path / "torn.pt"
    for share in (0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert refusal(path).startswith(("invalidDetector", "unsupportedDetector"))
    assert refusal(tmp_path).startswith("invalidDetector")


def test_networks_of_other_kinds_are_refused(tmp_path: Path) -> None:
    from ultralytics.nn.tasks import ClassificationModel

    path = tmp_path / "other.pt"
    torch.save({"model": ClassificationModel("yolov8n-cls.yaml", nc=3, verbose=False)}, path)
    assert "another kind" in refusal(path)
    save_detector(path, kind="-obb")
    assert "another kind" in refusal(path)
    save_detector(path, names={0: "person", 1: "car"})
    assert "no faces" in refusal(path)
    save_detector(path, names={0: "person", 1: "human face", 2: "car"})
    assert open_detector(path)._classes == [1]
    network = build_network()
    network.model[0].conv.weight.data[0] = float("nan")
    torch.save({"model": network}, path)
    assert "NaN" in refusal(path)
    network = build_network()
    del network.model[0].conv
    torch.save({"model": network}, path)
    assert "does not run" in refusal(path)


def test_torch_before_its_safe_loading_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.serialization, "get_unsafe_globals_in_checkpoint")
    assert "PyTorch 2.6" in refusal(tiny)


def test_on_another_device_works_a_copy(tiny: Path) -> None:
    picture = torch.rand(90, 140, 3, generator=torch.Generator().manual_seed(3))
    elsewhere = open_detector(tiny, torch.device("cpu", 0))
    network = elsewhere._network
    assert elsewhere.find(picture) == open_detector(tiny).find(picture)
    assert elsewhere._network is network
    assert not any(tensor.is_inference() for tensor in network.state_dict().values())


def test_a_library_that_others_imported_carelessly_changes_nothing(tmp_path: Path) -> None:
    path, touched = tmp_path / "virus.pt", tmp_path / "touched"
    torch.save({"model": Touches(touched)}, path)
    code = f"""if True:
        from ultralytics.nn import tasks
        assert not tasks.SAFE_LOAD
        from tools.pack import import_pack
        import_pack()
        from pathlib import Path
        from sd3_local.pipelines.errors import RequestError
        from sd3_local.pipelines.faces import open_detector
        try:
            open_detector(Path({str(path)!r}))
        except RequestError as error:
            print(error.faults[0].code)
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("YOLO_", "ULTRALYTICS_"))}
    clean |= {"YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(tmp_path), "YOLO_VERBOSE": "false"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=clean, capture_output=True, text=True, check=True)
    assert done.stdout == "unsupportedDetector\n"
    assert not touched.exists()


def test_without_the_package_the_command_that_installs_it_is_told(tmp_path: Path, monkeypatch) -> None:
    from sd3_local.pipelines.faces import library

    monkeypatch.setattr(library, "find_spec", lambda _: None)
    monkeypatch.setattr(library.sys, "modules", {})
    with pytest.raises(RequestError, match=r"pip install .*ultralytics") as caught:
        open_detector(tmp_path / "face.pt")
    assert caught.value.faults[0].code == "missingUltralytics"
