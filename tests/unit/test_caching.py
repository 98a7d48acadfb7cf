"""What a cache run decides, step by step, on a transformer that is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from sd3_local.caching import CacheOptions, CacheRun, Tuning, limit_of, plot, plots
from sd3_local.caching.slot import Slot, reached

from tests.toy_forward import EMBEDDED, Toy, along, evenly

CPU = torch.device("cpu")
ALWAYS = math.inf
TECHNIQUES = ("fb", "tea", "db")


def cache(
    limit: float,
    steps: int = 12,
    technique: str = "fb",
    window: range | None = None,
    most: int = 3,
    interval: int | None = None,
    tuning: Tuning | None = None,
    **facts,
) -> tuple[CacheRun, list[float]]:
    sigmas = evenly(steps)
    allowed = range(steps) if window is None else window
    options = CacheOptions(technique, limit, allowed, most, interval, tuning or Tuning())
    return CacheRun(options, sigmas, CPU, **facts), sigmas


def still(sigma: float) -> Toy:
    """Nothing changes from step to step."""
    return Toy(sigma, lambda sigma: 1.0, lambda sigma: 2.0)


def bent(sigma: float) -> Toy:
    return Toy(sigma, lambda sigma: 1 + sigma**2, lambda sigma: 2 + sigma**2)


def letters(run: CacheRun) -> str:
    return run.trace.compact.replace(".", "")


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_never_means_that_all_is_computed_and_nothing_kept(technique: str) -> None:
    run, sigmas = cache(limit_of(0, 0.1), technique=technique)
    passes = along(run, sigmas, still)
    assert letters(run) == "C" * 12
    assert all("rest" in each.called for each in passes)
    assert run.trace.reasons() == {"off": 12}
    assert run.trace.cache_bytes == 0


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "CrrrCrrrCrrC"),
        ({"most": 1}, "CrCrCrCrCrCC"),
        ({"most": 5}, "CrrrrrCrrrrC"),
        ({"window": range(4, 9)}, "CCCCrrrCrCCC"),
        ({"window": range(0, 0)}, "C" * 12),
        ({"window": range(11, 12)}, "C" * 12),
        ({"steps": 1}, "C"),
        ({"steps": 2}, "CC"),
        ({"steps": 3}, "CrC"),
        ({"most": 5, "interval": 2}, "CrrCrrCrrCrC"),
        ({"most": 2, "interval": 5}, "CrrCrrCrrCrC"),
    ],
)
def test_always_computes_what_window_and_maxima_force_and_no_more(technique: str, options, expected: str) -> None:
    run, sigmas = cache(ALWAYS, technique=technique, **options)
    # Signals that jump don't matter, even if they were not numbers.
    along(run, sigmas, lambda sigma: Toy(sigma, lambda sigma: math.nan, lambda sigma: 1.0))
    assert letters(run) == expected


def test_each_computed_step_has_its_reason() -> None:
    run, sigmas = cache(ALWAYS, window=range(2, 11), most=5, interval=3)
    along(run, sigmas, still)
    assert run.trace.reasons() == {"first": 1, "window": 1, "interval": 2, "last": 1}
    run, sigmas = cache(ALWAYS, most=3, interval=4)
    along(run, sigmas, still)
    assert run.trace.reasons() == {"first": 1, "maximum": 2, "last": 1}
    run, sigmas = cache(1e-9, tuning=Tuning(forecast=False))
    along(run, sigmas, bent)
    assert run.trace.reasons() == {"first": 1, "threshold": 10, "last": 1}


@pytest.mark.parametrize(
    ("technique", "computed", "reused"),
    [
        ("fb", ["embed", "first", "rest"], ["embed", "first"]),
        ("db", ["embed", "first", "rest", "feed"], ["embed", "first", "feed"]),
        ("tea", ["embed", "first", "rest"], ["embed"]),
    ],
)
def test_a_reused_step_computes_only_what_its_technique_needs(technique: str, computed, reused) -> None:
    run, sigmas = cache(ALWAYS, technique=technique)
    for each, row in zip(along(run, sigmas, bent), run.trace.rows, strict=True):
        assert each.called == (computed if row.action == "computed" else reused)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_what_changes_along_a_line_is_foretold_exactly(technique: str) -> None:
    """Block and tail go along a line in sigma: the forecast is the truth, plain reuse is not."""

    def straight(sigma: float) -> Toy:
        return Toy(sigma, lambda sigma: 1 + sigma, lambda sigma: 2 + 3 * sigma)

    # TeaCache's tail is all that the blocks add.
    unforetold = 4 / 12 if technique == "tea" else 3 / 12
    for forecast, expected in ((True, 0.0), (False, unforetold)):
        run, sigmas = cache(ALWAYS, technique=technique, window=range(2, 12), tuning=Tuning(forecast=forecast))
        for sigma in sigmas[:3]:
            (output,) = run.evaluate(sigma, {"all": straight(sigma)})
        assert run.trace.rows[-1].action == "reused"
        error = (output - straight(sigmas[2]).truth).abs().max().item()
        assert error == pytest.approx(expected, abs=1e-5)


def test_a_forecast_goes_as_far_as_the_signal_went() -> None:
    """The block stops moving after two steps, and with it the tail: the line through both would go on."""

    def stops(sigma: float) -> Toy:
        at = max(sigma, 11 / 12)
        return Toy(sigma, lambda sigma: 1 + at, lambda sigma: 2 + 3 * at)

    run, sigmas = cache(ALWAYS, window=range(2, 12))
    for sigma in sigmas[:4]:
        (output,) = run.evaluate(sigma, {"all": stops(sigma)})
        assert torch.allclose(output, stops(sigma).truth, atol=1e-5)
    assert letters(run) == "CCrr"
    run, sigmas = cache(ALWAYS, window=range(2, 12), tuning=Tuning(align=False))
    for sigma in sigmas[:4]:
        (output,) = run.evaluate(sigma, {"all": stops(sigma)})
    assert (stops(sigma).truth - output).mean().item() == pytest.approx(3 * 2 / 12, abs=1e-5)


@pytest.mark.parametrize(("jump", "steps"), [(-100, 3.0), (100, 0.0)])
def test_a_signal_that_jumps_does_not_throw_a_forecast_off(jump: float, steps: float) -> None:
    """However far it goes, a forecast goes one and a half times as far as the line at most, and never back."""

    def block(sigma: float) -> float:
        return 1 + sigma + (jump if sigma < 0.8 else 0)

    run, sigmas = cache(ALWAYS, window=range(2, 12))
    for sigma in sigmas[:4]:
        (output,) = run.evaluate(sigma, {"all": Toy(sigma, block, lambda sigma: 2 + 3 * sigma)})
    tail = output - EMBEDDED - block(sigmas[3])
    assert tail.mean().item() == pytest.approx(2 + 3 * (11 - steps) / 12, abs=1e-4)


def test_errors_of_the_steps_reused_in_a_row_add_up() -> None:
    """Without a forecast the error of a step is its distance from the computed one."""

    def steady(sigma: float) -> Toy:
        return Toy(sigma, lambda sigma: 10 + sigma, lambda sigma: 1.0)

    run, sigmas = cache(1.0, most=5, tuning=Tuning(forecast=False))
    along(run, sigmas, steady)
    rows = run.trace.rows
    expected = [(distance / 12) / 11 for distance in (1, 2, 3)]
    assert [row.error for row in rows[1:4]] == pytest.approx(expected, rel=1e-4)
    assert [row.total for row in rows[1:4]] == pytest.approx([expected[0], sum(expected[:2]), sum(expected)], rel=1e-4)
    alone, sigmas = cache(1.0, most=5, tuning=Tuning(forecast=False, accumulate=False))
    along(alone, sigmas, steady)
    assert [row.total for row in alone.trace.rows[1:4]] == pytest.approx([d / 12 / 11 for d in (1, 2, 3)], rel=1e-4)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_the_worst_sample_decides(technique: str) -> None:
    """Fifteen samples are still and one jumps: their mean would hide it."""

    def one_jumps(sigma: float) -> Toy:
        levels = [1.0] * 15 + [1.0 if sigma > 0.7 else 1.5]
        return Toy(sigma, lambda sigma: levels, lambda sigma: 2.0, samples=16)

    run, sigmas = cache(0.1, technique=technique, most=5)
    along(run, sigmas, one_jumps)
    jump = next(row for row in run.trace.rows if row.sigma <= 0.7)
    assert (jump.action, jump.reason) == ("computed", "threshold")


def test_prompts_in_calls_of_their_own_are_decided_about_together() -> None:
    def apart(sigma: float) -> dict[str, Toy]:
        jumping = Toy(sigma, lambda sigma: 1.0 if sigma > 0.7 else 1.5, lambda sigma: 2.0)
        return {"negative": still(sigma), "positive": jumping}

    run, sigmas = cache(0.1, most=5)
    passes = along(run, sigmas, apart)
    at_jump = next(index for index, sigma in enumerate(sigmas) if sigma <= 0.7)
    assert run.trace.rows[at_jump].action == "computed"
    assert all("rest" in each.called for each in passes[2 * at_jump : 2 * at_jump + 2])
    assert len(run.trace.rows) == 12


def test_what_is_no_number_is_computed() -> None:
    def breaks(sigma: float) -> Toy:
        return Toy(sigma, lambda sigma: math.nan if 0.4 < sigma < 0.6 else 1.0, lambda sigma: 2.0)

    run, sigmas = cache(0.1)
    along(run, sigmas, breaks)
    assert "nan" in run.trace.reasons()
    assert all(row.action == "computed" for row in run.trace.rows if 0.4 < row.sigma < 0.6)


@pytest.mark.parametrize("tuning", [Tuning(), Tuning(forecast=False)])
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_more_may_be_reused_the_larger_each_bound(technique: str, tuning: Tuning) -> None:
    def reused(limit: float = 0.08, **options) -> int:
        run, sigmas = cache(limit, 28, technique, tuning=tuning, **options)
        along(run, sigmas, bent)
        return run.trace.count("reused")

    for sweep in (
        [reused(limit_of(eagerness / 20, 0.02)) for eagerness in range(21)],
        [reused(ALWAYS, most=most) for most in range(1, 6)],
        [reused(most=most) for most in range(1, 6)],
        [reused(ALWAYS, most=5, interval=interval) for interval in range(1, 8)],
        [reused(window=range(28 - length, 28)) for length in range(29)],
        [reused(window=range(length)) for length in range(29)],
    ):
        assert sweep == sorted(sweep)
        assert sweep[0] < sweep[-1]


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_the_host_waits_for_the_device_once_in_a_step_that_is_decided_by_its_error_and_else_never(
    technique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = []
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
        real = getattr(torch.Tensor, name)

        def counted(tensor: torch.Tensor, *given, real=real):
            waited.append(run._steps._step)
            return real(tensor, *given)

        monkeypatch.setattr(torch.Tensor, name, counted)

    def apart(sigma: float) -> dict[str, Toy]:
        return {"negative": still(sigma), "positive": bent(sigma)}

    run, sigmas = cache(0.05, technique=technique, window=range(3, 9))
    along(run, sigmas, apart)
    decided = [row.step for row in run.trace.rows if row.reason == "threshold"]
    assert decided and waited == decided
    waited.clear()
    run, sigmas = cache(ALWAYS, technique=technique)
    along(run, sigmas, apart)
    assert not waited


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loses_neither_errors_nor_forecasts(dtype: torch.dtype) -> None:
    """Squares of such changes pass float16's largest number, and sums of them bfloat16's eight bits."""
    signals = [torch.full((1, 4096, 8), level, dtype=dtype) for level in (1600.0, 1280.0, 1120.0)]
    slot = Slot(True)
    slot.keep(0.9, signals[0], signals[0])
    slot.keep(0.7, signals[1], signals[1])
    share = reached(0.6, [slot], signals[2:])
    assert share.item() == pytest.approx(0.5, rel=1e-5)
    assert torch.equal(slot.forecast(share), signals[2])
    assert slot.errors(signals[2], share).item() == 0
    assert slot.errors(signals[2], None).item() == pytest.approx(160 / 1280, rel=1e-5)


def test_eagerness_becomes_a_limit_without_bound() -> None:
    assert limit_of(0.0, 0.1) == 0
    assert limit_of(0.5, 0.1) == pytest.approx(0.1)
    assert limit_of(0.75, 0.1) == pytest.approx(0.3)
    assert limit_of(0.75, 0.1, usual=0.75) == pytest.approx(0.1)
    assert limit_of(1.0, 0.1) == math.inf
    limits = [limit_of(eagerness / 100, 0.1, usual=0.75) for eagerness in range(101)]
    assert limits == sorted(limits)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_cache_takes_three_tensors_at_most_and_none_at_the_end(technique: str) -> None:
    for tokens, most in ((32, 3.0), (2048, 2.25), (4096, 2.25)):
        run, sigmas = cache(ALWAYS, technique=technique)
        along(run, sigmas, lambda sigma, tokens=tokens: Toy(sigma, bent(sigma).block, bent(sigma).tail, tokens=tokens))
        tensor = tokens * 8 * 4
        assert 2 * tensor < run.trace.cache_bytes <= most * tensor
        assert not run._slots


def test_a_run_that_ends_early_frees_its_caches_when_it_is_closed() -> None:
    run, sigmas = cache(ALWAYS)
    along(run, sigmas[:6], bent)
    assert run._slots
    run.close()
    assert not run._slots


def test_the_older_tail_is_gone_before_a_new_one_is_computed() -> None:
    """Else a third one would lie beside the two for as long as the blocks run, when memory is scarcest."""
    run, sigmas = cache(ALWAYS, window=range(2, 12), most=1)
    held = []

    class Looking(Toy):
        def rest(self) -> torch.Tensor:
            held.append(sum(slot.nbytes for slot in run._slots.values()))
            return super().rest()

    along(run, sigmas, lambda sigma: Looking(sigma, lambda sigma: 1 + sigma, lambda sigma: 2.0))
    tensor = 32 * 8 * 4
    assert len(held) > 4
    assert max(held) <= 1.5 * tensor < run.trace.cache_bytes


def test_the_trace_is_data_and_letters() -> None:
    import json

    run, sigmas = cache(0.05, 10)
    along(run, sigmas, bent)
    run.close()
    rows = [row.as_data() for row in run.trace.rows]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert [row["step"] for row in rows] == list(range(10))
    assert all(row["ms"] > 0 for row in rows)
    assert [len(group) for group in run.trace.compact.split(".")] == [4, 4, 2]
    assert run.trace.count("computed") + run.trace.count("reused") == 10
    assert run.trace.longest == max(len(part) for part in letters(run).split("C"))


def test_the_plot_has_a_column_a_step() -> None:
    orange, blue = torch.tensor([244, 114, 74]) / 255, torch.tensor([74, 168, 244]) / 255
    run, sigmas = cache(0.05, 10, tuning=Tuning(forecast=False))
    along(run, sigmas, bent)
    picture = plot(run.trace)
    assert picture.ndim == 3 and picture.shape[2] == 3
    assert picture.min() >= 0 and picture.max() <= 1
    band = picture[-14]
    columns = [band[12 + 20 * step + 5] for step in range(10)]
    drawn = "".join(
        "C" if torch.allclose(each, orange) else "r" if torch.allclose(each, blue) else "?" for each in columns
    )
    assert drawn == letters(run)
    assert plot(cache(ALWAYS)[0].trace).shape[2] == 3
    longer, sigmas = cache(ALWAYS, 24)
    along(longer, sigmas, bent)
    stacked = plots([run.trace, longer.trace])
    assert stacked.shape == (2 * picture.shape[0], plot(longer.trace).shape[1], 3)
    assert torch.equal(stacked[: picture.shape[0], : picture.shape[1]], picture)
    assert torch.equal(stacked[picture.shape[0] :], plot(longer.trace))
