"""ComfyUI's samplers as a cache knows them."""

from __future__ import annotations

from typing import NamedTuple

import comfy.samplers


class NativeSampling(NamedTuple):
    """A sampler's name in ComfyUI, how often it evaluates a step at most, and whether it adds noise."""

    name: str
    evaluations: int
    stochastic: bool


_STEADY = (
    *("euler", "euler_cfg_pp", "lms", "dpmpp_2m", "dpmpp_2m_cfg_pp", "ipndm", "ipndm_v", "deis"),
    *("res_multistep", "res_multistep_cfg_pp", "gradient_estimation", "gradient_estimation_cfg_pp"),
    *("uni_pc", "uni_pc_bh2"),
)
_NOISY = (
    *("euler_ancestral", "euler_ancestral_cfg_pp", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun"),
    *("dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm", "lcm"),
    *("res_multistep_ancestral", "res_multistep_ancestral_cfg_pp", "er_sde", "sa_solver"),
)
_STEADY_PAIRS = ("heun", "dpm_2")
_NOISY_PAIRS = (
    *("dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp"),
    *("dpmpp_sde", "dpmpp_sde_gpu", "seeds_2"),
)
KNOWN = tuple(
    NativeSampling(name, evaluations, stochastic)
    for names, evaluations, stochastic in (
        (_STEADY, 1, False),
        (_NOISY, 1, True),
        (_STEADY_PAIRS, 2, False),
        (_NOISY_PAIRS, 2, True),
    )
    for name in names
)
"""Not those that evaluate a step three times, choose their own steps, or evaluate twice at one sigma."""


def sampling_of(sampler: comfy.samplers.Sampler) -> NativeSampling | None:
    """What a sampler does in a step; None where nobody has looked. It is found by its function, which any node may have
    chosen.
    """
    function = getattr(sampler, "sampler_function", None)
    # Another version of the host may lack one.
    known = (known for known in KNOWN if known.name in comfy.samplers.SAMPLER_NAMES)
    return next((each for each in known if comfy.samplers.sampler_object(each.name).sampler_function is function), None)
