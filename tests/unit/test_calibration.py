"""What a calibration measures, fits, writes and reads."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch
from sd3_local.caching import (
    SHIPPED,
    CacheOptions,
    CacheRun,
    Measured,
    Pair,
    Recorder,
    Results,
    Settings,
    Techniques,
    calibration_of,
    fit,
    results_path,
    weights_hash,
)
from sd3_local.caching.calibration import DEFAULT, ERROR
from sd3_local.pipelines.calibrate import calibrate
from sd3_local.pipelines.errors import RequestError
from sd3_local.pipelines.monitor import Unwatched

from tests.nano import open_nano
from tests.toy_forward import Toy, along, evenly

TECHNIQUES = ("fb", "tea", "db")
FACTORS = {"fb": 1.5, "tea": 4.0, "db": 0.5}
WEIGHTS, DTYPE = "0123456789abcdef", "bfloat16"
SETTINGS = Settings(
    prompts=tuple(f"a red circle on the left, {colour} background" for colour in ("blue", "green", "black")),
    sizes=((64, 64),),
    steps=12,
    guidance_scale=5.0,
)


class Stopped(Exception):
    pass


class StopsAt(Unwatched):
    """Cancels in the middle of a run."""

    def __init__(self, step: int):
        self._step = step

    def step(self, done: int, total: int, x0: torch.Tensor, reused: bool) -> None:
        if done == self._step:
            raise Stopped


def scattered(factors: dict[str, float], spread: float, count: int = 200) -> list[Pair]:
    """Pairs whose output errors lie around factor times the signal's, as often above as below by the same ratio."""
    drawn = random.Random(7)
    pairs = []
    for technique, factor in factors.items():
        for _ in range(count // 2):
            signal, ratio = math.exp(drawn.uniform(-6, 1)), math.exp(drawn.uniform(0, spread))
            pairs += [Pair(technique, signal, factor * signal * by) for by in (ratio, 1 / ratio)]
    return pairs


def results(weights: str = WEIGHTS, dtype: str = DTYPE) -> Results:
    measured = {name: Measured(factor=factor, pairs=99, r2=0.9) for name, factor in FACTORS.items()}
    return Results(
        name="SD3 Medium", weights=weights, dtype=dtype, settings=SETTINGS, techniques=Techniques(**measured)
    )


def put(folder: Path, text: str, weights: str = WEIGHTS, dtype: str = DTYPE) -> Path:
    path = results_path(folder, weights, dtype)
    path.write_text(text, encoding="utf-8")
    return path


def bent(sigma: float) -> Toy:
    return Toy(sigma, lambda sigma: 1 + sigma**2, lambda sigma: 2 + sigma**3)


def parting(sigma: float) -> Toy:
    """Two samples that no one share foretells."""
    return Toy(sigma, lambda sigma: [1 + sigma**2, 3 - sigma**3], lambda sigma: [2 + sigma**3, 1 + sigma], samples=2)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_fit_finds_the_factor_whatever_the_spread(spread: float) -> None:
    fits = fit(scattered(FACTORS, spread))
    assert {name: one.factor for name, one in fits.items()} == pytest.approx(FACTORS)
    for one in fits.values():
        assert one.pairs == 200
        assert one.r2 == pytest.approx(1) if spread == 0 else 0.5 < one.r2 < 0.95


def test_what_stood_still_or_was_no_number_is_left_out_of_the_fit() -> None:
    wrong = [(0.0, 1.0), (1.0, 0.0), (math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, math.inf)]
    bad = [Pair(technique, *errors) for technique in FACTORS for errors in wrong]
    fits = fit([*bad, *scattered(FACTORS, 0.0)])
    assert {name: one.factor for name, one in fits.items()} == pytest.approx(FACTORS)
    with pytest.raises(ValueError, match="0 errors could be measured"):
        fit(bad)


def test_half_way_means_the_same_output_error_for_every_technique() -> None:
    scales = results().calibration().scales
    assert {name: FACTORS[name] * scales[name] for name in FACTORS} == pytest.approx(dict.fromkeys(FACTORS, ERROR))


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("row", [1, 2, 3])
def test_a_recorder_measures_what_a_cache_would_decide_by_and_get_wrong(technique: str, row: int) -> None:
    """A cache that reuses as many in a row decides by the same sums, and its outputs are off by what was foreseen."""
    steps, period = 24, row + 1
    sigmas = evenly(steps)
    recorder = Recorder(steps, row)
    along(recorder, sigmas, parting)
    # Computed until the recorder's second computed step, and as often as there from then on.
    options = CacheOptions(technique, 1e9, range(period + 1, steps), row)
    run = CacheRun(options, sigmas, torch.device("cpu"))
    expected, wrong = [], 0.0
    for step, sigma in enumerate(sigmas[:-1]):
        (made,) = run.evaluate(sigma, {"all": parting(sigma)})
        done = run.trace.rows[-1]
        assert (done.action == "computed") == (step <= period or step % period == 0 or step == steps - 1)
        truth = parting(sigma).truth
        off = ((made - truth).abs().mean((1, 2)) / truth.abs().mean((1, 2))).max().item()
        wrong = 0.0 if done.action == "computed" else wrong + off
        # In its first row the cache foretells from two neighbours.
        if done.action == "reused" and step > 2 * period:
            expected.append((done.total, wrong))
    measured = [(pair.signal, pair.output) for pair in recorder.pairs if pair.technique == technique][row:]
    assert len(measured) == len(expected) > 5
    for pair, of_cache in zip(measured, expected, strict=True):
        assert min(of_cache) > 1e-4
        assert pair == pytest.approx(of_cache, rel=1e-2)


def test_a_recorder_computes_every_step() -> None:
    sigmas = evenly(12)
    recorder = Recorder(12, 3, offset=2)
    for sigma in sigmas[:-1]:
        toy = bent(sigma)
        (made,) = recorder.evaluate(sigma, {"all": toy})
        assert torch.equal(made, toy.truth)


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    put(tmp_path, results().model_dump_json())
    found = calibration_of(WEIGHTS, DTYPE, tmp_path)
    assert (found.name, found.measured, found.note) == ("SD3 Medium", True, "")
    assert found.scales == results().calibration().scales


def test_other_weights_and_dtypes_do_not_use_it(tmp_path: Path) -> None:
    text = results().model_dump_json()
    put(tmp_path, text)
    for weights, dtype in (("f" * 16, DTYPE), (WEIGHTS, "float16")):
        assert calibration_of(weights, dtype, tmp_path) == DEFAULT
        # Not even where somebody renames the file.
        path = put(tmp_path, text, weights, dtype)
        found = calibration_of(weights, dtype, tmp_path)
        assert (found.scales, found.measured) == (DEFAULT.scales, False)
        assert str(path) in found.note and "other weights" in found.note


def _changed(**changes: object) -> str:
    return json.dumps({**json.loads(results().model_dump_json()), **changes})


def _factor(value: object) -> str:
    techniques = json.loads(results().model_dump_json())["techniques"]
    return _changed(techniques={**techniques, "tea": {**techniques["tea"], "factor": value}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"version": 1',
        "\x00\x01",
        _changed(version=2),
        _changed(more=1),
        _changed(techniques={}),
        _factor(0),
        _factor(-1.5),
        _factor("2"),
        _factor(None),
        _factor(float("nan")),
        _factor(float("inf")),
        "[" * 100_000,
    ],
)
def test_a_file_that_cannot_be_used_is_passed_over_and_told(tmp_path: Path, text: str) -> None:
    path = put(tmp_path, text)
    found = calibration_of(WEIGHTS, DTYPE, tmp_path)
    assert (found.scales, found.measured) == (DEFAULT.scales, False)
    assert found.note.startswith(f"the calibration {path} is ignored: ")
    assert "\n" not in found.note


def test_a_folder_in_the_file_s_place_is_passed_over(tmp_path: Path) -> None:
    results_path(tmp_path, WEIGHTS, DTYPE).mkdir()
    assert "is ignored" in calibration_of(WEIGHTS, DTYPE, tmp_path).note


def test_the_user_s_own_goes_before_the_shipped_one(tmp_path: Path) -> None:
    weights = weights_hash(open_nano().transformer().module)
    shipped = calibration_of(weights, "float32", tmp_path)
    assert shipped.measured
    put(tmp_path, results(weights, "float32").model_dump_json(), weights, "float32")
    assert calibration_of(weights, "float32", tmp_path).scales == results().calibration().scales
    put(tmp_path, "{}", weights, "float32")
    passed_over = calibration_of(weights, "float32", tmp_path)
    assert (passed_over.scales, passed_over.measured) == (shipped.scales, True)
    assert "is ignored" in passed_over.note


def test_all_that_is_shipped_can_be_used() -> None:
    paths = list(SHIPPED.iterdir())
    assert paths
    for path in paths:
        weights, _, dtype = path.stem.partition("-")
        found = calibration_of(weights, dtype)
        assert (found.measured, found.note) == (True, "")


def test_a_calibration_that_is_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    model = open_nano()
    whole = calibrate(model, SETTINGS, tmp_path / "whole", Unwatched(), again=True)
    folder = tmp_path / "stopped"
    with pytest.raises(Stopped):
        calibrate(model, SETTINGS, folder, StopsAt(30), again=True)
    assert not list(folder.glob("*.json"))
    steps = []
    watching = Unwatched()
    watching.step = lambda done, total, x0, reused: steps.append((done, total))
    resumed = calibrate(model, SETTINGS, folder, watching, again=True)
    # Two prompts of twelve steps were done.
    assert steps == [(done, 36) for done in range(25, 37)]
    assert resumed.resumed == 2
    assert resumed.path.read_bytes() == whole.path.read_bytes()
    assert [path.name for path in folder.iterdir()] == [resumed.path.name]
    # A run finds it, and so does whoever asks again.
    weights = weights_hash(model.transformer().module)
    assert calibration_of(weights, "float32", folder).scales == whole.results.calibration().scales
    assert not calibrate(model, SETTINGS, folder, StopsAt(1)).fresh


@pytest.mark.parametrize("damage", ["", "{}", '{"settings": 1, "pairs": 2}', None])
def test_what_was_measured_under_other_settings_or_is_damaged_does_not_count(
    tmp_path: Path, damage: str | None
) -> None:
    model = open_nano()
    with pytest.raises(Stopped):
        calibrate(model, SETTINGS, tmp_path, StopsAt(13), again=True)
    (partial,) = tmp_path.iterdir()
    asked = SETTINGS
    if damage is None:
        asked = SETTINGS.model_copy(update={"guidance_scale": 4.0})
    else:
        partial.write_text(damage, encoding="utf-8")
    with pytest.raises(Stopped):
        calibrate(model, asked, tmp_path, StopsAt(1), again=True)


@pytest.mark.parametrize(
    ("changes", "parameter"),
    [({"steps": 11}, "steps"), ({"sizes": ((100, 64),)}, "width"), ({"sizes": ((64, 4096),)}, "height")],
)
def test_settings_that_cannot_run_are_refused(tmp_path: Path, changes: dict, parameter: str) -> None:
    with pytest.raises(RequestError) as caught:
        calibrate(open_nano(), SETTINGS.model_copy(update=changes), tmp_path, Unwatched(), again=True)
    assert caught.value.faults[0].parameter == parameter
    assert not list(tmp_path.iterdir())
