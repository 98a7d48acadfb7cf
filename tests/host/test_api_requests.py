"""2,000 generated requests, valid and broken: each gets a clear answer, and the endpoint goes on answering others."""

from __future__ import annotations

import base64
import io
import json
import random
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.answer_judge import Judge, judge
from tests.comfy_host import ComfyHost
from tests.strategies import FIELDS, bad_values, place, requests

FILES = {"lora": "nano-stripes", "controlNet": "nano-edges", "ipAdapters": "nano-reference"}
VALID, BROKEN, CUT, TREES, BATCHES = 500, 800, 300, 300, 100
CLIENTS = 8


@pytest.fixture(scope="module")
def api(host: ComfyHost) -> Iterator[Judge]:
    with judge(host) as api:
        yield api


@pytest.fixture(scope="module")
def pictures(api: Judge) -> list[str]:
    """One small picture in every form that a request may name it by; the address is not fetched in a dry run."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG")
    encoded = base64.b64encode(file.getvalue()).decode()
    uri = f"data:image/png;base64,{encoded}"
    answer = api.ask([{"taskType": "imageUpload", "taskUUID": str(uuid.uuid4()), "image": uri}], headers={})
    assert answer.status == 200, answer
    return [encoded, uri, answer.body["data"][0]["imageUUID"], "https://pictures.example/seed.png"]


def many(count: int) -> settings:
    """So many examples, the same ones in every run."""
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


def runnable(pictures: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Valid requests whose models and pictures are there, each task with a UUID of its own."""

    @st.composite
    def draw_one(draw: st.DrawFn) -> dict[str, Any]:
        wire = draw(requests())
        picture = st.sampled_from(pictures)
        wire |= {"model": "sd3-nano", "taskUUID": str(uuid.uuid4())}
        for side in ("width", "height"):
            if side in wire:
                wire[side] = draw(st.integers(4, 128)) * 16
        for kind, file in FILES.items():
            for part in wire.get(kind, ()):
                part["model"] = file
                if "guideImage" in part:
                    part["guideImage"] = draw(picture)
                if "guideImages" in part:
                    part["guideImages"] = [draw(picture) for _ in part["guideImages"]]
        for name in wire.get("inputs", {}):
            wire["inputs"][name] = draw(picture)
        return wire

    return draw_one()


@pytest.mark.timeout(600)
def test_valid_requests_are_taken(api: Judge, pictures: list[str]) -> None:
    @many(VALID)
    @given(runnable(pictures))
    def send(task: dict[str, Any]) -> None:
        answer = api.ask([task])
        assert answer.status == 200, answer
        assert not answer.errors
        assert [item["taskUUID"] for item in answer.body["data"]] == [task["taskUUID"]]

    with api.pinged():
        send()


@pytest.mark.timeout(600)
def test_a_wrong_field_is_named(api: Judge) -> None:
    broken = [(path, value) for path, field in FIELDS.items() for value in bad_values(field) if says_something(value)]
    random.Random(5).shuffle(broken)
    assert {path for path, _ in broken[:BROKEN]} == set(FIELDS)

    def send(case: tuple[str, Any]) -> None:
        path, value = case
        task, parameter = place(path, value)
        # All that is wrong is told together: of this field as of the models and pictures that are not there.
        answer = api.ask([task], headers={})
        assert answer.status == 400, (path, value, answer)
        errors = answer.errors
        named = [error["parameter"] for error in errors]
        # One array in another 2,000 times over is refused before anyone reads it.
        assert named == ["body"] or any(name.startswith(parameter) for name in named), (path, value, named)
        assert all(error.get("taskUUID", task["taskUUID"]) == task["taskUUID"] for error in errors)

    with api.pinged(), ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(send, broken[:BROKEN]))


def says_something(value: Any) -> bool:
    """Whether a value can be sent, and is more than null or an empty array, which are as good as nothing."""
    try:
        return value not in (None, []) and json.loads(json.dumps(value)) == value
    except (TypeError, ValueError, RecursionError):
        return False


@pytest.mark.timeout(600)
def test_json_that_was_cut_or_damaged(api: Judge, pictures: list[str]) -> None:
    edits = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 4), st.binary(max_size=4)), min_size=1, max_size=3)

    @many(CUT)
    @given(runnable(pictures[2:]), edits)
    def send(task: dict[str, Any], edits: list[tuple[int, int, bytes]]) -> None:
        body = json.dumps([task]).encode()
        for number, gone, new in edits:
            at = number % (len(body) + 1)
            body = body[:at] + new + body[at + gone :]
        api.ask(body)

    with api.pinged():
        send()


@pytest.mark.timeout(600)
def test_values_of_any_kind_at_any_place(api: Judge, pictures: list[str]) -> None:
    @many(TREES)
    @given(runnable(pictures[2:]), st.lists(st.tuples(st.integers(0, 2**20), ANYTHING), min_size=1, max_size=3))
    def send(task: dict[str, Any], changes: list[tuple[int, Any]]) -> None:
        for number, value in changes:
            places = list(within(task))
            parent, key = places[number % len(places)]
            parent[key] = value
        api.ask([task])

    with api.pinged():
        send()


# Lone surrogates and NUL too, which JSON can say.
JSON_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
ODD = st.sampled_from(["imageInference", "getResponse", "x" * 10_000, 10**4000, -1, 0, 1e308, ""])
PLAIN = st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False)
NAME = JSON_TEXT | st.sampled_from(list(FIELDS))
ANYTHING = st.recursive(
    PLAIN | JSON_TEXT | ODD,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAME, inner, max_size=4),
    max_leaves=8,
)


def within(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value, as the array or object that it is in, and its index or name."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from within(value[key])


@pytest.mark.timeout(600)
def test_several_tasks_at_once_are_judged_each_for_itself(api: Judge, pictures: list[str]) -> None:
    faulty = st.sampled_from(["steps", "width", "seed", "lora", "outputType"])

    @many(BATCHES)
    @given(st.lists(st.tuples(runnable(pictures[2:]), st.none() | faulty), min_size=2, max_size=6))
    def send(drawn: list[tuple[dict[str, Any], str | None]]) -> None:
        tasks = [task if wrong is None else {**task, wrong: {"no": "such"}} for task, wrong in drawn]
        answer = api.ask([*tasks, {"taskType": "ping", "ping": True}])
        data = answer.body["data"]
        assert {"taskType": "ping", "pong": True} in data
        good = {task["taskUUID"] for task, wrong in drawn if wrong is None}
        bad = {(task["taskUUID"], wrong) for task, wrong in drawn if wrong is not None}
        assert {item["taskUUID"] for item in data if item["taskType"] != "ping"} == good
        named = {(error["taskUUID"], error["parameter"].partition("[")[0].partition(".")[0]) for error in answer.errors}
        assert bad <= named and {task for task, _ in named} == {task for task, _ in bad}

    with api.pinged():
        send()
