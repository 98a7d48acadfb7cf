"""Keeps the editor's texts of all languages together: `python -m tools.locales`.

English is written from what the nodes and the editor's extension say now. In the other languages each text that is
still said keeps its translation, wherever it is said, and the rest goes. `--missing LANGUAGE` prints what is to be
translated, as JSON from the English text to nothing, and `--add LANGUAGE FILE` takes that back with translations.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .pack import ROOT

FOLDER, WEB = ROOT / "locales", ROOT / "web"
LANGUAGES = ("zh", "ja", "ko", "fr", "es")
"""All but English."""

Tree = dict[str, Any]
"""Texts by keys of one or more levels."""

# In JavaScript: "text", and t("text").
STRING = r'"((?:[^"\\]|\\.)*)"'
TEXT = re.compile(rf"(?<![\w.$])t\(\s*{STRING}")
# What ComfyUI translates by its id: "sd3local.…" and what is said beside it.
DECLARED = re.compile(r'id: "(sd3local\.[^"]+)"')
SAID = re.compile(rf"\b(label|menubarLabel|name|tooltip): {STRING}")
CATEGORY = re.compile(r'category: \["SD3 Local", "([^"]+)"')
# What a message of the frontend's vue-i18n would read as a link, a value or a plural.
SYNTAX = re.compile(r"[@{}|]")


def node_defs(info: Mapping[str, Any]) -> Tree:
    """The texts of the pack's nodes, of what ComfyUI says of all (/object_info)."""
    return {name: _node(said) for name, said in sorted(info.items()) if name.startswith("SD3Local")}


def _node(said: Mapping[str, Any]) -> Tree:
    inputs = {**said["input"].get("required", {}), **said["input"].get("optional", {})}
    outputs = zip(said["output_name"], said["output_tooltips"], strict=True)
    return {
        "display_name": said["display_name"],
        "description": said["description"],
        "inputs": {
            name: {"name": options["display_name"], "tooltip": options["tooltip"]}
            for name, (_, options) in inputs.items()
        },
        "outputs": {str(index): {"name": name, "tooltip": tip} for index, (name, tip) in enumerate(outputs)},
    }


def extension() -> dict[str, Tree]:
    """The texts of the editor's extension, by file: those of its own, then what ComfyUI looks up by id."""
    texts, categories, commands, settings = {}, {}, {}, {}
    for source in sources():
        code = source.read_text(encoding="utf-8")
        texts |= {text: text for text in map(_unquoted, TEXT.findall(code))}
        categories |= {name: name for name in CATEGORY.findall(code)}
        _, *declared = DECLARED.split(code)
        for name, following in zip(declared[::2], declared[1::2], strict=True):
            # Texts are said before what is done.
            beside = re.split(r"=>|\bfunction\b", following, maxsplit=1)[0]
            said = {key: escaped(_unquoted(text)) for key, text in SAID.findall(beside)}
            key = name.replace(".", "_")
            if "label" in said:
                commands[key] = said
            elif "name" in said:
                settings[key] = said
    main = {"sd3local": dict(sorted(texts.items()))}
    if categories:
        main["settingsCategories"] = dict(sorted(categories.items()))
    return {"main": main, "commands": commands, "settings": settings}


def sources() -> list[Path]:
    """The extension's JavaScript."""
    return sorted(path for path in WEB.rglob("*js") if path.suffix in (".js", ".mjs"))


def _unquoted(text: str) -> str:
    return json.loads(f'"{text}"')


def escaped(text: str) -> str:
    """As vue-i18n wants a text that is no message with values."""
    return SYNTAX.sub(lambda found: f"{{'{found.group()}'}}", text)


def read(language: str) -> dict[str, Tree]:
    """The texts of a language as they are stored, by file."""
    paths = sorted((FOLDER / language).glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def write(language: str, files: Mapping[str, Tree]) -> None:
    """Stores a language's texts; a file without any is not there."""
    for name, texts in files.items():
        path = FOLDER / language / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if texts:
            path.write_text(json.dumps(texts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        else:
            path.unlink(missing_ok=True)


def flat(tree: Tree, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text with its keys."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, (*keys, key))
        else:
            yield (*keys, key), value


def translated(english: Tree, at: Mapping[tuple[str, ...], str], of: Mapping[str, str]) -> Tree:
    """`english` in another language: what stands at the same keys, else what the same text is elsewhere."""

    def inner(tree: Tree, keys: tuple[str, ...]) -> Tree:
        made = {}
        for key, value in tree.items():
            here = (*keys, key)
            said = inner(value, here) if isinstance(value, dict) else at.get(here, of.get(value))
            if said:
                made[key] = said
        return made

    return inner(english, ())


def carry(language: str, before: Tree, now: Tree, given: Mapping[str, str] | None = None) -> None:
    """Writes a language anew, for the English texts `now`: what is `given` for one, else its own.

    `before` are the English texts that its own ones were made for.
    """
    given = given or {}
    old, new, theirs = dict(flat(before)), dict(flat(now)), dict(flat(read(language)))
    kept = {keys: text for keys, text in theirs.items() if old.get(keys) == new.get(keys) not in given}
    of = {old[keys]: text for keys, text in theirs.items() if keys in old}
    write(language, translated(now, kept, {**of, **given}))


def missing(language: str) -> dict[str, str]:
    """English text -> nothing, for each that the language has not."""
    theirs = dict(flat(read(language)))
    return {text: "" for keys, text in flat(read("en")) if keys not in theirs}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.locales", description=__doc__)
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument("--missing", metavar="LANGUAGE", choices=LANGUAGES)
    wanted.add_argument("--add", nargs=2, metavar=("LANGUAGE", "FILE"))
    options = parser.parse_args()
    if options.missing:
        print(json.dumps(missing(options.missing), indent=2, ensure_ascii=False))
        return
    english = read("en")
    if options.add:
        language, file = options.add
        if language not in LANGUAGES:
            parser.error(f"LANGUAGE is {language!r}; it must be one of {', '.join(LANGUAGES)}.")
        given = json.loads(Path(file).read_text(encoding="utf-8"))
        if unknown := given.keys() - {text for _, text in flat(english)}:
            parser.error(f"FILE translates what is not said: {sorted(unknown)}")
        carry(language, english, english, given)
    else:
        from tests.comfy_host import ComfyHost

        with tempfile.TemporaryDirectory() as base, ComfyHost(Path(base)) as host:
            now = {**extension(), "nodeDefs": node_defs(host.object_info())}
        for language in LANGUAGES:
            carry(language, english, now)
        write("en", now)
    for language in LANGUAGES:
        print(f"{language}: {len(missing(language))} texts to be translated")


if __name__ == "__main__":
    main()
