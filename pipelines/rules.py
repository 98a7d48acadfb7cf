"""What fields of a request demand of each other.

Rules read what is known of an object: a mapping from the API's names to values, nested objects being such mappings
too. A field that is missing from it is unknown (it was wrong itself, or belongs to someone else), and a rule that needs
it is silent; None means that the field is known not to be given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .errors import Fault
from .fields import RequestObject
from .request import MAX_SEED, AcceleratorOptions, ControlNet, ImageInference, Inputs
from .scheduler_names import SCHEDULER_NAMES, UNSUPPORTED_SCHEDULERS

Known = Mapping[str, Any]


class Window(NamedTuple):
    """The names of the fields that bound a window of steps, in steps and in percent."""

    start: str
    end: str
    start_percentage: str
    end_percentage: str


CONTROL_WINDOW = Window("startStep", "endStep", "startStepPercentage", "endStepPercentage")
CACHE_WINDOW = Window("cacheStartStep", "cacheEndStep", "cacheStartStepPercentage", "cacheEndStepPercentage")
CACHES = ("fbCache", "teaCache", "dbCache")


def faults_of(cls: type[RequestObject], known: Known, path: str = "") -> Iterator[Fault]:
    """What is wrong between the fields of one object of class `cls` that lies at `path` in the request."""
    rules = _RULES.get(cls)
    if rules is not None:
        yield from rules(known, path)


def code(prefix: str, name: str) -> str:
    """An error code in the API's manner: `invalid` and `endStep` give `invalidEndStep`."""
    return prefix + name[:1].upper() + name[1:]


def field_of(path: str) -> str:
    """The name of the field at a path: that of `controlNet[1].endStep` is `endStep`."""
    return path.rpartition(".")[2].partition("[")[0]


def join(path: str, name: str) -> str:
    """The path of the field `name` of the object at `path`."""
    return f"{path}.{name}" if path else name


def _image_inference(known: Known, path: str) -> Iterator[Fault]:
    scheduler = known.get("scheduler")
    if scheduler in UNSUPPORTED_SCHEDULERS:
        yield Fault(
            "unsupportedScheduler",
            f"{join(path, 'scheduler')} is {scheduler!r}, but {UNSUPPORTED_SCHEDULERS[scheduler]}; choose another one.",
            join(path, "scheduler"),
            {"allowedValues": [name for name in SCHEDULER_NAMES if name not in UNSUPPORTED_SCHEDULERS]},
        )

    seed, results = known.get("seed"), known.get("numberResults")
    if seed is not None and results is not None and seed + results - 1 > MAX_SEED:
        last = MAX_SEED - results + 1
        yield Fault(
            "invalidSeed",
            f"{join(path, 'seed')} is {seed}, but with {results} results, each one seed further, it must be at most "
            f"{last}; lower it or ask for fewer results.",
            join(path, "seed"),
            {"type": "integer", "min": 0, "max": last},
        )

    output_type = known.get("outputType")
    if known.get("ttl") is not None and output_type is not None and output_type != "URL":
        yield Fault(
            "incompatibleTtl",
            f"{join(path, 'ttl')} is {known['ttl']}, but only a URL expires and outputType is {output_type!r}; "
            "leave ttl out or set outputType to 'URL'.",
            join(path, "ttl"),
        )

    if known.get("outpaint") is not None and "inputs" in known:
        inputs = {"seedImage": None} if known["inputs"] is None else known["inputs"]
        if "seedImage" in inputs and inputs["seedImage"] is None:
            yield _missing_seed_image(join(path, "inputs"), "outpaint")

    steps = known.get("steps")
    if steps is not None:
        for index, control_net in enumerate(known.get("controlNet") or ()):
            yield from _window_beyond(steps, control_net, join(path, f"controlNet[{index}]"), CONTROL_WINDOW)
        accelerator = known.get("acceleratorOptions") or {}
        yield from _window_beyond(steps, accelerator, join(path, "acceleratorOptions"), CACHE_WINDOW)


def _inputs(known: Known, path: str) -> Iterator[Fault]:
    if known.get("maskImage") is not None and "seedImage" in known and known["seedImage"] is None:
        yield _missing_seed_image(path, "maskImage")


def _control_net(known: Known, path: str) -> Iterator[Fault]:
    yield from _window(known, path, CONTROL_WINDOW)


def _accelerator_options(known: Known, path: str) -> Iterator[Fault]:
    yield from _window(known, path, CACHE_WINDOW)
    first, *others = [name for name in CACHES if known.get(name)] or [None]
    for other in others:
        yield Fault(
            code("conflict", other),
            f"{join(path, other)} is on beside {first}, but only one cache can decide about a step; turn one off.",
            join(path, other),
        )


def _missing_seed_image(inputs_path: str, because: str) -> Fault:
    parameter = join(inputs_path, "seedImage")
    told = f"{parameter} is missing, but {because} needs it; give one or leave {because} out."
    return Fault("missingSeedImage", told, parameter)


def _window(known: Known, path: str, names: Window) -> Iterator[Fault]:
    in_steps = [name for name in (names.start, names.end) if known.get(name) is not None]
    in_percent = [name for name in (names.start_percentage, names.end_percentage) if known.get(name) is not None]
    if in_steps and in_percent:
        yield Fault(
            code("conflict", in_percent[0]),
            f"{join(path, in_percent[0])} is given beside {in_steps[0]}, but a window is either in steps or in "
            "percent; leave one of the two forms out.",
            join(path, in_percent[0]),
        )
    for start, end in ((names.start, names.end), (names.start_percentage, names.end_percentage)):
        first, last = known.get(start), known.get(end)
        if first is not None and last is not None and first >= last:
            yield Fault(
                code("invalid", start),
                f"{join(path, start)} is {first}, but it must be less than {end}, which is {last}; "
                f"lower it or raise {end}.",
                join(path, start),
                {"type": "integer", "min": 0, "max": last - 1},
            )


def _window_beyond(steps: int, known: Known, path: str, names: Window) -> Iterator[Fault]:
    """A window's faults against the number of steps, which belongs to the whole request."""
    for name, last in ((names.start, steps - 1), (names.end, steps)):
        value = known.get(name)
        if value is not None and value > last:
            yield Fault(
                code("invalid", name),
                f"{join(path, name)} is {value}, but of {steps} steps it must be at most {last}; "
                "lower it or raise steps.",
                join(path, name),
                {"type": "integer", "min": 0 if name == names.start else 1, "max": last},
            )


_RULES: dict[type[RequestObject], Callable[[Known, str], Iterator[Fault]]] = {
    ImageInference: _image_inference,
    Inputs: _inputs,
    ControlNet: _control_net,
    AcceleratorOptions: _accelerator_options,
}
