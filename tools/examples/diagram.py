"""A graph as a picture: the thumbnail of a workflow whose own pictures the embedded model can't paint."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageColor, ImageDraw, ImageFont

SIDE, MARGIN, GRAPH = 512, 28, 250
BACKGROUND, NODE, TITLE_BAR, WORDS, DIM = "#1b1b1f", "#3b3b42", "#50505a", "#e4e4ea", "#9a9aa6"
LINK, GROUP = "#b39ddb", 0.35
TEXT_SIZE, CAPTION_SIZE, WRAP, LINES = 25, 21, 38, 5


def diagram(workflow: Mapping[str, Any], words: str, caption: str) -> Image.Image:
    """The groups, nodes and links of `workflow` as they stand, and below them the beginning of `words`, a prompt."""
    picture = Image.new("RGB", (SIDE, SIDE), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    _graph(draw, workflow)
    lines = textwrap.wrap(words, WRAP, max_lines=LINES, placeholder=" ...")
    font = ImageFont.load_default(TEXT_SIZE)
    draw.multiline_text((MARGIN, GRAPH + MARGIN), "\n".join(lines), WORDS, font, spacing=9)
    draw.text((MARGIN, SIDE - MARGIN), caption, DIM, ImageFont.load_default(CAPTION_SIZE), anchor="ls")
    return picture


def _graph(draw: ImageDraw.ImageDraw, workflow: Mapping[str, Any]) -> None:
    boxes = [group["bounding"] for group in workflow["groups"]]
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    scale = min((SIDE - 2 * MARGIN) / (right - left), (GRAPH - MARGIN) / (bottom - top))

    indent = (SIDE - (right - left) * scale) / 2

    def at(x: float, y: float) -> tuple[float, float]:
        return indent + (x - left) * scale, MARGIN + (y - top) * scale

    for group in workflow["groups"]:
        x, y, width, height = group["bounding"]
        color = tuple(round(GROUP * part) for part in ImageColor.getrgb(group["color"]))
        draw.rectangle((at(x, y), at(x + width, y + height)), color, group["color"])
    nodes = {node["id"]: node for node in workflow["nodes"] if node["type"] != "MarkdownNote"}
    for node in nodes.values():
        (x, y), (width, height) = node["pos"], node["size"]
        draw.rounded_rectangle((at(x, y - 30), at(x + width, y + height)), 4, NODE)
        draw.rounded_rectangle((at(x, y - 30), at(x + width, y + 10)), 4, TITLE_BAR)
    for _, origin, origin_slot, target, target_slot, _ in workflow["links"]:
        start, end = nodes[origin], nodes[target]
        begin = (start["pos"][0] + start["size"][0], start["pos"][1] + 20 * (origin_slot + 1))
        draw.line((at(*begin), at(end["pos"][0], end["pos"][1] + 20 * (target_slot + 1))), LINK, 2)
