"""Presets: settings of nodes under a name."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sd3_local.api.presets import FORMAT, inputs, read
from sd3_local.pipelines.errors import RequestError

PRESETS = sorted((Path(__file__).parents[2] / "presets").glob("*.json"))


def preset(*nodes: tuple[str, dict[str, Any]], **others: Any) -> dict[str, Any]:
    settings = [{"node": node, "values": values} for node, values in nodes]
    return {"format": FORMAT, "version": 1, "name": "Mine", "nodes": settings, **others}


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_shipped_preset_is_whole_and_right(path: Path) -> None:
    written = json.loads(path.read_text("utf-8"))
    found = read(written)
    assert not found.problems
    assert found.told() == written
    assert found.description


def test_shipped_names_are_told_apart() -> None:
    names = [json.loads(path.read_text("utf-8"))["name"] for path in PRESETS]
    assert len(names) >= 10 and len(set(names)) == len(names)


def test_what_is_no_input_or_value_is_told_and_the_rest_is_kept() -> None:
    found = read(
        preset(
            ("SD3LocalSampler", {"steps": 20, "seed": -1, "scheduler": "none such", "gone": 3, "width": 65}),
            ("SD3LocalGone", {"a": 1}),
            ("SD3LocalModel", {"model": "mine.safetensors", "dtype": 7}),
        )
    )
    assert [dict(one.values) for one in found.nodes] == [{"steps": 20, "seed": -1}, {"model": "mine.safetensors"}]
    assert [fault.parameter for fault in found.problems] == [
        "nodes[0].values.scheduler",
        "nodes[0].values.gone",
        "nodes[0].values.width",
        "nodes[1]",
        "nodes[2].values.dtype",
    ]


def test_what_does_not_go_together_is_told_and_kept() -> None:
    values = {"fbCache": True, "teaCache": True, "dbCache": False}
    found = read(preset(("SD3LocalAccelerator", values)))
    assert found.nodes[0].values == values
    assert len(found.problems) == 1 and "teaCache" in found.problems[0].message


@pytest.mark.parametrize(
    ("given", "parameters"),
    [
        (None, ["format"]),
        ({}, ["format"]),
        ({"format": "other"}, ["format"]),
        (preset(), ["nodes"]),
        (preset(("SD3LocalSampler", {}), version=2), ["version"]),
        (preset(("SD3LocalSampler", {}), version=True, name="a\nb"), ["version", "name"]),
        (preset(("SD3LocalSampler", {}), name=" " * 3, description=5), ["name", "description"]),
        (preset(("SD3LocalSampler", {})) | {"nodes": [{"node": 3}, []]}, ["nodes[0]", "nodes[1]"]),
        (preset(*[("SD3LocalLora", {})] * 51), ["nodes"]),
        (preset(("SD3LocalSampler", {}), thumbnail=3), ["thumbnail"]),
        (preset(("SD3LocalSampler", {}), thumbnail="https://a.example/a.png"), ["thumbnail"]),
        (preset(("SD3LocalSampler", {}), thumbnail="data:image/svg+xml;base64,PHN2Zy8+"), ["thumbnail"]),
        (preset(("SD3LocalSampler", {}), thumbnail="data:image/png;base64," + "A" * 65536), ["thumbnail"]),
    ],
)
def test_what_is_no_preset_is_refused_with_all_that_is_wrong(given: Any, parameters: list[str]) -> None:
    with pytest.raises(RequestError) as error:
        read(given)
    assert [fault.parameter for fault in error.value.faults] == parameters


def test_a_preset_may_have_a_small_picture() -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "JPEG")
    given = preset(
        ("SD3LocalSampler", {"steps": 9}), thumbnail=f"data:image/jpeg;base64,{b64encode(out.getvalue()).decode()}"
    )
    assert read(given).told() == given


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(
        st.tuples(st.sampled_from([*inputs(), "Other"]), st.dictionaries(st.text(max_size=5), JSON)),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_a_file_holds_is_read_or_refused(nodes: list[tuple[str, dict[str, Any]]]) -> None:
    found = read(preset(*nodes))
    assert read(found.told()).problems == () if found.nodes else True


@pytest.mark.parametrize("node", inputs())
@given(data=st.data())
def test_any_value_of_an_input_is_judged(node: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*inputs()[node]]))
    value = data.draw(JSON)
    found = read(preset((node, {name: value})))
    assert (name in found.nodes[0].values) == (not found.problems)
