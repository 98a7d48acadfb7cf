"""Identifiers and file names that stand for models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sd3_local.api.models import ModelTable, air
from sd3_local.pipelines.errors import RequestError

FILES = {"model": ["sd3.safetensors", "sub/large.safetensors"], "lora": ["a.safetensors"]}


@pytest.fixture
def table(tmp_path: Path) -> ModelTable:
    (tmp_path / "models" / "sub").mkdir(parents=True)
    return ModelTable(
        tmp_path / "user" / "models.json",
        lambda kind: FILES.get(kind, []),
        lambda kind, name: tmp_path / "models" / name,
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("runware:5@1", "runware:5@1"),
        ("Runware:5@1", "runware:5@1"),
        ("urn:air:sd3:checkpoint:civitai:896953@1003708", "civitai:896953@1003708"),
        ("AIR:sd3:lora:Civitai:1@2", "civitai:1@2"),
        ("fishaudio:s2.1@pro", "fishaudio:s2.1@pro"),
        ("google:gemma@4-31b", "google:gemma@4-31b"),
        ("a:b@c@d", "a:b@c@d"),
        ("sd3.safetensors", None),
        ("c:\\models\\a.safetensors", None),
        ("name@1", None),
        (":5@1", None),
        ("runware:5@", None),
        ("", None),
    ],
)
def test_identifiers_are_compared_in_one_form(name: str, expected: str | None) -> None:
    assert air(name) == expected


def test_the_table_comes_before_a_file_s_own_name(table: ModelTable) -> None:
    table.save({"model": {"runware:5@1": "sub/large.safetensors", "sd3.safetensors": "sub/large.safetensors"}})
    for name in ("runware:5@1", "urn:air:sd3:checkpoint:runware:5@1", "sd3.safetensors", "sub/large.safetensors"):
        assert table.find(name, "model", "model") == "sub/large.safetensors"
    assert table.name_of("sub/large.safetensors", "model") == "runware:5@1"
    assert table.name_of("sd3.safetensors", "model") == "sd3.safetensors"


def test_no_table_leaves_the_names_of_files(table: ModelTable) -> None:
    assert table.find("sd3.safetensors", "model", "model") == "sd3.safetensors"


@pytest.mark.parametrize("name", ["runware:5@1", "SD3.safetensors", "sd3", "large.safetensors", "../sd3.safetensors"])
def test_nothing_is_guessed(table: ModelTable, name: str) -> None:
    with pytest.raises(RequestError) as caught:
        table.find(name, "model", "model")
    (fault,) = caught.value.faults
    assert (fault.code, fault.parameter) == ("invalidModel", "model")
    assert fault.limits["allowedValues"] == FILES["model"]
    assert "sd3.safetensors" in fault.message


def test_a_kind_has_names_of_its_own(table: ModelTable) -> None:
    table.save({"lora": {"civitai:1@2": "a.safetensors"}})
    assert table.find("civitai:1@2", "lora", "lora[0].model") == "a.safetensors"
    with pytest.raises(RequestError):
        table.find("civitai:1@2", "model", "model")
    with pytest.raises(RequestError, match="There is: nothing"):
        table.find("civitai:1@2", "controlNet", "controlNet[0].model")


def test_an_entry_whose_file_is_gone_is_told(table: ModelTable) -> None:
    table.save({"model": {"runware:5@1": "gone.safetensors"}})
    with pytest.raises(RequestError, match=r"says is 'gone\.safetensors'; there is no such file"):
        table.find("runware:5@1", "model", "model")


@pytest.mark.parametrize(
    ("name", "said"),
    [("sd3.civitai.info", {"modelId": 5, "id": 7}), ("sd3.metadata.json", {"civitai": {"modelId": 5, "id": 7}})],
)
def test_sidecars_of_other_managers_are_read(table: ModelTable, tmp_path: Path, name: str, said: dict) -> None:
    (tmp_path / "models" / name).write_text(json.dumps(said))
    assert table.find("urn:air:sd3:checkpoint:civitai:5@7", "model", "model") == "sd3.safetensors"
    with pytest.raises(RequestError):
        table.find("civitai:5@8", "model", "model")


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"civitai": 3}', '{"modelId": 5}', "\0"])
def test_broken_sidecars_say_nothing(table: ModelTable, tmp_path: Path, content: str) -> None:
    for name in ("sd3.civitai.info", "sd3.metadata.json"):
        (tmp_path / "models" / name).write_text(content)
    with pytest.raises(RequestError, match="means no file here"):
        table.find("civitai:5@7", "model", "model")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"models": {}}', '{"model": []}', '{"model": {"a": 1}}', '{"model": {"": "a"}}']
)
def test_a_broken_table_is_told_and_not_replaced(table: ModelTable, tmp_path: Path, content: str) -> None:
    file = tmp_path / "user" / "models.json"
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(RequestError, match=r"models\.json\) must be right"):
        table.find("sd3.safetensors", "model", "model")
    with pytest.raises(RequestError):
        table.save({"model": {"a": 3}})
    assert file.read_text() == content
    assert not list(tmp_path.glob("user/*.part"))


def test_a_hosted_model_is_the_file_that_was_published_of_it(tmp_path: Path) -> None:
    files = ["other/sd3_medium.safetensors", "SD3/sd3_medium_incl_clips.safetensors", "my_sd3_medium.safetensors"]
    table = ModelTable(tmp_path / "models.json", lambda kind: files, lambda kind, name: tmp_path / name)
    assert table.find("urn:air:sd3:checkpoint:runware:5@1", "model", "model") == files[1]
    with pytest.raises(RequestError):
        table.find("runware:5@1", "lora", "lora[0].model")
    table.save({"model": {"runware:5@1": files[2]}})
    assert table.find("runware:5@1", "model", "model") == files[2]
    assert table.offered("model") == [("runware:5@1", files[2]), *((file, file) for file in files)]
