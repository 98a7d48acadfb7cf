"""The endpoint's small parts: what older clients write, settings, keys, files, and errors read from a run's text."""

from __future__ import annotations

import json
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest
from sd3_local.api import failures, wire
from sd3_local.api.files import PART, remove_parts, write
from sd3_local.api.keys import KeyFile
from sd3_local.api.settings import Settings, SettingsFile, checked
from sd3_local.api.store import Delivery, Item, Store, StoredPicture, Task
from sd3_local.pipelines.errors import Fault, RequestError

from tests.strategies import BASE


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"seedImage": "a", "maskImage": "b"}, {"inputs": {"seedImage": "a", "maskImage": "b"}}),
        ({"seedImage": "a", "inputs": {"seedImage": "new"}}, {"inputs": {"seedImage": "new"}}),
        ({"inputs": {"seedImage": "a", "mask": "b"}}, {"inputs": {"seedImage": "a", "maskImage": "b"}}),
        ({"strength": None, "lora": [], "outpaint": {"top": 64, "left": None, "blur": 0}}, {"outpaint": {"top": 64}}),
        ({"checkNSFW": True}, {"safety": {"checkContent": True}}),
        ({"usePromptWeighting": False}, {}),
        ({"outputFormat": "jpeg", "outputType": ["URL", "dataURI"]}, {"outputFormat": "JPG", "outputType": "dataURI"}),
        ({"outputFormat": "webp", "outputType": ["URL"]}, {"outputFormat": "WEBP", "outputType": "URL"}),
        ({"outputType": ["base64Data", "dataURI"]}, {"outputType": ["base64Data", "dataURI"]}),
        (
            {"acceleratorOptions": {"fbcache": True, "cacheDistance": 0.3, "cacheStopStep": 9}},
            {"acceleratorOptions": {"fbCache": True, "fbCacheThreshold": 0.3, "cacheEndStep": 9}},
        ),
        (
            {"acceleratorOptions": {"teaCache": True, "cacheDistance": 0.3}},
            {"acceleratorOptions": {"teaCache": True, "teaCacheDistance": 0.3}},
        ),
        (
            {"ipAdapters": [{"model": "m", "guideImage": "g"}]},
            {"ipAdapters": [{"model": "m", "guideImages": ["g"]}]},
        ),
        (
            {"controlNet": [{"model": "m", "guideImage": "g", "startStep": None}]},
            {"controlNet": [{"model": "m", "guideImage": "g"}]},
        ),
        ({"inputs": "no object", "ipAdapters": [3], "acceleratorOptions": 4}, None),
    ],
)
def test_what_older_clients_write_becomes_what_the_page_says(written: dict[str, Any], meant: Any) -> None:
    before = json.dumps(written)
    assert wire.normal({**BASE, **written}) == {**BASE, **(written if meant is None else meant)}
    assert json.dumps(written) == before


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("steps is 0; it must be more.", [("invalidSteps", "steps")]),
        ("a\nwidth: too large", [("invalidModel", "model"), ("invalidWidth", "width")]),
        ("controlNet[1].endStep is 9, over steps\nIt goes on.", [("invalidEndStep", "controlNet[1].endStep")]),
        ("ipAdapters[0].guideImages[2] is no picture", [("invalidGuideImages", "ipAdapters[0].guideImages[2]")]),
        ("", [("inferenceError", "taskUUID")]),
    ],
)
def test_a_node_s_error_is_read_as_faults(text: str, faults: list[tuple[str, str]]) -> None:
    read = failures.of_text(text)
    assert [(fault.code, fault.parameter) for fault in read] == faults
    assert all(line in " ".join(fault.message for fault in read) for line in text.splitlines())


def test_an_internal_error_keeps_its_text_to_itself() -> None:
    data = {"exception_type": "KeyError", "exception_message": "/home/me/secret", "node_type": "SD3LocalSampler"}
    (fault,) = failures.of_event("execution_error", data)
    assert fault.code == "inferenceError" and "secret" not in fault.message and "SD3LocalSampler" in fault.message
    assert failures.of_event("execution_interrupted", {}) == (failures.CANCELLED,)
    (fault,) = failures.of_event("execution_error", {"exception_type": "torch.OutOfMemoryError"})
    assert fault.parameter == "width"


@pytest.mark.parametrize(
    ("given", "parameters"),
    [
        ([], ["settings"]),
        ({"price": 1, "pricePerGpuHour": -1}, ["price", "pricePerGpuHour"]),
        ({"pricePerGpuHour": float("nan")}, ["pricePerGpuHour"]),
        ({"pricePerGpuHour": True}, ["pricePerGpuHour"]),
        ({"allowedHosts": "nas"}, ["allowedHosts"]),
        (
            {"allowedHosts": ["http://nas"], "publicURL": "nas", "webhookBody": 3},
            ["allowedHosts", "publicURL", "webhookBody"],
        ),
        ({"publicURL": "https://a.example/?q=1"}, ["publicURL"]),
    ],
)
def test_bad_settings_are_told_all_at_once(given: Any, parameters: list[str]) -> None:
    with pytest.raises(RequestError) as error:
        checked(given)
    assert [fault.parameter for fault in error.value.faults] == parameters


