"""Widgets from the request's fields, and a node's values back into fields.

A widget can't be empty: of a field without a default it holds -1, a number, or "", a text, where nothing is set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..pipelines.fields import UNSET_NUMBER, FieldSpec, RequestObject, spec

MEASURES = {"px": "pixels", "s": "seconds", "%": "percent"}
"""Units that a tooltip spells out; others, such as steps, the description already names."""

ADVANCED = {
    *("clipSkip", "maskMargin"),
    *("startStep", "endStep", "startStepPercentage", "endStepPercentage"),
    *("combineMethod", "embedScaling", "weightComposition"),
    *("cacheStartStep", "cacheEndStep", "cacheStartStepPercentage", "cacheEndStepPercentage"),
    *("cacheMaxConsecutiveSteps", "dbCacheSkipInterval"),
    *("confidence", "maskBlur", "maskPadding"),
    *("uploadEndpoint", "webhookURL", "ttl", "includeCost", "deliveryMethod"),
}
"""Fields that most pictures do without: an editor that can fold inputs shows them when it is asked to."""


def widget(cls: type[RequestObject], name: str, **options: Any) -> io.Input:
    """The widget of the field that the API calls `name`: its range, step, default and description come from the
    request.

    `options` replace or add to what the field says: `default` where the API names none, or a widget's own, such as
    `multiline`.
    """
    made = _widget(spec(cls, name), name, options)
    return advanced(made) if name in ADVANCED else made


def advanced(made: io.Input) -> io.Input:
    """The same input, folded away by editors that can."""
    # As an argument, older ComfyUIs would not take it.
    made.extra_dict["advanced"] = True
    return made


def _widget(field: FieldSpec, name: str, options: Mapping[str, Any]) -> io.Input:
    # A widget with a lowest value of its own always has a value.
    can_be_unset = field.default is None and "min" not in options
    given = {"display_name": friendly(name), "tooltip": _tooltip(field, can_be_unset), **options}
    if field.choices:
        return io.Combo.Input(name, options=list(field.choices), **{"default": field.default, **given})
    if field.type == "string":
        return io.String.Input(name, **{"default": field.unset, **given})
    if field.type == "boolean":
        return io.Boolean.Input(name, **{"default": field.default, **given})
    limits = {
        "default": field.unset,
        "min": UNSET_NUMBER if field.default is None else field.min,
        "max": field.max,
    }
    if field.type == "integer":
        return io.Int.Input(name, **{**limits, "step": field.multiple_of or 1, **given})
    return io.Float.Input(name, **{**limits, "step": field.step, **given})


def friendly(name: str) -> str:
    """An API name as words: "positivePrompt" is "positive prompt", "CFGScale" is "CFG scale"."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    return " ".join(word if word.isupper() else word.lower() for word in words)


def set_fields(cls: type[RequestObject], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a node's values that are set, by the API's names."""
    return {name: value for name, value in values.items() if not _is_unset(spec(cls, name), value)}


def _is_unset(field: FieldSpec, value: Any) -> bool:
    return field.default is None and value == field.unset


def _tooltip(field: FieldSpec, can_be_unset: bool) -> str:
    sentences = [field.description]
    if field.unit in MEASURES:
        sentences.append(f"In {MEASURES[field.unit]}.")
    if can_be_unset and field.type in ("integer", "number"):
        sentences.append("-1: not set.")
    return " ".join(sentences)
