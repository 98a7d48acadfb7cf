"""LoRAs, small changes of a model's weights (Hu et al. 2021, https://arxiv.org/abs/2106.09685), in any form."""

from .file import Adapter, LoraFile, Parser
from .run import Loras, check_loras

__all__ = ["Adapter", "LoraFile", "Loras", "Parser", "check_loras"]
