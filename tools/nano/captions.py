"""What is said about a scene: the full caption, other word orders, and shorter forms that leave choices free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .world import PALETTE, POSITIONS, SUBJECTS, Scene

FULL = "{a} {colour} {subject} {position}, {background} background"

# Article "{a}" stands before a colour and follows it; "{n}" stands before a subject.
REORDERED = (
    "{background} background with {a} {colour} {subject} {position}",
    "{background} background, {a} {colour} {subject} {position}",
    "{a} {colour} {subject} {position} on {b} {background} background",
    "{position} {a} {colour} {subject}, {background} background",
    "{colour} {subject}, {position}, {background} background",
    "a picture of {a} {colour} {subject} {position}, {background} background",
)
SHORT = (
    "{a} {colour} {subject} {position}",
    "{a} {colour} {subject}, {background} background",
    "{a} {colour} {subject} on {b} {background} background",
    "{background} background with {a} {colour} {subject}",
    "{background} background with a {subject}",
    "{background} background with a {subject} {position}",
    "a {subject} {position}, {background} background",
    "a {subject}, {background} background",
    "{a} {colour} {subject}",
    "{colour} {subject}",
    "a {subject} {position}",
    "a picture of a {subject}",
    "a {subject}",
    "{subject}",
    "{colour}",
    "{position}",
    "{background} background",
    "a picture",
)
EMPTY_SHARE, FULL_SHARE, REORDERED_SHARE = 0.1, 0.45, 0.2


@dataclass(frozen=True)
class Said:
    """The attributes a caption names; None where it leaves the choice free."""

    subject: str | None = None
    colour: str | None = None
    background: str | None = None
    position: str | None = None


def _article(colour: str) -> str:
    return "an" if colour == "orange" else "a"


def fill(form: str, scene: Scene | Said, plain_article: bool = False) -> str:
    """The caption of `form` for the attributes of `scene`; `plain_article` writes "a orange" too."""
    return form.format(
        a="a" if plain_article or scene.colour is None else _article(scene.colour),
        b="a" if plain_article or scene.background is None else _article(scene.background),
        subject=scene.subject,
        colour=scene.colour,
        background=scene.background,
        position=scene.position,
    )


def said(form: str, scene: Scene | Said) -> Said:
    """Which attributes of `scene` the caption names."""
    names = ("subject", "colour", "background", "position")
    return Said(**{name: getattr(scene, name) for name in names if "{" + name + "}" in form})


def choose_form(rng: np.random.Generator) -> str:
    """A form at random, with the empty caption in a tenth of the draws, for guidance."""
    share = rng.random()
    if share < EMPTY_SHARE:
        return ""
    if share < EMPTY_SHARE + FULL_SHARE:
        return FULL
    forms = REORDERED if share < EMPTY_SHARE + FULL_SHARE + REORDERED_SHARE else SHORT
    return forms[rng.integers(len(forms))]


def full_caption(scene: Scene | Said) -> str:
    """`a red circle on the left, blue background`."""
    return fill(FULL, scene)


def every_caption() -> dict[str, Said]:
    """All captions of all forms, each with what it names."""
    found: dict[str, Said] = {"": Said()}
    for form in (FULL, *REORDERED, *SHORT):
        for subject in SUBJECTS:
            for colour in PALETTE:
                for background in PALETTE:
                    if colour == background:
                        continue
                    for position in POSITIONS:
                        scene = Said(subject, colour, background, position)
                        found[fill(form, scene)] = said(form, scene)
                        found[fill(form, scene, plain_article=True)] = said(form, scene)
    return found
