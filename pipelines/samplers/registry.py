"""The API's scheduler names, each a sampler on a sigma schedule.

Where a name means something on a flow, that is what runs. A suffix Karras, Exponential or Beta picks the schedule;
without one, Euler keeps the reference list of Stable Diffusion 3, and every other solver gets "simple", whose last step
is a whole one: solvers that interpolate in log-SNR overshoot on the reference list's tiny last sigma.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from ..errors import RequestError
from ..scheduler_names import DEFAULT_SCHEDULER, SCHEDULER_NAMES, UNSUPPORTED_SCHEDULERS
from .ancestral import dpm2_ancestral, euler_ancestral
from .consistency import lcm, tcd
from .dpmpp import ddpm, dpmpp_2m, dpmpp_2m_sde, dpmpp_2s, dpmpp_3m, dpmpp_3m_sde, dpmpp_sde
from .multistep import deis, ipndm, lms
from .singlestep import dpm2, euler, heun
from .types import Sampler
from .unipc import unipc_2m, unipc_3m


@dataclass(frozen=True)
class Scheduler:
    """One scheduler name.

    `schedule` names its sigma list, as `sigmas` takes it. `order` is the power of the step size by which the error
    falls where steps change smoothly and are small at both ends; for stochastic samplers it is that of the
    distribution, and 0 stands for those that do not converge. `evaluations` is the most model calls a step makes.
    `notice` is a sentence for the run's report where the name does not say all, else empty.
    """

    name: str
    sampler: Sampler
    schedule: str
    order: int
    stochastic: bool
    evaluations: int
    notice: str = ""


class _Solver(NamedTuple):
    sampler: Sampler
    order: int
    evaluations: int = 1
    stochastic: bool = False


EULER = _Solver(euler, 1)
HEUN = _Solver(heun, 2, evaluations=2)
DPM2 = _Solver(dpm2, 2, evaluations=2)
LMS = _Solver(lms, 4)
IPNDM = _Solver(ipndm, 2)
DEIS = _Solver(deis, 3)
DPMPP_2M = _Solver(dpmpp_2m, 2)
DPMPP_3M = _Solver(dpmpp_3m, 2)
DPMPP_2S = _Solver(dpmpp_2s, 2, evaluations=2)
# The corrector adds one to the order that the names give.
UNIPC_2M = _Solver(unipc_2m, 3)
UNIPC_3M = _Solver(unipc_3m, 4)
EULER_ANCESTRAL = _Solver(euler_ancestral, 1, stochastic=True)
DPM2_ANCESTRAL = _Solver(dpm2_ancestral, 1, evaluations=2, stochastic=True)
DDPM = _Solver(ddpm, 1, stochastic=True)
DPMPP_2M_SDE = _Solver(dpmpp_2m_sde, 1, stochastic=True)
DPMPP_3M_SDE = _Solver(dpmpp_3m_sde, 1, stochastic=True)
DPMPP_SDE = _Solver(dpmpp_sde, 1, evaluations=2, stochastic=True)
LCM = _Solver(lcm, 0, stochastic=True)
TCD = _Solver(tcd, 0, stochastic=True)

DISTILLED = (
    "{name} is made for models and LoRAs that were distilled for a few steps; with an ordinary model its "
    "pictures lack detail and variety, however many steps are taken."
)
EDM = "EDM's preconditioning does not apply to a flow model; for {name}, {solver} runs on the Karras schedule."
NO_ORDER = "{name} does not say which DPM++ it means; DPM++ 2S runs, which calls the model twice a step."
NO_UNIFORM = "{name} names two schedules; {schedule} is used, Uniform has no meaning beside it."

_TABLE: tuple[tuple[_Solver, str, tuple[str, ...], str], ...] = (
    (EULER, "default", ("Default", "Euler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"), ""),
    (EULER, "simple", ("DDIM", "DDIMScheduler"), ""),
    (EULER, "beta", ("Euler Beta",), ""),
    (EULER, "exponential", ("Euler Exponential",), ""),
    (EULER, "karras", ("Euler Karras",), ""),
    (EULER, "karras", ("EDMEulerScheduler",), EDM.replace("{solver}", "Euler")),
    (HEUN, "simple", ("Heun", "HeunDiscreteScheduler"), ""),
    (HEUN, "karras", ("Heun Karras",), ""),
    (DPM2, "simple", ("KDPM2DiscreteScheduler",), ""),
    (LMS, "simple", ("LMS", "LMSDiscreteScheduler"), ""),
    (LMS, "karras", ("LMS Karras",), ""),
    (IPNDM, "simple", ("IPNDMScheduler", "IPNDM Uniform", "PNDMScheduler"), ""),
    (IPNDM, "beta", ("IPNDM Uniform Beta",), NO_UNIFORM),
    (IPNDM, "exponential", ("IPNDM Uniform Exponential",), NO_UNIFORM),
    (IPNDM, "karras", ("IPNDM Uniform Karras",), NO_UNIFORM),
    (DEIS, "simple", ("DEISMultistepScheduler",), ""),
    (DPMPP_2M, "simple", ("DPM++ 2M", "DPM++ 2M Uniform", "DPMSolverMultistepScheduler"), ""),
    (DPMPP_2M, "beta", ("DPM++ 2M Beta",), ""),
    (DPMPP_2M, "exponential", ("DPM++ 2M Exponential",), ""),
    (DPMPP_2M, "karras", ("DPM++ 2M Karras",), ""),
    (DPMPP_2M, "karras", ("EDMDPMSolverMultistepScheduler",), EDM.replace("{solver}", "DPM++ 2M")),
    (DPMPP_3M, "simple", ("DPM++ 3M", "DPM++ 3M Uniform"), ""),
    (DPMPP_3M, "beta", ("DPM++ 3M Beta",), ""),
    (DPMPP_3M, "exponential", ("DPM++ 3M Exponential",), ""),
    (DPMPP_3M, "karras", ("DPM++ 3M Karras",), ""),
    (DPMPP_2S, "simple", ("DPM++", "DPM++ Uniform"), NO_ORDER),
    (DPMPP_2S, "simple", ("DPMSolverSinglestepScheduler",), ""),
    (DPMPP_2S, "beta", ("DPM++ Beta",), NO_ORDER),
    (DPMPP_2S, "exponential", ("DPM++ Exponential",), NO_ORDER),
    (DPMPP_2S, "karras", ("DPM++ Karras",), NO_ORDER),
    (DPMPP_2S, "beta", ("DPM++ Uniform Beta",), f"{NO_ORDER} {NO_UNIFORM}"),
    (DPMPP_2S, "exponential", ("DPM++ Uniform Exponential",), f"{NO_ORDER} {NO_UNIFORM}"),
    (DPMPP_2S, "karras", ("DPM++ Uniform Karras",), f"{NO_ORDER} {NO_UNIFORM}"),
    (UNIPC_2M, "simple", ("UniPC", "UniPC 2M", "UniPC Uniform", "UniPC 2M Uniform"), ""),
    (UNIPC_2M, "karras", ("UniPC Karras", "UniPC 2M Karras"), ""),
    (UNIPC_2M, "beta", ("UniPC Uniform Beta",), NO_UNIFORM),
    (UNIPC_2M, "exponential", ("UniPC Uniform Exponential",), NO_UNIFORM),
    (UNIPC_2M, "karras", ("UniPC Uniform Karras",), NO_UNIFORM),
    (UNIPC_3M, "simple", ("UniPC 3M", "UniPC 3M Uniform"), ""),
    (UNIPC_3M, "karras", ("UniPC 3M Karras",), ""),
    (DPMPP_2M_SDE, "simple", ("DPM++ 2M SDE", "DPM++ 2M SDE Uniform"), ""),
    (DPMPP_2M_SDE, "beta", ("DPM++ 2M SDE Beta",), ""),
    (DPMPP_2M_SDE, "exponential", ("DPM++ 2M SDE Exponential",), ""),
    (DPMPP_2M_SDE, "karras", ("DPM++ 2M SDE Karras",), ""),
    (DPMPP_3M_SDE, "simple", ("DPM++ 3M SDE Uniform",), ""),
    (DPMPP_SDE, "simple", ("DPM++ SDE",), ""),
    (DPMPP_SDE, "beta", ("DPM++ SDE Beta",), ""),
    (DPMPP_SDE, "exponential", ("DPM++ SDE Exponential",), ""),
    (DPMPP_SDE, "karras", ("DPM++ SDE Karras",), ""),
    (EULER_ANCESTRAL, "simple", ("Euler a", "EulerAncestralDiscreteScheduler"), ""),
    (DPM2_ANCESTRAL, "simple", ("KDPM2AncestralDiscreteScheduler",), ""),
    (DDPM, "simple", ("DDPMScheduler",), ""),
    (LCM, "simple", ("LCM", "LCMScheduler"), DISTILLED),
    (TCD, "simple", ("TCDScheduler",), DISTILLED),
)


def _scheduler(solver: _Solver, schedule: str, name: str, notice: str) -> Scheduler:
    return Scheduler(
        name=name,
        sampler=solver.sampler,
        schedule=schedule,
        order=solver.order,
        stochastic=solver.stochastic,
        evaluations=solver.evaluations,
        notice=notice.format(name=name, schedule=schedule.capitalize()),
    )


SCHEDULERS: Mapping[str, Scheduler] = MappingProxyType(
    {name: _scheduler(solver, schedule, name, notice) for solver, schedule, names, notice in _TABLE for name in names}
)
"""The names that run: all of the API's but those in UNSUPPORTED_SCHEDULERS."""


def scheduler(name: str | None) -> Scheduler:
    """The scheduler called `name`; None means "Default".

    Raises RequestError: unsupportedScheduler for a name of the API's that cannot run, invalidScheduler for any other.
    """
    name = DEFAULT_SCHEDULER if name is None else name
    if name in SCHEDULERS:
        return SCHEDULERS[name]
    allowed = [known for known in SCHEDULER_NAMES if known in SCHEDULERS]
    if name in UNSUPPORTED_SCHEDULERS:
        message = f"{name} can't be used: {UNSUPPORTED_SCHEDULERS[name]}; choose another, such as DPM++ 2M."
        raise RequestError("unsupportedScheduler", message, "scheduler", allowedValues=allowed)
    shown = name if len(name) <= 80 else f"{name[:80]}..."
    message = (
        f"There is no scheduler {shown!r}; choose one of the {len(allowed)} known ones, such as Default or DPM++ 2M."
    )
    raise RequestError("invalidScheduler", message, "scheduler", allowedValues=allowed)
