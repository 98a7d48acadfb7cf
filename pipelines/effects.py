"""Which options of a request have no effect beside others, and why.

That is no fault: such a request is run. Whoever shows the options to a person can say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from .fields import RequestObject, specs
from .request import AcceleratorOptions, ControlNet, ImageInference, IPAdapter, Lora, Safety, Ultralytics
from .rules import CACHE_WINDOW, CACHES, CONTROL_WINDOW, Known, Window


class Idle(NamedTuple):
    """Fields without effect, by the API's names, and the reason they share."""

    parameters: tuple[str, ...]
    reason: str


def without_effect(cls: type[RequestObject], known: Known) -> Iterator[Idle]:
    """What has no effect in one object of class `cls`, of which `known` is known as rules.py says."""
    effects = _EFFECTS.get(cls)
    if effects is not None:
        yield from effects(known)


def _image_inference(known: Known) -> Iterator[Idle]:
    inputs = known.get("inputs")
    if inputs is not None:
        if inputs.get("seedImage", "") is None:
            yield Idle(("strength",), "Without a seed image the picture starts from noise.")
        if inputs.get("maskImage", "") is None:
            yield Idle(("maskMargin",), "Without a mask image there is nothing to cut out.")
    scale = known.get("CFGScale")
    if scale is not None and scale <= 1 and "negativePrompt" in known:
        yield Idle(("negativePrompt",), "At a CFGScale of 1 or less there is no guidance.")
    output_type = known.get("outputType")
    if output_type is not None and output_type != "URL" and known.get("ttl", 0) is None:
        yield Idle(("ttl",), "Only with the outputType URL does a picture expire.")
    if known.get("outputFormat") == "PNG":
        yield Idle(("outputQuality",), "PNG is lossless.")


def _lora(known: Known) -> Iterator[Idle]:
    if known.get("weight") == 0:
        yield Idle(("transformer",), "A weight of 0 turns the LoRA off.")


def _control_net(known: Known) -> Iterator[Idle]:
    if known.get("weight") == 0:
        yield Idle(("controlMode", *CONTROL_WINDOW), "A weight of 0 turns the ControlNet off.")
    else:
        yield from _window(known, CONTROL_WINDOW)


def _ip_adapter(known: Known) -> Iterator[Idle]:
    # The engine's own list; that package needs torch, which whoever reads rules may lack.
    from .ip_adapter.weights import LAYOUT_TYPES

    if known.get("weight") == 0:
        others = ("combineMethod", "embedScaling", "weightType", "weightComposition")
        yield Idle(others, "A weight of 0 turns the IP-Adapter off.")
    elif known.get("weightType", LAYOUT_TYPES[0]) not in LAYOUT_TYPES:
        yield Idle(("weightComposition",), f"Only the weight types {', '.join(LAYOUT_TYPES)} treat layout apart.")


def _accelerator_options(known: Known) -> Iterator[Idle]:
    if any(cache not in known for cache in CACHES):
        return
    on = [cache for cache in CACHES if known[cache]]
    if not on:
        others = tuple(name for name in specs(AcceleratorOptions) if name not in CACHES)
        yield Idle(others, "No cache is on, so nothing is reused.")
        return
    off = [cache for cache in CACHES if cache not in on]
    settings = tuple(
        name for name in specs(AcceleratorOptions) for cache in off if name.startswith(cache) and name != cache
    )
    if settings:
        yield Idle(settings, "A cache's settings count only where it is on.")
    yield from _window(known, CACHE_WINDOW)


def _ultralytics(known: Known) -> Iterator[Idle]:
    if known.get("strength") == 0:
        others = tuple(name for name in specs(Ultralytics) if name != "strength")
        yield Idle(others, "At a strength of 0 no face is looked for.")
    elif "CFGScale" in known and known["CFGScale"] <= 1:
        yield Idle(("negativePrompt",), "At a CFGScale of 1 or less there is no guidance.")


def _safety(known: Known) -> Iterator[Idle]:
    if known.get("checkContent") is False:
        yield Idle(("mode",), "Nothing is checked while checkContent is off.")


def _window(known: Known, names: Window) -> Iterator[Idle]:
    """The form that is not used. With both there is a fault, and either may be taken back."""
    steps, percent = names[:2], names[2:]
    for used, other, form in ((steps, percent, "steps"), (percent, steps, "percent")):
        if any(known.get(name) is not None for name in used) and all(known.get(name, 0) is None for name in other):
            yield Idle(other, f"The window is given in {form}; it can't be in both.")


_EFFECTS: dict[type[RequestObject], Callable[[Known], Iterator[Idle]]] = {
    ImageInference: _image_inference,
    Lora: _lora,
    ControlNet: _control_net,
    IPAdapter: _ip_adapter,
    AcceleratorOptions: _accelerator_options,
    Ultralytics: _ultralytics,
    Safety: _safety,
}
