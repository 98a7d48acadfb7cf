"""Step caches on ComfyUI's own SD3: put on a clone of its MODEL, and at work while that is sampled.

ComfyUI samples in nested calls. Around the outermost, a run begins and ends; a guider's call for one noise level is one
evaluation, whose calls of the model are decided alike; and in each of them the hooks of the blocks compute, keep or
foretell.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import comfy.model_base
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy.samplers import CFGGuider, Sampler

from ..caching import CacheRun, Calibration, Evaluation, Row, Seen, calibration_of, weights_hash
from ..caching.options import Technique
from ..caching.trace import Action
from ..pipelines.accelerator import cache_options, lines, technique
from ..pipelines.errors import RequestError
from ..pipelines.request import AcceleratorOptions
from . import folders
from .native_blocks import BlockHooks
from .native_samplers import sampling_of

KEY = "sd3_local"


def accelerated(model: ModelPatcher, options: AcceleratorOptions, node: str | None = None) -> ModelPatcher:
    """A clone of `model` whose sampling reuses steps as `options` say; the last of several accelerators counts.

    What was decided goes into ComfyUI's log after each run, and to the node with the id `node` in the editor. Raises
    RequestError where the model is not SD3.
    """
    if not isinstance(model.model, comfy.model_base.SD3):
        kind = type(model.model).__name__
        told = f"model is ComfyUI's {kind}, but only SD3 and SD3.5 can be accelerated here: connect a model of theirs."
        raise RequestError("unsupportedModel", told, "model")
    clone = model.clone()
    clone.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    if technique(options) is not None:
        clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _Accelerator(options, _calibration(model), node))
    return clone


def _calibration(model: ModelPatcher) -> Calibration:
    """That of the weights as the file has them, whatever another node's LoRA has made of them meanwhile."""

    def stored(name: str) -> torch.Tensor:
        name = f"diffusion_model.{name}.weight"
        kept = model.backup.get(name)
        return model.get_model_object(name) if kept is None else kept.weight

    first, last = stored("x_embedder.proj"), stored("final_layer.linear")
    # The same layers under the names of diffusers, in whose class the models are calibrated.
    layers = SimpleNamespace(
        pos_embed=SimpleNamespace(proj=SimpleNamespace(weight=first)), proj_out=SimpleNamespace(weight=last)
    )
    computing = model.model.manual_cast_dtype or model.model.get_dtype()
    return calibration_of(weights_hash(layers), str(computing).removeprefix("torch."), folder=folders.calibrations())


class _Accelerator:
    """What the clone carries: it makes a new run of each time that it is sampled, and keeps nothing of any."""

    def __init__(self, options: AcceleratorOptions, calibration: Calibration, node: str | None):
        self._options = options
        self._calibration = calibration
        self._node = node

    def __call__(
        self,
        executor: Any,
        noise: torch.Tensor,
        latent: torch.Tensor,
        sampler: Sampler,
        sigmas: torch.Tensor,
        *others: Any,
        **named: Any,
    ) -> torch.Tensor:
        guider, sampling = executor.class_obj, sampling_of(sampler)
        if sampling is None:
            self._tell("The accelerator does not know how this sampler uses its steps, so every step is computed.")
            return executor(noise, latent, sampler, sigmas, *others, **named)
        options = cache_options(self._options, self._calibration, len(sigmas) - 1)
        run = CacheRun(
            options,
            sigmas.tolist(),
            guider.model_patcher.load_device,
            evaluations=sampling.evaluations,
            stochastic=sampling.stochastic,
        )
        session = _Session(run, options.technique, guider)
        # The guider's options are a copy that it made for this run.
        hooks = guider.model_options["transformer_options"]
        add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, session.evaluate, hooks)
        add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, session.call, hooks)
        try:
            result = executor(noise, latent, sampler, sigmas, *others, **named)
        finally:
            run.close()
        self._tell("\n".join(lines(options, run.trace, self._calibration, sampling)))
        return result

    def _tell(self, text: str) -> None:
        logging.info(text)
        if self._node is not None:
            from server import PromptServer

            PromptServer.instance.send_progress_text(text, self._node)


class _Session:
    """One run: which evaluation is at work, and what was decided about it by its first call of the model."""

    def __init__(self, run: CacheRun, technique: Technique, guider: CFGGuider):
        self._run = run
        self._technique = technique
        self._guider = guider
        self._sigma: float | None = None
        self._evaluation: Evaluation | None = None
        self._row: Row | None = None
        self._calls: Counter[Hashable] = Counter()

    def evaluate(self, executor: Any, x: torch.Tensor, timestep: torch.Tensor, *others: Any, **named: Any) -> Any:
        """Around the guider's call at one sigma: the prompts, and whatever guidance asks beside them."""
        self._sigma, self._evaluation = float(timestep[0]), None
        self._calls.clear()
        try:
            return executor(x, timestep, *others, **named)
        finally:
            self._sigma = self._evaluation = None

    def call(
        self,
        executor: Any,
        x: torch.Tensor,
        t: torch.Tensor,
        c_concat: torch.Tensor | None = None,
        c_crossattn: torch.Tensor | None = None,
        control: Mapping[str, Any] | None = None,
        transformer_options: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> torch.Tensor:
        """Around one call of the model; one outside of an evaluation is computed as it is."""
        given = transformer_options or {}
        if self._sigma is None:
            return executor(x, t, c_concat, c_crossattn, control, given, **named)
        role = self._role(given, control is not None)
        with self._run.trace.timed() as note:

            def decide(seen: Seen) -> tuple[Evaluation, Action]:
                action = self._decide(role, seen)
                note(self._row)
                return self._evaluation, action

            hooks = BlockHooks(
                executor.class_obj.diffusion_model, self._technique, role, decide, given, control is not None
            )
            return executor(x, t, c_concat, c_crossattn, control, hooks.options, **named)

    def _decide(self, role: Hashable, seen: Seen) -> Action:
        if self._evaluation is not None:
            return self._evaluation.join(role, seen)
        self._evaluation = self._run.begin(self._sigma, signature(self._guider.conds, self._sigma))
        self._row = self._evaluation.decide({role: seen})
        return self._row.action

    def _role(self, given: Mapping[str, Any], controlled: bool) -> Hashable:
        """What a call is for: its conditionings, whether it is controlled, and which blocks others have replaced."""
        replaced = given.get("patches_replace", {}).get("dit", {})
        role = (
            tuple(given.get("cond_or_uncond", ())),
            tuple(given.get("uuids", ())),
            controlled,
            frozenset(replaced),
        )
        self._calls[role] += 1
        return (*role, self._calls[role])


def signature(conds: Mapping[str, Sequence[Mapping[str, Any]]], sigma: float) -> Hashable:
    """Which conditionings and which ControlNets of theirs act at `sigma`, and how strong what is hooked to them is."""
    return tuple(
        (
            kind,
            cond.get("uuid"),
            _is_within(sigma, cond.get("timestep_start"), cond.get("timestep_end")),
            tuple(_nets(cond.get("control"), sigma)),
            tuple(hook.strength for hook in cond["hooks"].hooks) if cond.get("hooks") is not None else (),
        )
        for kind, each in conds.items()
        for cond in each
    )


def _nets(control: Any, sigma: float) -> list[bool]:
    """Whether each of a chain of ControlNets acts at `sigma`."""
    act = []
    while control is not None:
        act.append(_is_within(sigma, *(control.timestep_range or (None, None))))
        control = control.previous_controlnet
    return act


def _is_within(sigma: float, start: Any, end: Any) -> bool:
    return (start is None or bool(sigma <= start)) and (end is None or bool(sigma >= end))
