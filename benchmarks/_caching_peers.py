"""The caches of others, on the pack's engine: cache-dit, and First Block Cache as it was published."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from ._caching_methods import Method, Painter

# (warm-up steps, most cached steps in a row) -> thresholds. The first are those its author uses, which end before
# three times fewer FLOPs; the second go on.
CACHE_DIT_SETTINGS = {(4, 3): (0.08, 0.12, 0.2, 0.35), (2, 5): (0.2, 0.35, 0.6)}
FIRST_BLOCK_THRESHOLDS = (0.08, 0.12, 0.16, 0.2, 0.25, 0.35)


def cache_dit(painter: Painter) -> Iterator[Method]:
    """cache-dit's DBCache with one first block and none at the end (F1B0), alone and with its TaylorSeer.

    `painter` is for it alone, because its `disable_cache` leaves a forward of its own on the transformer.
    """
    # Read when it is first imported; it logs a page for each run.
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")
    for name, forecasts in (("cache-dit", False), ("cache-dit, TaylorSeer", True)):
        for (warmup, most), thresholds in CACHE_DIT_SETTINGS.items():
            for threshold in thresholds:
                installed = partial(_cache_dit, forecasts, warmup, most, threshold)
                paint = partial(painter.paint, installed=installed)
                yield Method(name, f"F1B0 W{warmup} MC{most} R{threshold:g}", paint)


@contextmanager
def _cache_dit(
    forecasts: bool, warmup: int, most: int, threshold: float, transformer: torch.nn.Module
) -> Iterator[None]:
    import cache_dit

    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        max_warmup_steps=warmup,
        max_continuous_cached_steps=most,
        residual_diff_threshold=threshold,
    )
    calibrator = None
    if forecasts:
        # Its forecast of the text stream fails on SD3, whose last block has none.
        calibrator = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=1, enable_encoder_calibrator=False)
    adapter = cache_dit.BlockAdapter(
        transformer=transformer,
        blocks=transformer.transformer_blocks,
        forward_pattern=cache_dit.ForwardPattern.Pattern_1,
    )
    cache_dit.enable_cache(adapter, cache_config=config, calibrator_config=calibrator)
    try:
        # Without it, a run is served from the one before.
        cache_dit.refresh_context(transformer, cache_config=config, calibrator_config=calibrator)
        yield
    finally:
        cache_dit.disable_cache(adapter)


def first_block_cache(painter: Painter) -> Iterator[Method]:
    for threshold in FIRST_BLOCK_THRESHOLDS:
        paint = partial(painter.paint, installed=partial(_first_block_cache, threshold))
        yield Method("First Block Cache", f"threshold {threshold:g}", paint)


@contextmanager
def _first_block_cache(threshold: float, transformer: torch.nn.Module) -> Iterator[None]:
    blocks = transformer.transformer_blocks
    transformer.transformer_blocks = torch.nn.ModuleList([_FirstBlockCache(blocks, threshold)])
    try:
        yield
    finally:
        transformer.transformer_blocks = blocks


class _FirstBlockCache(torch.nn.Module):
    """All blocks of a transformer as one, by the rule that ParaAttention published.

    When the first block's residual differs by less than `threshold` of its mean size, over the whole batch, from that
    of the last computed step, the other blocks are replaced by what they added then. Nothing else limits it.
    """

    context_pre_only = True

    def __init__(self, blocks: torch.nn.ModuleList, threshold: float):
        super().__init__()
        self.first, *self.others = blocks
        self._threshold = threshold
        self._residual: torch.Tensor | None = None
        self._added = torch.empty(0)

    def forward(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **given: object
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        text, first = self.first(hidden_states=hidden_states, encoder_hidden_states=encoder_hidden_states, **given)
        residual, last = first - hidden_states, self._residual
        if last is not None and ((last - residual).abs().mean() / last.abs().mean()).item() < self._threshold:
            return None, first + self._added
        hidden = first
        for block in self.others:
            text, hidden = block(hidden_states=hidden, encoder_hidden_states=text, **given)
        self._residual, self._added = residual, hidden - first
        return text, hidden
