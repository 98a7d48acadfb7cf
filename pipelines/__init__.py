"""The engine: a request in, images out. Nothing here knows of ComfyUI."""
