"""What a user sets about the endpoint, in a JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ..pipelines.errors import Fault, RequestError, show
from ..pipelines.rules import code
from .files import write


@dataclass(frozen=True)
class Settings:
    """The endpoint's settings, by the names in their file."""

    pricePerGpuHour: float = 0.0
    """What an hour of the GPU costs, in the user's currency: `cost` is this for the seconds that a result took."""
    allowedHosts: tuple[str, ...] = ()
    """Hosts, "name" or "name:port", that may be fetched from and sent to although they are not public."""
    publicURL: str = ""
    """Where clients reach this server, such as "https://pictures.example": what URLs of results begin with. Nothing:
    the address that the request came to."""
    webhookBody: Literal["flat", "data"] = "flat"
    """Whether a webhook gets a result as it is, or as {"data": [result]}."""

    def told(self) -> dict[str, Any]:
        """As in the file."""
        return {**asdict(self), "allowedHosts": list(self.allowedHosts)}


def checked(given: Any) -> Settings:
    """The settings in a JSON object; what is left out has its default. Raises RequestError with all that is wrong."""
    if not isinstance(given, Mapping):
        raise RequestError("invalidSettings", "The settings must be an object of names and values.", "settings")
    names = [field.name for field in fields(Settings)]
    faults = [
        Fault("unsupportedParameter", f"{show(name)} is no setting; there are {', '.join(names)}.", str(name)[:80])
        for name in given
        if name not in names
    ]
    price = given.get("pricePerGpuHour", 0.0)
    if isinstance(price, bool) or not isinstance(price, (int, float)) or not 0 <= price < math.inf:
        faults.append(_fault("pricePerGpuHour", price, "a number of at least 0"))
    hosts = given.get("allowedHosts", [])
    if not isinstance(hosts, (list, tuple)) or not all(isinstance(host, str) and _is_host(host) for host in hosts):
        faults.append(_fault("allowedHosts", hosts, 'an array of hosts, such as "127.0.0.1" or "nas.local:9000"'))
    url = given.get("publicURL", "")
    if not isinstance(url, str) or (url and not _is_base(url)):
        faults.append(_fault("publicURL", url, "an http or https URL without query, or empty"))
    body = given.get("webhookBody", "flat")
    if body not in ("flat", "data"):
        faults.append(_fault("webhookBody", body, '"flat" or "data"'))
    if faults:
        raise RequestError.of(faults)
    return Settings(float(price), tuple(host.lower() for host in hosts), url.rstrip("/"), body)


class SettingsFile:
    """The file, read again whenever it was changed."""

    def __init__(self, file: Path):
        self._file = file
        self._read: tuple[tuple[int, int], Settings] | None = None

    def get(self) -> Settings:
        """Raises RequestError where the file holds no settings."""
        try:
            state = self._file.stat()
            stamp = (state.st_mtime_ns, state.st_size)
            if self._read is None or self._read[0] != stamp:
                self._read = stamp, checked(json.loads(self._file.read_text(encoding="utf-8")))
            return self._read[1]
        except FileNotFoundError:
            return Settings()
        except (OSError, ValueError) as error:
            # A RequestError is a ValueError, and says itself what is wrong.
            because = str(error) if isinstance(error, RequestError) else type(error).__name__
            told = f"The settings in {self._file.name} are not used: {because}"
            raise RequestError("invalidSettings", told, "settings") from None

    def save(self, settings: Settings) -> None:
        write(self._file, (json.dumps(settings.told(), indent=1) + "\n").encode())


def _is_host(text: str) -> bool:
    try:
        parts = urlsplit(f"//{text}")
        return bool(parts.hostname) and parts.netloc == text and parts.username is None and parts.port != 0
    except ValueError:
        return False


def _is_base(text: str) -> bool:
    try:
        parts = urlsplit(text)
        web = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return web and not parts.query and not parts.fragment and not any(one.isspace() for one in text)


def _fault(name: str, value: Any, must: str) -> Fault:
    return Fault(code("invalid", name), f"{name} is {show(value)}; it must be {must}.", name)
