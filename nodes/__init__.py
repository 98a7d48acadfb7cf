"""The pack's nodes, one feature a file."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .accelerator import SD3LocalAccelerator
from .calibrate import SD3LocalCalibrate
from .compare import SD3LocalCompare
from .controlnet import SD3LocalControlNet
from .delivery import SD3LocalDelivery
from .face_fix import SD3LocalFaceFix
from .inputs import SD3LocalInputs
from .ip_adapter import SD3LocalIPAdapter
from .lora import SD3LocalLora
from .model import SD3LocalModel
from .native_accelerator import SD3LocalNativeAccelerator
from .outpaint import SD3LocalOutpaint
from .picture import SD3LocalPicture
from .prompt import SD3LocalPrompt
from .safety import SD3LocalSafety
from .sampler import SD3LocalSampler


class SD3LocalExtension(ComfyExtension):
    """What ComfyUI takes from the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            SD3LocalModel,
            SD3LocalPrompt,
            SD3LocalPicture,
            SD3LocalInputs,
            SD3LocalOutpaint,
            SD3LocalLora,
            SD3LocalControlNet,
            SD3LocalIPAdapter,
            SD3LocalAccelerator,
            SD3LocalNativeAccelerator,
            SD3LocalCalibrate,
            SD3LocalFaceFix,
            SD3LocalSafety,
            SD3LocalSampler,
            SD3LocalDelivery,
            SD3LocalCompare,
        ]
