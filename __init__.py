"""SD3 Local: Stable Diffusion 3 with every option of the hosted API, as ComfyUI nodes."""

from __future__ import annotations

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """What ComfyUI calls to get the pack's nodes."""
    from .api.routes import register
    from .nodes import SD3LocalExtension

    register()
    return SD3LocalExtension()
