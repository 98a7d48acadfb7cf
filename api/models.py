"""Models by name: the hosted API's identifiers (AIR) as files on this machine. Nothing is guessed by likeness."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from ..pipelines.errors import RequestError, show
from .files import write

Kind = Literal["model", "lora", "controlNet", "ipAdapters"]
KINDS: tuple[Kind, ...] = ("model", "lora", "controlNet", "ipAdapters")
"""What a name is asked for: the parameters of a request that name models."""

CATEGORIES: Mapping[Kind, str] = {
    "model": "checkpoint",
    "lora": "lora",
    "controlNet": "controlnet",
    "ipAdapters": "ipadapter",
}
"""What the API's search for models calls the kinds."""

LISTED = 100
MOST_BYTES = 2**20
"""Of a sidecar; larger ones are none."""

PUBLISHED: Mapping[str, Sequence[str]] = {
    "runware:5@1": (
        "sd3_medium_incl_clips_t5xxlfp16.safetensors",
        "sd3_medium_incl_clips_t5xxlfp8.safetensors",
        "sd3_medium_incl_clips.safetensors",
        "sd3_medium.safetensors",
    ),
}
"""The files that Stability AI published of a hosted model, the fullest first: what its name means where no table says
it."""

_PREFIX = re.compile(r"(urn:)?(air:)?", re.IGNORECASE)


def air(name: str) -> str | None:
    """An AIR identifier as "source:id@version", the form in which two of them are compared; None for other names.

    Ecosystem and type may be left out, and so may "urn:air:" (https://developer.civitai.com/site/guide/air). Versions
    have dots in them, so a dot ends nothing.
    """
    rest = name.strip()
    rest = rest[_PREFIX.match(rest).end() :]
    place, _, version = rest.rpartition("@")
    parts = place.split(":")
    if not version or len(parts) < 2 or not all(parts):
        return None
    return f"{parts[-2].lower()}:{parts[-1]}@{version}"


class ModelTable:
    """The user's table of identifiers, a JSON file: {"model": {"runware:5@1": "sd3_medium.safetensors"}, "lora": {}}.

    A file may have sidecars beside it, `<name>.civitai.info` and `<name>.metadata.json`, that other managers wrote;
    what they say of the model on Civitai counts where the table says nothing. `files` tells what there is of a kind, by
    the names that ComfyUI offers, and `path` where one of them lies.
    """

    def __init__(self, file: Path, files: Callable[[Kind], Sequence[str]], path: Callable[[Kind, str], Path]) -> None:
        self._file = file
        self._files = files
        self._path = path

    def entries(self) -> dict[Kind, dict[str, str]]:
        """What the table says. Raises RequestError where the file is not such a table."""
        try:
            written = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            written = {}
        except (OSError, ValueError) as error:
            raise self._broken(f"it can't be read: {type(error).__name__}") from None
        return self._checked(written)

    def save(self, entries: Mapping[str, Mapping[str, str]]) -> None:
        """Replaces the table, all of it or nothing. Raises RequestError for what is none."""
        text = json.dumps(self._checked(entries), indent=1, ensure_ascii=False) + "\n"
        write(self._file, text.encode())

    def find(self, name: str, kind: Kind, parameter: str) -> str:
        """The file that `name` means. Raises RequestError, which lists what there is, where it means none."""
        offered = list(self._files(kind))
        wanted = air(name)
        table = self.entries()[kind]
        for identifier, file in table.items():
            if identifier == name or (wanted is not None and air(identifier) == wanted):
                if file in offered:
                    return file
                told = f"{parameter} is {show(name)}, which the table of models says is {show(file)}; "
                told += "there is no such file."
                raise self._unknown(told, parameter, offered, table)
        if name in offered:
            return name
        if wanted is not None:
            for published in PUBLISHED.get(wanted, ()) if kind == "model" else ():
                for file in offered:
                    if file.replace("\\", "/").rpartition("/")[2] == published:
                        return file
            for file in offered:
                if wanted in self._sidecars(kind, file):
                    return file
        raise self._unknown(f"{parameter} is {show(name)}, which means no file here.", parameter, offered, table)

    def offered(self, kind: Kind) -> list[tuple[str, str]]:
        """What there is of a kind: what each file may be called, and the file."""
        files = self._files(kind)
        named = [(identifier, file) for identifier, file in self.entries()[kind].items() if file in files]
        return named + [(file, file) for file in files]

    def name_of(self, file: str, kind: Kind) -> str:
        """What the API calls a file: the table's name of it, else the published one that means it, else its own."""
        for identifier, named in self.entries()[kind].items():
            if named == file:
                return identifier
        for identifier in PUBLISHED if kind == "model" else ():
            with suppress(RequestError):
                if self.find(identifier, kind, kind) == file:
                    return identifier
        return file

    def _sidecars(self, kind: Kind, file: str) -> set[str]:
        path = self._path(kind, file)
        found = set()
        for sidecar in (path.with_suffix(".civitai.info"), path.with_suffix(".metadata.json")):
            try:
                if sidecar.stat().st_size > MOST_BYTES:
                    continue
                said: Any = json.loads(sidecar.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(said, dict) and sidecar.suffix == ".json":
                said = said.get("civitai")
            if isinstance(said, dict) and said.get("modelId") and said.get("id"):
                found.add(f"civitai:{said['modelId']}@{said['id']}")
        return found

    def _checked(self, written: Any) -> dict[Kind, dict[str, str]]:
        if not isinstance(written, Mapping):
            raise self._broken("it must be an object")
        for kind, names in written.items():
            if kind not in KINDS:
                raise self._broken(f"{show(kind)} is none of {', '.join(KINDS)}")
            if not isinstance(names, Mapping):
                raise self._broken(f"{kind} must be an object of identifiers and file names")
            for identifier, file in names.items():
                if not (isinstance(file, str) and file and identifier):
                    raise self._broken(f"{kind} has {show(identifier)}: {show(file)}; both must be text")
        return {kind: dict(written.get(kind, {})) for kind in KINDS}

    def _broken(self, because: str) -> RequestError:
        return RequestError(
            "invalidModelTable", f"The table of models ({self._file.name}) must be right: {because}.", "model"
        )

    def _unknown(self, told: str, parameter: str, offered: Sequence[str], table: Mapping[str, str]) -> RequestError:
        allowed = [*table, *offered]
        listed = ", ".join(allowed[:LISTED]) or "nothing"
        told += f" There is: {listed}." + (f" And {len(allowed) - LISTED} more." if len(allowed) > LISTED else "")
        return RequestError("invalidModel", told, parameter, allowedValues=allowed[:LISTED])
