"""IP-Adapters: guide images lead what the picture shows, beside the prompt.

An image encoder and a resampler make tokens of each guide image, to which the transformer's image tokens attend in
every block (Ye et al. 2023, https://arxiv.org/abs/2308.06721; for SD3: InstantX/SD3.5-Large-IP-Adapter).
"""

from .check import check_ip_adapters
from .file import IPAdapterFile, fitting_encoder
from .keys import IPAdapterShape
from .run import IPAdapters
from .vision import ImageEncoder, VisionFile, squashed

__all__ = [
    "IPAdapterFile",
    "IPAdapterShape",
    "IPAdapters",
    "ImageEncoder",
    "VisionFile",
    "check_ip_adapters",
    "fitting_encoder",
    "squashed",
]
