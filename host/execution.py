"""The run that a node is executed in."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context


def prompt_id() -> str | None:
    """The id under which ComfyUI queued the graph whose node is being executed; None outside of a run."""
    context = get_executing_context()
    return context.prompt_id if context is not None else None


def tell(event: str, data: Mapping[str, Any]) -> None:
    """Sends the browser that queued the run an event about the node that is being executed, as `node` in `data`."""
    server, context = _server(), get_executing_context()
    if server is None or context is None or server.client_id is None:
        return
    # A node that another one was expanded to is shown in its place.
    node = get_progress_state().dynprompt.get_display_node_id(context.node_id)
    server.send_sync(event, {"node": node, "prompt_id": context.prompt_id, **data}, server.client_id)


def refuses_previews() -> bool:
    """Whether the user said that there are to be no previews, rather than left ComfyUI's default as it is."""
    if any(argument.partition("=")[0] == "--preview-method" for argument in sys.argv):
        return True
    # Newer editors send what is set in them with each run.
    server = _server()
    running = server.prompt_queue.get_current_queue_volatile()[0] if server is not None else []
    return any(item[3].get("preview_method") == "none" for item in running if item[1] == prompt_id())


def _server() -> Any:
    """ComfyUI's server; None where there is none, such as in a test of one part."""
    module = sys.modules.get("server")
    return getattr(getattr(module, "PromptServer", None), "instance", None)
