"""ControlNets: a guide image leads the structure of the picture.

A net is a small copy of the transformer that sees the guide image beside the noisy latents, and whose results are
added to the transformer's hidden states (Zhang et al. 2023, https://arxiv.org/abs/2302.05543).
"""

from .check import check_control_nets
from .feature import residual_of
from .file import ControlNetFile
from .keys import ControlNetShape
from .run import ControlNets

__all__ = ["ControlNetFile", "ControlNetShape", "ControlNets", "check_control_nets", "residual_of"]
