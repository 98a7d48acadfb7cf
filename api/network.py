"""Requests to addresses that clients name: only to the public internet, and never more than was bargained for."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
TIMEOUT = 30.0
"""Seconds that one exchange may take, from the name's lookup to the last byte."""
TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses in which a gateway reads an IPv4 one (RFC 6052)."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Refused(Exception):
    """An address that the server does not turn to, for the reason that the text gives."""


class Failed(Exception):
    """An exchange that did not come to its end. `status` is the HTTP status where there was one."""

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class Network:
    """Fetches and sends over HTTP on behalf of clients.

    Only public addresses are turned to, whatever name leads to them: the address that was checked is the one that is
    connected to, so a name that changes its mind in between gains nothing, and each redirect is checked like the first
    address. `allowed` are hosts ("name" or "name:port", lower case) that the user lets through all the same.
    """

    def __init__(self, allowed: Collection[str] = ()):
        self._allowed = frozenset(allowed)

    async def fetch(self, url: str, most: int) -> bytes:
        """What lies at `url`. Raises Refused, and Failed where it is more than `most` bytes, late or not there."""
        for _ in range(MAX_REDIRECTS + 1):
            # Not decompressed: a small answer must not become a large one.
            async with self._exchange("GET", url, headers={"Accept-Encoding": "identity"}) as answer:
                if answer.status in REDIRECTS and "Location" in answer.headers:
                    url = urljoin(url, answer.headers["Location"])
                    continue
                _require_success(answer)
                return await _read(answer, most)
        raise Failed(f"{host_of(url)} redirects more than {MAX_REDIRECTS} times")

    async def send(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], timeout: float = TIMEOUT
    ) -> None:
        """Sends `body`. A redirect is a failure: what was to be delivered here is not to be delivered elsewhere."""
        async with self._exchange(method, url, timeout, data=body, headers=dict(headers)) as answer:
            _require_success(answer)

    def _exchange(self, method: str, url: str, timeout: float = TIMEOUT, **given: Any) -> _Exchange:
        return _Exchange(self._session(url, timeout), method, url, given)

    def _session(self, url: str, timeout: float) -> aiohttp.ClientSession:
        is_allowed = self._is_allowed(url)
        if not is_allowed:
            check_literal(url)
        connector = aiohttp.TCPConnector(
            resolver=ThreadedResolver() if is_allowed else PublicResolver(), use_dns_cache=False
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=timeout),
            # A proxy of the environment would be told the name, and look it up unchecked.
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    def _is_allowed(self, url: str) -> bool:
        parts = _parts(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = (parts.hostname or "").lower()
        return host in self._allowed or f"{host}:{port}" in self._allowed


class _Exchange:
    """One request with a session of its own, which ends with it; errors of the library become `Failed`."""

    def __init__(self, session: aiohttp.ClientSession, method: str, url: str, given: Mapping[str, Any]):
        self._session = session
        self._method = method
        self._url = url
        self._given = given

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            return await self._session.request(self._method, self._url, allow_redirects=False, **self._given)
        except BaseException as error:
            await self._session.close()
            raise self._told(error) from error

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self._session.close()
        if isinstance(error, (aiohttp.ClientError, asyncio.TimeoutError)):
            raise self._told(error) from error

    def _told(self, error: BaseException) -> BaseException:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, Refused):
                return cause
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, asyncio.TimeoutError):
            return Failed(f"{host_of(self._url)} did not answer in time")
        if isinstance(error, (aiohttp.ClientError, OSError)):
            return Failed(f"{host_of(self._url)} could not be reached: {type(error).__name__}")
        return error


class PublicResolver(AbstractResolver):
    """Looks names up, and gives those of their addresses that are public. Raises Refused where there is none."""

    def __init__(self) -> None:
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._system.resolve(host, port, family)
        public = [one for one in found if is_public(ipaddress.ip_address(one["host"].partition("%")[0]))]
        if not public:
            raise Refused(f"{host} is not on the public internet")
        return public

    async def close(self) -> None:
        await self._system.close()


def check_literal(url: str) -> None:
    """Raises Refused for a URL that is not http or https, names an address that is not public, or carries a login."""
    host = _parts(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if not is_public(address):
        raise Refused(f"{host} is not on the public internet")


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet; an IPv4 address inside an IPv6 one counts as itself."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in TRANSLATED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


def host_of(url: str) -> str:
    """The host of a URL, for messages: never its path or query, which may hold secrets."""
    return urlsplit(url).hostname or "the address"


def _parts(url: str) -> Any:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError where it is no number
    except ValueError:
        raise Refused("the URL can't be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused("only http and https URLs are allowed")
    if parts.username is not None or parts.password is not None:
        raise Refused("a URL must not carry a user name or a password")
    return parts


def _require_success(answer: aiohttp.ClientResponse) -> None:
    if answer.status in REDIRECTS:
        raise Failed(f"{answer.url.host} answered with a redirect (status {answer.status})", answer.status)
    if not 200 <= answer.status < 300:
        raise Failed(f"{answer.url.host} answered with status {answer.status}", answer.status)


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes:
    if (answer.content_length or 0) > most:
        raise Failed(f"{answer.url.host} sent more than {most} bytes", answer.status)
    parts: list[bytes] = []
    left = most
    async for chunk in answer.content.iter_chunked(1 << 16):
        left -= len(chunk)
        if left < 0:
            raise Failed(f"{answer.url.host} sent more than {most} bytes", answer.status)
        parts.append(chunk)
    return b"".join(parts)
