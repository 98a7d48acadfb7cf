"""ComfyUI's server: where it listens, and where the pack keeps what it serves."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths
from comfy.cli_args import args

if TYPE_CHECKING:
    from aiohttp import web


def data_folder() -> Path:
    """Where the pack keeps what is its own: in ComfyUI's user folder, where no client reads or writes."""
    return Path(folder_paths.get_system_user_directory("sd3_local"))


def output_folder() -> Path:
    """Where ComfyUI's users look for pictures."""
    return Path(folder_paths.get_output_directory())


def own_url() -> str:
    """The address at which this process reaches its own server."""
    # Imported late: who only reads models, such as a test, has no server.
    from server import PromptServer

    host = _addresses()[0]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    scheme = "https" if args.tls_keyfile and args.tls_certfile else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{PromptServer.instance.port}"


def is_listening() -> bool:
    """Whether the server takes requests by now."""
    from server import PromptServer

    return hasattr(PromptServer.instance, "port")


def is_exposed() -> bool:
    """Whether the server listens to more than this machine."""
    return not all(is_loopback(address) for address in _addresses())


def user_files(request: web.Request, folder: str) -> list[str]:
    """The names of the JSON files in a folder of the userdata of who asks."""
    from server import PromptServer

    path = PromptServer.instance.user_manager.get_request_user_filepath(request, folder, create_dir=False)
    return sorted(file.name for file in Path(path).glob("*.json")) if path is not None else []


def keeps_metadata() -> bool:
    """Whether pictures may tell how they were made."""
    return not args.disable_metadata


def most_upload_bytes() -> int:
    """The size of the largest request that the server takes."""
    return round(args.max_upload_size * 2**20)


def _addresses() -> list[str]:
    return [address.strip() for address in str(args.listen).split(",") if address.strip()] or ["127.0.0.1"]


def is_loopback(name: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
