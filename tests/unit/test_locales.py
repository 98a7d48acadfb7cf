"""The editor's texts: every language has all of them, and says the same.

That the nodes' English texts are what the nodes say now is looked at where a host runs (tests/host/test_widgets.py).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.locales import FOLDER, LANGUAGES, SYNTAX, TEXT, Tree, escaped, extension, flat, node_defs, read, sources

MEND = "`python -m tools.locales` mends this"
VALUE = re.compile(r"\{\w+\}")
# Names that stay as they are in every language: those of the API, of files, and what is written in figures.
EXACT = re.compile(
    r"\b[a-z]+(?:[A-Z]+[a-z]*)+\b|\b[a-z]+_\w+|\bnano-\w+|\bsd3-nano\b|\bHTTP \w+|(?<![\w.])\d+\.\d+", re.ASCII
)


def texts(language: str) -> dict[tuple[str, ...], str]:
    return dict(flat(read(language)))


def test_there_is_a_folder_for_each_language() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {"en", *LANGUAGES}


@pytest.mark.parametrize("name", ["main", "commands", "settings"])
def test_english_is_what_the_extension_says(name: str) -> None:
    assert read("en").get(name, {}) == extension()[name], MEND


@pytest.mark.parametrize("source", sources(), ids=lambda path: path.name)
def test_texts_stand_where_they_are_found(source: Path) -> None:
    code = re.sub(r"/\*.*?\*/|//.*", "", source.read_text(encoding="utf-8"), flags=re.DOTALL)
    calls = re.findall(r"(?<!function )(?<![\w.$])t\(", code)
    assert len(calls) == len(TEXT.findall(code)), "t() takes one text in double quotes, so that it can be translated"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_exactly_the_english_texts(language: str) -> None:
    english, theirs = texts("en"), texts(language)
    assert theirs.keys() - english.keys() == set(), MEND
    missing = {english[key] for key in english.keys() - theirs.keys()}
    assert not missing, f"`python -m tools.locales --missing {language}` prints them"
    assert all(text.strip() for text in theirs.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_keeps_values_names_and_fractions(language: str) -> None:
    theirs = texts(language)
    for key, english in texts("en").items():
        said = theirs.get(key, english)
        assert sorted(VALUE.findall(said)) == sorted(VALUE.findall(english)), said
        if key[-1] != "name":  # which may be a friendlier one
            assert set(EXACT.findall(english)) <= set(EXACT.findall(said)), said


@pytest.mark.parametrize("language", ["en", *LANGUAGES])
def test_the_frontend_reads_no_message_syntax_into_texts(language: str) -> None:
    for name, tree in read(language).items():
        for key, text in flat(tree):
            if name != "main" or key[0] != "sd3local":  # the extension's own texts don't pass through vue-i18n
                assert not SYNTAX.search(re.sub(r"\{'[@{}|]'\}", "", text)), text
            assert "." not in "".join(key) or key[0] == "sd3local"


def test_message_syntax_is_escaped() -> None:
    assert escaped("runware:5@1 | {a}") == "runware:5{'@'}1 {'|'} {'{'}a{'}'}"


def test_a_node_s_texts_have_the_frontend_s_keys() -> None:
    said: Tree = {
        "display_name": "A",
        "description": "B",
        "input": {
            "required": {"x": ["INT", {"display_name": "C", "tooltip": "D"}]},
            "optional": {"y": ["IMAGE", {"display_name": "E", "tooltip": "F"}]},
            "hidden": {"z": ["UNIQUE_ID"]},
        },
        "output_name": ["G"],
        "output_tooltips": ["H"],
    }
    assert node_defs({"KSampler": {}, "SD3LocalA": said}) == {
        "SD3LocalA": {
            "display_name": "A",
            "description": "B",
            "inputs": {"x": {"name": "C", "tooltip": "D"}, "y": {"name": "E", "tooltip": "F"}},
            "outputs": {"0": {"name": "G", "tooltip": "H"}},
        }
    }
