"""A Stable Diffusion 3 checkpoint whose components are read when they are first needed."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from . import pixels
from .errors import RequestError
from .loading import ModelFiles, Source, inspect_model, load_clip, load_t5, load_transformer, load_vae
from .monitor import Monitor
from .placement import Placement, Precision, Resident, when_full

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from .text import Conditioning, TextEncoders, TokenizerFiles

TEXT_ACTIVATIONS = 512 * 2**20
"""Bytes that a text encoder may need beside its weights: T5-XXL on a prompt of a thousand tokens takes about half of
it.
"""


class TextWeights(Protocol):
    """Weights of the text encoders that are not the files' own. Different weights have different keys."""

    key: Hashable

    def applied(self, kind: str, resident: Resident) -> AbstractContextManager[Any]:
        """The encoder of `kind` (clip_l, clip_g, t5), which is on its device, has these weights inside the context."""
        ...


class Model:
    """The components of one checkpoint, under one placement.

    Made from headers alone, so a wrong file is refused at once and nothing large is read. Components stay for as long
    as this object lives, and so do the conditionings of recent prompts: an unchanged prompt needs no text encoder.
    `calibrations` is the folder of the user's own results of SD3 Calibrate, which accelerators look into.
    """

    def __init__(
        self, files: ModelFiles, tokenizers: TokenizerFiles, placement: Placement, calibrations: Path | None = None
    ):
        self.plan = inspect_model(files)
        self.reading_seconds = 0.0
        self._tokenizers = tokenizers
        self.placement = placement
        self.calibrations = calibrations
        self._residents: dict[str, Resident] = {}
        self._encoders: TextEncoders | None = None

    @property
    def has_text_encoder(self) -> bool:
        return any((self.plan.clip_l, self.plan.clip_g, self.plan.t5))

    def transformer(self) -> Resident:
        """The denoiser, diffusers' SD3Transformer2DModel."""
        return self._resident(self.plan.transformer)

    def vae(self) -> Resident:
        """diffusers' AutoencoderKL. Only for a plan that has one."""
        assert self.plan.vae is not None
        return self._resident(self.plan.vae)

    def text_encoders(self) -> TextEncoders:
        """Those of CLIP-L, CLIP-G and T5 that the plan has, with the conditionings they remember."""
        if self._encoders is None:
            from .text import TextEncoders, Tokenizers

            plan = self.plan
            sources = [source for source in (plan.clip_l, plan.clip_g, plan.t5) if source is not None]
            self._encoders = TextEncoders(
                Tokenizers(self._tokenizers),
                context_width=plan.context_width,
                pooled_width=plan.pooled_width,
                **{source.kind: self._resident(source).module for source in sources},
            )
        return self._encoders

    def encode(
        self, prompts: Sequence[str], clip_skip: int, monitor: Monitor, adapted: TextWeights | None = None
    ) -> list[Conditioning]:
        """The conditioning of each prompt, from encoders whose weights are `adapted` meanwhile. Raises RequestError for
        a clip skip that the encoders have too few layers for.
        """
        encoders = self.text_encoders()
        places = {id(resident.module): (kind, resident) for kind, resident in self._residents.items()}

        def encode(streamed: bool) -> list[Conditioning]:
            @contextmanager
            def place(module: torch.nn.Module) -> Iterator[None]:
                monitor.check()
                kind, resident = places[id(module)]
                with (
                    resident.on_device(TEXT_ACTIVATIONS, streamed=streamed),
                    nullcontext() if adapted is None else adapted.applied(kind, resident),
                ):
                    yield

            variant = None if adapted is None else adapted.key
            return encoders.encode(prompts, clip_skip, place=place, variant=variant)

        return when_full(
            encode, lambda: memory_is_full("the text encoders", "use smaller ones, such as T5-XXL in fp8")
        )[0]

    def decode(self, latent: torch.Tensor, monitor: Monitor) -> torch.Tensor:
        """The picture [8 h, 8 w, 3], float32 from 0 to 1, of a latent [1, 16, h, w] in the VAE's own space."""
        return pixels.decode(self.vae(), latent, monitor)

    def encode_picture(self, picture: torch.Tensor, monitor: Monitor) -> torch.Tensor:
        """The latent [1, 16, h, w], float32 in the VAE's own space, of a picture [8 h, 8 w, 3] from 0 to 1."""
        return pixels.encode(self.vae(), picture, monitor)

    def _resident(self, source: Source) -> Resident:
        if source.kind not in self._residents:
            started = time.perf_counter()
            precision = self.placement.precision(source.kind, source.dtype, source.parameters)
            self._residents[source.kind] = self.placement.adopt(source.kind, _load(source, precision))
            self.reading_seconds += time.perf_counter() - started
        return self._residents[source.kind]


def _load(source: Source, precision: Precision) -> torch.nn.Module:
    if source.kind == "vae":
        return load_vae(source, compute=precision.compute)
    load = {"transformer": load_transformer, "t5": load_t5}.get(source.kind, load_clip)
    return load(source, storage=precision.storage, compute=precision.compute)


def memory_is_full(what: str, advice: str) -> RequestError:
    """The error of a run that did not fit, not even in its cheaper form."""
    return RequestError(
        "insufficientMemory", f"There is not enough memory for {what}, not even layer by layer: {advice}.", "model"
    )
