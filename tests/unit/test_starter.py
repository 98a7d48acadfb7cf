"""The starter's parts that decide something: what to install, what to unpack, how to speak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tools.starter import comfyui, environment
from tools.starter.checkout import Checkout, StarterError
from tools.starter.commands import main
from tools.starter.demo import write_new
from tools.starter.host import HostError, failure, images, link_pack

ROOT = Path(__file__).resolve().parent.parent.parent


class TestEnvironment:
    @pytest.fixture()
    def checkout(self, tmp_path: Path) -> Checkout:
        checkout = Checkout(tmp_path)
        checkout.python.parent.mkdir(parents=True)
        checkout.python.touch()
        checkout.lock.write_text("torch==2.11.0\nnumpy==2.2.6 ; python_full_version < '3.11'\n")
        return checkout

    def todo(self, checkout: Checkout, found: dict[str, Any] | None, **wanted: Any) -> str:
        if found is not None:
            environment.write_stamp(checkout, found)
        right = environment.stamp(checkout.venv, "abc", "")
        return environment.left_to_do(checkout.venv, checkout.python, {**right, **wanted})

    def test_nothing_when_all_agrees(self, checkout: Checkout) -> None:
        assert self.todo(checkout, environment.stamp(checkout.venv, "abc", "")) == "nothing"

    def test_another_lock_installs_and_an_interrupted_install_starts_over(self, checkout: Checkout) -> None:
        assert self.todo(checkout, environment.stamp(checkout.venv, "old", "")) == "install"
        assert self.todo(checkout, environment.stamp(checkout.venv, None, "")) == "make"

    @pytest.mark.parametrize("change", [{"python": "3.9"}, {"folder": "/elsewhere/.venv"}, {"torch": "cu128"}])
    def test_another_python_place_or_torch_starts_over(self, checkout: Checkout, change: dict[str, str]) -> None:
        assert self.todo(checkout, {**environment.stamp(checkout.venv, "abc", ""), **change}) == "make"

    def test_a_broken_stamp_or_a_python_that_is_gone_starts_over(self, checkout: Checkout) -> None:
        (checkout.venv / environment.STAMP).write_text("{")
        assert self.todo(checkout, None) == "make"
        checkout.python.unlink()
        assert self.todo(checkout, environment.stamp(checkout.venv, "abc", "")) == "make"

    def test_an_environment_of_the_user_s_own_is_filled_and_not_removed(self, checkout: Checkout) -> None:
        here = ".".join(map(str, sys.version_info[:2]))
        (checkout.venv / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {here}.1\n")
        assert self.todo(checkout, None) == "install"
        (checkout.venv / "pyvenv.cfg").write_text("home = /usr/bin\nversion_info = 3.8.18\n")
        with pytest.raises(StarterError, match=r"3\.8"):
            self.todo(checkout, None)

    def test_the_torch_once_asked_for_stays(self, checkout: Checkout) -> None:
        assert environment.backend(checkout.venv, {}) == ""
        environment.write_stamp(checkout, environment.stamp(checkout.venv, "abc", "cu128"))
        assert environment.backend(checkout.venv, {}) == "cu128"
        assert environment.backend(checkout.venv, {"UV_TORCH_BACKEND": "cpu"}) == "cpu"

    def test_the_fingerprint_tells_the_parts_apart(self) -> None:
        prints = {
            environment.fingerprint(*parts) for parts in [(b"ab", b""), (b"a", b"b"), (b"", b"ab"), (b"ab", b"c")]
        }
        assert len(prints) == 4

    def test_locked_finds_lines_by_whole_names(self, checkout: Checkout) -> None:
        assert environment.locked(checkout.lock, ["torch"]) == ["torch==2.11.0"]
        assert environment.locked(ROOT / "requirements.lock", environment.KEPT) == [
            "torch==2.11.0",
            "torchaudio==2.11.0",
            "torchvision==0.26.0",
        ]

    def test_the_lists_of_needs_agree(self) -> None:
        tomllib = pytest.importorskip("tomllib")
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert (ROOT / "requirements.txt").read_text(encoding="utf-8").split() == project["dependencies"]
        names = {line.split("=")[0] for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()}
        assert names >= {need.split(">")[0] for need in project["dependencies"]}


class TestComfyUI:
    def wheel(self, folder: Path, names: dict[str, str], link: str | None = None) -> Path:
        path = folder / "a.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in names.items():
                archive.writestr(name, text)
            if link:
                info = zipfile.ZipInfo(link)
                info.external_attr = 0o120777 << 16
                archive.writestr(info, "/etc/passwd")
        return path

    def test_only_comfyui_is_unpacked_and_not_its_model_paths(self, tmp_path: Path) -> None:
        inside = comfyui.INSIDE
        names = {
            f"{inside}/main.py": "m",
            f"{inside}/comfy/sd.py": "s",
            f"{inside}/extra_model_paths.yaml": "x",
            "b.py": "b",
        }
        comfyui.unpack(self.wheel(tmp_path, names), tmp_path / "new")
        found = sorted(path.relative_to(tmp_path / "new").as_posix() for path in (tmp_path / "new").rglob("*.*"))
        assert found == ["comfy/sd.py", "main.py"]

    @pytest.mark.parametrize("name", ["../../out.py", "/out.py", "a/../../out.py", "C:/out.py", "..\\out.py", "a\x01b"])
    def test_a_path_that_leaves_the_folder_is_refused(self, tmp_path: Path, name: str) -> None:
        target = tmp_path / "deep" / "er" / "new"
        with pytest.raises(StarterError, match="unsafe"):
            comfyui.unpack(self.wheel(tmp_path, {f"{comfyui.INSIDE}/{name}": "x"}), target)
        assert not list(tmp_path.rglob("out.py"))

    def test_a_link_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StarterError, match="unsafe"):
            comfyui.unpack(self.wheel(tmp_path, {}, link=f"{comfyui.INSIDE}/main.py"), tmp_path / "new")

    def test_the_copy_counts_only_with_its_stamp(self, tmp_path: Path) -> None:
        (tmp_path / "main.py").touch()
        assert not comfyui.is_unpacked(tmp_path)
        (tmp_path / comfyui.STAMP).write_text(comfyui.WHEEL_SHA256 + "\n")
        assert comfyui.is_unpacked(tmp_path)
        (tmp_path / comfyui.STAMP).write_text("0" * 64)
        assert not comfyui.is_unpacked(tmp_path)

    def test_comfyui_path_is_checked(self, tmp_path: Path) -> None:
        assert comfyui.own({}) is None
        with pytest.raises(StarterError, match=r"main\.py"):
            comfyui.own({"COMFYUI_PATH": str(tmp_path)})
        for name in ("main.py", "nodes.py", "requirements.txt"):
            (tmp_path / name).touch()
        (tmp_path / "comfy").mkdir()
        (tmp_path / "comfyui_version.py").write_text('__version__ = "0.3.74"\n')
        with pytest.raises(StarterError, match=r"0\.3\.75 or newer"):
            comfyui.own({"COMFYUI_PATH": str(tmp_path)})
        (tmp_path / "comfyui_version.py").write_text('__version__ = "0.28.0"\n')
        assert comfyui.own({"COMFYUI_PATH": str(tmp_path)}) == tmp_path.resolve()


class TestHost:
    def test_the_link_follows_a_moved_checkout(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(name)
        for name in ("one", "one", "two"):
            link = link_pack(tmp_path / name, tmp_path / "custom_nodes", "my pack")
            assert (link / "__init__.py").read_text() == name
        assert (tmp_path / "one" / "__init__.py").exists()

    def test_a_folder_with_something_in_it_is_never_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "nodes" / "pack").mkdir(parents=True)
        (tmp_path / "nodes" / "pack" / "mine.txt").touch()
        with pytest.raises(OSError):
            link_pack(tmp_path, tmp_path / "nodes", "pack")
        assert (tmp_path / "nodes" / "pack" / "mine.txt").exists()

    def test_what_comfyui_refuses_is_said_in_words(self) -> None:
        wrong = [{"message": "Value not in list", "details": "model: 'x' not in ['y']"}]
        body = {"error": {"message": "Prompt failed"}, "node_errors": {"3": {"class_type": "A", "errors": wrong}}}
        assert str(HostError(400, body)) == "A: Value not in list: model: 'x' not in ['y']"
        kind = {"type": "custom_validation_failed", "message": "Custom validation failed for node"}
        twice = [{**kind, "details": f"{name} - no file - at all"} for name in ("model", "vae")]
        body["node_errors"] = {"1": {"class_type": "B", "errors": twice}}
        assert str(HostError(400, body)) == "B: no file - at all"
        assert str(HostError(400, {"error": {"message": "No prompt"}, "node_errors": []})) == "No prompt"
        assert str(HostError(500, "oh")) == "ComfyUI answered 500: oh"

    def test_how_a_run_ended(self) -> None:
        error = ["execution_error", {"node_type": "SD3LocalSampler", "exception_message": "CFGScale: too high\n"}]
        status = {"status_str": "error", "messages": [["execution_start", {}], error]}
        assert failure({"status": status}) == "SD3LocalSampler: CFGScale: too high"
        assert (
            failure({"status": {"status_str": "error", "messages": [["execution_interrupted", {}]]}})
            == "The run was cancelled."
        )
        assert failure({"status": {"status_str": "success"}}) is None
        pictures = [{"filename": "a.png"}, {"filename": "b.png"}]
        assert images({"outputs": {"1": {"images": pictures}, "2": {"text": ["x"]}}}) == pictures

    def test_a_picture_never_replaces_another(self, tmp_path: Path) -> None:
        names = [write_new(tmp_path / "output" / "a.png", data).name for data in (b"1", b"2", b"3")]
        assert names == ["a.png", "a-2.png", "a-3.png"]
        assert sorted(os.listdir(tmp_path / "output")) == sorted(names)

    def test_a_watched_script_ends_with_its_starter(self, tmp_path: Path) -> None:
        (tmp_path / "beside.py").write_text("WORD = 'ready'")
        script = tmp_path / "script.py"
        script.write_text("import sys, time, beside; print(beside.WORD, *sys.argv[1:], flush=True); time.sleep(60)")
        watched = ROOT / "tools" / "starter" / "watched.py"
        command = [sys.executable, str(watched), str(script), "--port", "1"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin and process.stdout
        try:
            assert process.stdout.readline().split() == [b"ready", b"--port", b"1"]
            process.stdin.close()
            assert process.wait(30) == 1
        finally:
            process.kill()
            process.stdout.close()


class TestCommands:
    @pytest.mark.parametrize("given", [["paint"], ["setup", "--now"], ["demo", "x"]])
    def test_what_is_not_understood(self, given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(given, "usage: ...") == 2
        assert " ".join(given) in capsys.readouterr().err

    @pytest.mark.parametrize("given", [[], ["--help"], ["help"]])
    def test_help(self, given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(given, "usage: ...") == 0
        assert capsys.readouterr().out.startswith("usage")

    def test_an_unknown_benchmark_is_answered_with_the_known_ones(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "nonsense"], "") == 1
        assert "Which benchmark?" in capsys.readouterr().err

    def test_a_wrong_comfyui_path_is_an_error_without_a_traceback(self, tmp_path: Path) -> None:
        environ = {**os.environ, "COMFYUI_PATH": str(tmp_path / "nothing")}
        command = [sys.executable, str(ROOT / "run.py"), "setup"]
        answer = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        assert answer.returncode == 1
        assert "is not a ComfyUI" in answer.stderr and "Traceback" not in answer.stderr

    def test_the_starter_needs_nothing_but_the_standard_library(self) -> None:
        probe = "import sys, json, tools.starter.commands; print(json.dumps(sorted(sys.modules)))"
        answer = subprocess.run(
            [sys.executable, "-S", "-c", probe], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        names = {name.split(".")[0] for name in json.loads(answer.stdout)}
        assert names - set(sys.stdlib_module_names) <= {"__main__", "tools"}, answer.stderr