def test_settings_are_read_again_when_the_file_changes(tmp_path: Path) -> None:
    file = SettingsFile(tmp_path / "new" / "endpoint.json")
    assert file.get() == Settings()
    mine = checked(
        {"pricePerGpuHour": 2, "allowedHosts": ["NAS.local:9000", "[::1]:80"], "publicURL": "https://a.example/"}
    )
    file.save(mine)
    assert file.get() == mine == Settings(2.0, ("nas.local:9000", "[::1]:80"), "https://a.example")
    (tmp_path / "new" / "endpoint.json").write_text('{"price": 1}')
    with pytest.raises(RequestError, match="price"):
        file.get()


def test_keys_are_kept_as_hashes(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    assert keys.admits(None) and keys.admits("any")
    first, second = keys.make(), keys.make()
    text = (tmp_path / "keys.json").read_text()
    assert first != second and first not in text and second not in text
    assert keys.admits(first) and keys.admits(second)
    assert not any(map(keys.admits, (None, "", first[:-1], first + "x", json.loads(text)[0], "\ud800")))
    (tmp_path / "keys.json").write_text("{}")
    with pytest.raises(ValueError):
        keys.admits(first)
    keys.revoke_all()
    assert keys.admits(None)


def test_a_file_is_written_in_whole_or_not_at_all(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x.bin", b"old")
    with pytest.raises(TypeError):
        write(tmp_path / "a" / "x.bin", "no bytes")  # type: ignore[arg-type]
    assert (tmp_path / "a" / "x.bin").read_bytes() == b"old"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.bin"]
    (tmp_path / "a" / f"y.bin.0{PART}").write_bytes(b"half")
    remove_parts(tmp_path / "a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.bin"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "endpoint.sqlite", dict.fromkeys(("result", "upload", "input"), tmp_path))


def accept(store: Store, count: int = 1, most: int = 100) -> tuple[Task, list[Item]]:
    task = Task(str(uuid.uuid4()), {"taskType": "imageInference"}, "http://a.example")
    items = [Item(str(uuid.uuid4()), task.uuid, i, i) for i in range(count)]
    store.accept(task, items, most)
    return task, items


def test_an_item_ends_once_whoever_says_so_first(store: Store) -> None:
    task, (item,) = accept(store)
    picture, send = StoredPicture(item.uuid, "a.jpg", "result"), Delivery("webhook", "http://b.example", "{}")
    ended = []

    def end(state: Any) -> None:
        ended.append(store.end(item.uuid, state, {"imageUUID": item.uuid}, [send], picture))

    threads = [threading.Thread(target=end, args=(state,)) for state in ("done", "failed") * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(ended) == 1
    assert len(store.due()) == 1 and not store.waiting()
    assert store.items(task.uuid)[0].state in ("done", "failed")


def test_tasks_are_taken_whole_and_once(store: Store) -> None:
    task, items = accept(store, 3)
    with pytest.raises(RequestError) as error:
        store.accept(task, items, 100)
    assert error.value.faults[0].code == "conflictTaskUUID"
    with pytest.raises(RequestError) as error:
        accept(store, 3, most=5)
    assert error.value.faults[0].code == "rateLimitExceeded"
    assert store.waiting() == items
    with pytest.raises(Exception, match="UNIQUE"):
        store.accept(Task(str(uuid.uuid4()), {}, ""), items, 100)
    assert store.waiting() == items


def test_what_ended_long_ago_is_forgotten_and_what_waits_is_not(store: Store) -> None:
    old, (item,) = accept(store)
    waiting, _ = accept(store)
    store.end(item.uuid, "failed", [])
    store.prune(0)
    assert store.has_task(old.uuid)
    store.prune(2**40)
    assert not store.has_task(old.uuid) and store.item(item.uuid) is None
    assert store.has_task(waiting.uuid)


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "endpoint.sqlite") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(RuntimeError, match="newer"):
        Store(tmp_path / "endpoint.sqlite", {})


def test_faults_of_a_refused_graph_name_the_widget() -> None:
    error = {
        "message": "Value 20000 bigger than max of 10000",
        "details": "steps",
        "extra_info": {"input_name": "steps"},
    }
    (fault,) = failures.of_refusal({"node_errors": {"3": {"errors": [error]}}})
    assert fault == Fault("invalidSteps", "steps: Value 20000 bigger than max of 10000.", "steps")
    assert failures.of_refusal("what?") == (failures.LOST,)
