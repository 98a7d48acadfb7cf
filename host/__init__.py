"""The only code that knows ComfyUI's insides: memory, folders, progress and previews."""
