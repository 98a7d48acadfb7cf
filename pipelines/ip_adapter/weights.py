"""How strongly an adapter acts in each block of the transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..request import IPAdapter

LAYOUT_TYPES = ("composition", "style_and_composition", "strong_style_and_composition")
"""Weight types that treat layout apart: these blocks have the weight `weightComposition` where it is given."""

EXPERIMENTAL = (*LAYOUT_TYPES, "style_transfer", "strong_style_transfer")
"""Weight types that part style and layout, for which nothing is published on SD3's transformer."""

WEAK = 0.2


def block_weights(entry: IPAdapter, blocks: int) -> tuple[float, ...]:
    """The weight in each of `blocks` blocks, the first one first; 0 is a block in which the adapter is not run.

    With w for the adapter's weight and r for the block's relative depth, from 0 (first) to 1 (last):

    * normal: w.
    * ease_in: w (0.05 + 0.95 (1 - r)), strong at first. ease_out: w (0.05 + 0.95 r), strong at last.
      ease_in_out: w (0.05 + 0.95 (1 - |2 r - 1|)), strong in the middle.
    * weak_input, weak_middle, weak_output: 0.2 w in the first, second or last third of the blocks, w in the others.
      strong_middle: w in the second third, 0.2 w in the others.

    So ComfyUI_IPAdapter_plus has them for a UNet, whose input blocks, middle block and output blocks are the thirds.

    The rest is a heuristic of this pack. That one part of a model leads layout and another one style is known for
    UNets (InstantStyle, https://arxiv.org/abs/2404.02733: SDXL's layout block comes before its style block), and not
    published for SD3's transformer. Here the layout blocks are those with their middle in [1/6, 1/2) of the depth, the
    style blocks those in [1/2, 5/6).

    * style_transfer: w in the style blocks. strong_style_transfer: w in all blocks but the layout blocks.
    * composition: c in the layout blocks. c is `weightComposition`, or w where it is not given.
    * style_and_composition: w in the style blocks and c in the layout blocks. strong_style_and_composition: w in all
      blocks but the layout blocks, where it is c.

    A weight of 0 turns the adapter off, whatever its type.
    """
    if entry.weight == 0:
        return (0.0,) * blocks
    return tuple(_weight(entry, index, blocks) for index in range(blocks))


def _weight(entry: IPAdapter, index: int, blocks: int) -> float:
    kind, weight = entry.weight_type, entry.weight
    if kind in EXPERIMENTAL:
        # Six times the middle of the block, in blocks: whole numbers, so that no rounding moves a border.
        middle = 6 * index + 3
        if blocks <= middle < 3 * blocks:
            layout = weight if entry.weight_composition is None else entry.weight_composition
            return layout if kind in LAYOUT_TYPES else 0.0
        if kind == "composition":
            return 0.0
        return weight if kind.startswith("strong") or 3 * blocks <= middle < 5 * blocks else 0.0
    return weight * _share(kind, index, blocks)


def _share(kind: str, index: int, blocks: int) -> float:
    depth = index / (blocks - 1) if blocks > 1 else 0.5
    third = ("input", "middle", "output")[3 * index // blocks]
    match kind:
        case "ease_in":
            return 0.05 + 0.95 * (1 - depth)
        case "ease_out":
            return 0.05 + 0.95 * depth
        case "ease_in_out":
            return 0.05 + 0.95 * (1 - abs(2 * depth - 1))
        case "weak_input" | "weak_middle" | "weak_output":
            return WEAK if kind == f"weak_{third}" else 1.0
        case "strong_middle":
            return 1.0 if third == "middle" else WEAK
        case _:
            return 1.0
