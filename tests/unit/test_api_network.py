"""Where the server turns to for clients, and where it does not, with real servers at the other end."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from sd3_local.api.network import MAX_REDIRECTS, Failed, Network, Refused, is_public

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(handler: Handler):
    """The port of a server on the loopback."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def run(handler: Handler, work: Callable[[int], Awaitable[Any]]) -> Any:
    async def both() -> Any:
        async with served(handler) as port:
            return await work(port)

    return asyncio.run(both())


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="hello")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_private_address_is_turned_to_only_where_the_user_allows_it(host: str) -> None:
    async def work(port: int) -> None:
        url = f"http://{host}:{port}/picture"
        with pytest.raises(Refused, match="not on the public internet"):
            await Network().fetch(url, 100)
        with pytest.raises(Refused):
            await Network([f"{host}:{port + 1}"]).fetch(url, 100)
        with pytest.raises(Refused):
            await Network().send("PUT", url, b"x", {})
        assert await Network([f"{host}:{port}"]).fetch(url, 100) == b"hello"
        assert await Network([host]).fetch(url, 100) == b"hello"

    run(hello, work)


def test_a_redirect_is_checked_like_the_first_address() -> None:
    reached = []

    async def inner(request: web.Request) -> web.Response:
        reached.append(request.path)
        return web.Response(text="secret")

    async def work(port: int) -> None:
        async def outer(request: web.Request) -> web.Response:
            raise web.HTTPFound(f"http://127.0.0.1:{port}/secret")

        async with served(outer) as public:
            with pytest.raises(Refused):
                await Network([f"127.0.0.1:{public}"]).fetch(f"http://127.0.0.1:{public}/", 100)
            assert not reached
            allowed = Network([f"127.0.0.1:{public}", f"127.0.0.1:{port}"])
            assert await allowed.fetch(f"http://127.0.0.1:{public}/", 100) == b"secret"

    run(inner, work)


def test_redirects_come_to_an_end() -> None:
    asked = []

    async def on(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPFound("/next")

    async def work(port: int) -> None:
        with pytest.raises(Failed, match="redirects more than"):
            await Network(["127.0.0.1"]).fetch(f"http://127.0.0.1:{port}/first", 100)

    run(on, work)
    assert len(asked) == MAX_REDIRECTS + 1


@pytest.mark.parametrize("length_is_told", [True, False])
def test_no_more_is_read_than_was_asked_for(length_is_told: bool) -> None:
    async def much(request: web.Request) -> web.StreamResponse:
        if length_is_told:
            return web.Response(body=bytes(200_001))
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(4):
            await answer.write(bytes(100_000))
        return answer

    async def work(port: int) -> None:
        with pytest.raises(Failed, match="more than 200000 bytes"):
            await Network(["127.0.0.1"]).fetch(f"http://127.0.0.1:{port}/", 200_000)

    run(much, work)


def test_what_is_sent_packed_stays_packed() -> None:
    import gzip

    packed = gzip.compress(bytes(10_000_000))

    async def bomb(request: web.Request) -> web.Response:
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    async def work(port: int) -> None:
        assert await Network(["127.0.0.1"]).fetch(f"http://127.0.0.1:{port}/", 20_000) == packed

    run(bomb, work)


def test_an_answer_that_comes_too_late_is_a_failure() -> None:
    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    async def work(port: int) -> None:
        with pytest.raises(Failed, match="in time"):
            await Network(["127.0.0.1"]).send("POST", f"http://127.0.0.1:{port}/", b"", {}, timeout=0.3)

    run(slow, work)


def test_what_is_sent_arrives_and_is_not_sent_on() -> None:
    arrived = []

    async def takes(request: web.Request) -> web.Response:
        arrived.append((request.method, request.path, request.headers["Content-Type"], await request.read()))
        if request.path == "/moved":
            raise web.HTTPTemporaryRedirect("/elsewhere")
        return web.Response(status=500 if request.path == "/broken" else 201)

    async def work(port: int) -> None:
        network, base = Network(["127.0.0.1"]), f"http://127.0.0.1:{port}"
        await network.send("PUT", f"{base}/there", b"bytes", {"Content-Type": "image/png"})
        for path, status in (("moved", 307), ("broken", 500)):
            with pytest.raises(Failed) as caught:
                await network.send("POST", f"{base}/{path}", b"{}", {"Content-Type": "application/json"})
            assert caught.value.status == status

    run(takes, work)
    assert arrived[0] == ("PUT", "/there", "image/png", b"bytes")
    assert [path for _, path, _, _ in arrived] == ["/there", "/moved", "/broken"]


def test_nobody_at_the_other_end_is_a_failure_that_names_no_path() -> None:
    async def work(port: int) -> None:
        pass

    async def gone() -> None:
        async with served(hello) as port:
            pass
        with pytest.raises(Failed) as caught:
            await Network(["127.0.0.1"]).fetch(f"http://127.0.0.1:{port}/token-of-a-client", 10)
        assert "127.0.0.1" in str(caught.value) and "token" not in str(caught.value)

    asyncio.run(gone())


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/a",
        "file:///etc/passwd",
        "http://",
        "http://user:secret@example.com/",
        "http://example.com:port/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/",
        "http://0.0.0.0/",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(Refused) as caught:
        asyncio.run(Network().fetch(url, 10))
    assert "secret" not in str(caught.value)


# Numbers that only some systems read as addresses.
@pytest.mark.parametrize("url", ["http://2130706433/", "http://0x7f.1/", "http://127.1/", "http://017700000001/"])
def test_numbers_that_stand_for_the_loopback_lead_nowhere(url: str) -> None:
    with pytest.raises((Refused, Failed)):
        asyncio.run(Network().fetch(url, 10))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),
        ("169.254.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public
