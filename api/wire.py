"""Tasks as clients write them, brought into the one form that the request's parser takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..pipelines.errors import RequestError, show
from ..pipelines.rules import code

MOST_TASKS = 100
MOST_DEPTH = 16
"""Of arrays and objects in each other; a request has 4."""

LEGACY = {"fbcache": "fbCache", "cacheStopStep": "cacheEndStep"}
"""Names of acceleratorOptions in the older clients, and what they are now."""


def read(body: bytes | str) -> list[Any]:
    """The tasks in a request's body: a JSON array of them, or one alone. Raises RequestError where it is none."""
    try:
        given = json.loads(body, parse_constant=_refuse)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        # Of the text itself nothing is repeated: it may be a picture.
        told = f"The body is no JSON ({type(error).__name__}); it must be an array of tasks."
        raise RequestError("invalidRequest", told, "body") from None
    tasks = given if isinstance(given, list) else [given]
    if not tasks:
        raise RequestError("arrayTooSmall", "The body is an empty array; it must hold tasks.", "body", minItems=1)
    if len(tasks) > MOST_TASKS:
        told = f"The body holds {len(tasks)} tasks; at most {MOST_TASKS} may come at once."
        raise RequestError("arrayTooLarge", told, "body", maxItems=MOST_TASKS)
    if _depth(given) > MOST_DEPTH:
        raise _too_deep()
    return tasks


def _refuse(name: str) -> None:
    raise ValueError(name)


def _too_deep() -> RequestError:
    told = f"The body's arrays and objects lie more than {MOST_DEPTH} deep in each other."
    return RequestError("invalidRequest", told, "body", max=MOST_DEPTH)


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        parts = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level = [part for some in parts for part in some]
    return depth


def normal(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task of imageInference with the names of the API's page: null and an empty array are as good as nothing, and
    what older clients call otherwise is renamed. What is no such name is left for the parser to judge.
    """
    wire = {name: value for name, value in _without_nulls(task).items() if value != []}
    if isinstance(pictures := wire.get("inputs", {}), dict):
        old = {name: wire.pop(name) for name in ("seedImage", "maskImage") if name in wire}
        pictures = {"maskImage" if name == "mask" else name: value for name, value in pictures.items()}
        if old or pictures:
            wire["inputs"] = {**old, **pictures}
    for name in ("checkNSFW", "checkNsfw"):
        if name in wire:
            wire.setdefault("safety", {"checkContent": wire.pop(name)})
    if wire.get("usePromptWeighting") is False:
        del wire["usePromptWeighting"]
    if isinstance(kinds := wire.get("outputType"), list):
        # A URL is told with every result.
        beside = [kind for kind in kinds if kind != "URL"] or ["URL"]
        wire["outputType"] = beside[0] if len(beside) == 1 else kinds
    if isinstance(form := wire.get("outputFormat"), str):
        wire["outputFormat"] = {"jpeg": "JPG"}.get(form.lower(), form.upper())
    if isinstance(options := wire.get("acceleratorOptions"), dict):
        renamed = {LEGACY.get(name, name): value for name, value in options.items()}
        if "cacheDistance" in renamed:
            is_tea = renamed.get("teaCache") and not renamed.get("fbCache")
            renamed.setdefault("teaCacheDistance" if is_tea else "fbCacheThreshold", renamed.pop("cacheDistance"))
        wire["acceleratorOptions"] = renamed
    # An edge that is to blend over no pixels is one that does not blend, which is all that there is now.
    if isinstance(outpaint := wire.get("outpaint"), dict) and outpaint.get("blur") == 0:
        del outpaint["blur"]
    for adapter in wire["ipAdapters"] if isinstance(wire.get("ipAdapters"), list) else ():
        if isinstance(adapter, dict) and "guideImage" in adapter:
            adapter.setdefault("guideImages", [adapter.pop("guideImage")])
    return wire


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def field(task: Mapping[str, Any], name: str, is_good: Callable[[Any], bool], must: str) -> Any:
    """A field of a task that is no imageInference. Raises RequestError where it is missing or not as it must be."""
    value = task.get(name)
    if value is None:
        raise RequestError(code("missing", name), f"{name} is missing; give {must}.", name)
    if not is_good(value):
        told = f"{name} is {show(value)}; it must be {must}."
        raise RequestError(code("invalid", name), told, name)
    return value


def optional(task: Mapping[str, Any], name: str, default: Any, is_good: Callable[[Any], bool], must: str) -> Any:
    """Such a field, or `default` where it is not given."""
    return default if task.get(name) is None else field(task, name, is_good, must)
