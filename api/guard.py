"""Who may come in: clients with a key where one is needed, and no other site's pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..host import server
from ..pipelines.errors import RequestError
from . import home

if TYPE_CHECKING:
    from aiohttp import web

_HOST = re.compile(r"[A-Za-z0-9.\-:\[\]]+")


def admit(key: str | None) -> None:
    """Raises RequestError for a client without a key that lets it in."""
    keys = home.keys()
    if server.is_exposed() and not keys.hashes():
        told = (
            "ComfyUI listens to other machines, so clients need an API key, and none was made: "
            "run python -m tools.api_key in the pack's folder."
        )
        # Of the codes for keys, one published client knows this one alone.
        raise RequestError("invalidApiKey", told, "apiKey")
    if not keys.admits(key):
        if key is None:
            raise RequestError("missingApiKey", "This server needs an API key: send it as a bearer token.", "apiKey")
        raise RequestError("invalidApiKey", "The API key is none of this server's.", "apiKey")


def admit_editor(request: web.Request) -> None:
    """Raises RequestError for someone who may not change what the endpoint allows: who is neither at this machine, nor
    has an API key.
    """
    keys, key = home.keys(), bearer(request)
    if key is not None and keys.hashes() and keys.admits(key):
        return
    if not (
        server.is_loopback(request.remote or "") and server.is_loopback(urlsplit(f"//{request.host}").hostname or "")
    ):
        told = "Settings are changed from a browser on ComfyUI's own machine, or with an API key as bearer token."
        raise RequestError("missingApiKey", told, "apiKey")


def bearer(request: web.Request) -> str | None:
    """The key in a request's Authorization header."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def is_foreign(request: web.Request) -> bool:
    """Whether a page of another site has a browser send this: by what the browser says of the page, and by a name of
    this server that is none of its own, as after DNS rebinding.
    """
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return True
    origin = request.headers.get("Origin")
    try:
        if origin is not None and urlsplit(origin).netloc.lower() != request.host.lower():
            return True
        return not server.is_exposed() and not _is_own(request.host)
    except ValueError:  # a header that is no address
        return True


def _is_own(host: str) -> bool:
    public = urlsplit(home.settings().get().publicURL).netloc.lower()
    return server.is_loopback(urlsplit(f"//{host}").hostname or "") or host.lower() == public


def base_of(request: web.Request) -> str:
    """What the URLs of pictures begin with: the address under which the client reached the server."""
    public = home.settings().get().publicURL
    if public:
        return public
    return f"{request.scheme}://{request.host}" if _HOST.fullmatch(request.host) else server.own_url()
