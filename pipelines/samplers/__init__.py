"""Samplers, sigma schedules and noise: what a request's scheduler, steps and seed stand for."""

from .noise import NoiseStream, initial_noise
from .registry import SCHEDULERS, Scheduler, scheduler
from .schedules import sigmas
from .types import Model, Noise, Sampler

__all__ = [
    "SCHEDULERS",
    "Model",
    "Noise",
    "NoiseStream",
    "Sampler",
    "Scheduler",
    "initial_noise",
    "scheduler",
    "sigmas",
]
