"""The benchmarks run and say what they promise; what they measure is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sd3_local.caching import Tuning

from benchmarks import api, features, loading
from tests.checkpoints import CheckpointSpec, TransformerSpec, VAESpec, write_checkpoint
from tests.comfy_host import ROOT

# They start whole programs, which takes its time on a machine that others use too.
pytestmark = pytest.mark.timeout(1800)

CACHES = [
    "Euler, fewer steps",
    "DPM++ 2M, fewer steps",
    "cache-dit",
    "cache-dit, TaylorSeer",
    "First Block Cache",
    "ComfyUI, LazyCache",
    *(f"SD3 Local, {technique}" for technique in ("fb", "tea", "db")),
    *(f"SD3 Local, {technique} without {piece.name}" for technique in ("fb", "tea") for piece in fields(Tuning)),
]
ENGINES = ["SD3 Local", "diffusers", "ComfyUI"]


def quick(name: str, folder: Path, *options: str) -> tuple[dict[str, Any], str]:
    """What a quick run of a benchmark wrote, and what it printed."""
    file = folder / f"{name}.json"
    given = ["--quick", "--threads", "1", "--json", str(file), *options]
    run = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *given], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(file.read_text()), run.stdout


def test_engine_compares_all_peers_on_the_same_pictures(tmp_path: Path) -> None:
    written, printed = quick("engine", tmp_path)
    assert written["benchmark"] == "engine"
    assert written["setting"]["threads"] == 1
    assert {"torch", "diffusers", "ComfyUI", "processor", "device", "commit"} <= written["setting"].keys()
    engines: dict[str, list[str]] = {}
    for row in written["rows"]:
        engines.setdefault(row["part"], []).append(row["engine"])
        assert row["latent_difference"] < 1e-3, row
        assert 0 < row["seconds_per_step"] < row["seconds_per_picture"]
        assert len(row["rounds"]["seconds_per_picture"]) == 1
    embedded = (ROOT / "assets" / "nano" / "sd3-nano.safetensors").is_file()
    expected = {"served": ["SD3 Local", "ComfyUI"], "in process": ENGINES}
    assert engines == expected | ({"nano": ENGINES[:2]} if embedded else {})
    for row in written["rows"]:
        assert f"| {row['model']} |" in printed


def test_loading_weighs_the_way_to_the_same_first_step(tmp_path: Path) -> None:
    spec = CheckpointSpec(TransformerSpec(2, 128, context=4096, pooled=2048), VAESpec())
    file = write_checkpoint(tmp_path / "model.safetensors", spec, torch.float16)
    loading.write_config(file, tmp_path / "config")
    latents = []
    for name in ("SD3 Local, dtype fp16", "diffusers"):
        run = loading.first_step(name, file, tmp_path, side=64)
        assert run["seconds"].keys() == {"import_host", "import_own", "load", "step"}
        assert all(seconds > 0 for seconds in run["seconds"].values())
        assert 0 < (run["private_gib"] or run["resident_gib"] / 2) < run["resident_gib"]
        latents.append(torch.load(tmp_path / "latent.pt"))
    assert latents[0].shape == (1, 16, 8, 8)
    assert (latents[0] - latents[1]).norm() / latents[1].norm() < 1e-3


def test_caching_compares_ours_and_all_peers_with_the_full_run(tmp_path: Path) -> None:
    plot = tmp_path / "caching.png"
    written, printed = quick("caching", tmp_path, "--plot", str(plot))
    rows = {(row["method"], row["setting"]): row for row in written["rows"]}
    assert {name for name, _ in rows} == {*CACHES, "full run", "ComfyUI, full run"}
    full, comfyui = rows["full run", "all steps"], rows["ComfyUI, full run", "all steps"]
    assert full["flops_speedup"] == comfyui["flops_speedup"] == 1
    assert full["time_speedup"] == 1
    # The same weights, noise and sigmas in ComfyUI's own code: LazyCache is measured on the same pictures.
    assert comfyui["psnr"]["worst_decile"] > 60
    assert rows["Euler, fewer steps", "3 steps"]["flops_speedup"] == pytest.approx(2, rel=1e-6)
    for row in written["rows"]:
        assert row["pictures"] == 2
        # TeaCache's look at the input is counted too.
        assert row["flops_speedup"] > 0.999
        assert row["psnr"]["worst_decile"] <= row["psnr"]["median"] <= 100
        assert row["psnr"]["median"] > 60 if row["flops_speedup"] < 1.001 else row["psnr"]["median"] < 100, row
        assert f"| {row['method']} | {row['setting']} |" in printed
    boldest = [("fb", "fbCacheThreshold 0"), ("tea", "teaCacheDistance 1"), ("db", "dbCacheThreshold 0")]
    fastest = [rows[f"SD3 Local, {name}", f"{setting}, at most 5"]["flops_speedup"] for name, setting in boldest]
    # Of six steps the first and the last are computed, and of the others a first block, none, or a block at each end.
    assert fastest[1] == pytest.approx(3, rel=0.03)
    assert 1.5 < fastest[2] < fastest[0] < fastest[1]
    assert {row["method"] for row in written["summary"]} <= set(CACHES)
    assert {"Euler, fewer steps", "cache-dit", "SD3 Local, fb"} <= {row["method"] for row in written["summary"]}
    assert all(row.keys() == {"method", "2x", "3x"} for row in written["summary"])
    with Image.open(plot) as drawn:
        assert drawn.format == "PNG"


def test_caching_verifies_what_it_reused(tmp_path: Path) -> None:
    rows = quick("caching", tmp_path, "--verify")[0]["rows"]
    assert {row["technique"] for row in rows} <= {"fb", "tea", "db"} and rows
    for row in rows:
        assert row["action"] == "reused"
        # Six steps are far apart, so nothing is foretold exactly, nor for nothing at all.
        assert 1e-4 < row["true_error"] < 1
        assert 0 < row["error"] <= row["total"] < 0.25


@pytest.mark.parametrize("name", ["api", "caching", "engine", "loading"])
def test_help_says_what_is_measured(name: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0
    assert f"run.py bench {name}" in run.stdout
    assert "--quick" in run.stdout


def test_features_times_each_one_beside_none(tmp_path: Path) -> None:
    written, printed = quick("features", tmp_path)
    rows = written["rows"]
    assert [row["case"] for row in rows if row["weights"] == "as computed"] == list(features.CASES)
    assert [row["case"] for row in rows if row["weights"] == "fp8"] == [features.PLAIN, "three LoRAs, applied"]
    for row in rows:
        assert 0 < row["fastest"] <= row["median"]
        assert f"| {row['case']} |" in printed


def test_api_weighs_requests_against_their_graphs(tmp_path: Path) -> None:
    written, printed = quick("api", tmp_path)
    rows = written["rows"]
    assert [row["way"] for row in rows] == [api.ENDPOINT, api.DIRECT]
    request, direct = rows
    assert request["overhead_seconds"] == pytest.approx(request["median_seconds"] - direct["median_seconds"])
    assert direct["overhead_seconds"] is None
    for row in rows:
        assert 0 < row["median_seconds"] <= row["slowest_decile_seconds"]
        assert len(row["rounds"]["seconds"]) == 5
        assert row["pictures_per_second"] > 0
        assert f"| {row['way']} |" in printed
