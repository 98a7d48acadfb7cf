"""What the endpoint sends of its own accord, and what it deletes, with real servers at the other end."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.comfy_host import ComfyHost
from tests.endpoint import Received, Receiver, polled, post, receivers, request, save_settings, task, wait_until


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyHost]:
    with ComfyHost(tmp_path_factory.mktemp("delivery")) as running:
        save_settings(running, allowedHosts=["127.0.0.1"])
        yield running


def database(host: ComfyHost) -> sqlite3.Connection:
    return sqlite3.connect(host.base / "user" / "__sd3_local" / "endpoint.sqlite", timeout=30)


def pending(host: ComfyHost) -> int:
    with database(host) as db:
        return db.execute("SELECT count(*) FROM delivery WHERE error IS NULL").fetchone()[0]


def given_up(host: ComfyHost) -> list[tuple[str, str]]:
    with database(host) as db:
        return db.execute("SELECT url, error FROM delivery WHERE error IS NOT NULL").fetchall()


def failing(times: int) -> Any:
    """Answers 503 so many times, then 200."""
    left = iter(range(times))
    return lambda _: (200 if next(left, None) is None else 503, {}, b"")


def test_each_finished_result_is_uploaded_and_told_of(host: ComfyHost) -> None:
    with Receiver() as receiver:
        asked = task(
            numberResults=2,
            outputFormat="PNG",
            uploadEndpoint=f"{receiver.url}/put?signature=1",
            webhookURL=f"{receiver.url}/hook",
        )
        items = post(host, asked).data
        puts = receiver.wait_for("/put?signature=1", 2)
        hooks = receiver.wait_for("/hook", 2)
        wait_until(lambda: pending(host) == 0)
    assert all(put.method == "PUT" and put.headers["Content-Type"] == "image/png" for put in puts)
    files = [request(host, item["imageURL"]).body for item in items]
    assert sorted(put.body for put in puts) == sorted(files)
    assert sorted((json.loads(hook.body) for hook in hooks), key=lambda told: told["seed"]) == items


def test_a_webhook_may_have_the_older_form_and_is_told_of_errors(host: ComfyHost) -> None:
    save_settings(host, allowedHosts=["127.0.0.1"], webhookBody="data")
    try:
        with Receiver() as receiver:
            item = post(host, task(webhookURL=f"{receiver.url}/good")).data[0]
            assert json.loads(receiver.wait_for("/good")[0].body) == {"data": [item]}
            errors = post(host, task(steps=20_000, webhookURL=f"{receiver.url}/bad")).errors
            assert json.loads(receiver.wait_for("/bad")[0].body) == {"errors": errors}
    finally:
        save_settings(host, allowedHosts=["127.0.0.1"])


def test_what_fails_is_tried_again_ever_later_and_holds_nothing_up(host: ComfyHost) -> None:
    hung = threading.Event()

    def hang(_: Received) -> tuple[int, dict[str, str], bytes]:
        hung.wait(60)
        return 200, {}, b""

    with receivers(failing(3), hang, lambda _: (307, {"Location": "http://10.0.0.1/"}, b"")) as (weak, deaf, away):
        before = len(given_up(host))
        started = time.monotonic()
        post(host, task(webhookURL=f"{deaf.url}/hook", uploadEndpoint=f"{deaf.url}/put")).data  # noqa: B018
        post(host, task(webhookURL=f"{away.url}/hook")).data  # noqa: B018
        post(host, task(webhookURL=f"{weak.url}/hook", uploadEndpoint=f"{weak.url}/put")).data  # noqa: B018
        tries = weak.wait_for("/hook", 2) + weak.wait_for("/put", 2)
        # Those that hang had not come to the end of their time.
        assert time.monotonic() - started < 30
        assert len(tries) == 5 or len(tries) == 4
        wait_until(lambda: len(away.received) >= 3)
        waits = [later.at - earlier.at for earlier, later in zip(away.received, away.received[1:], strict=False)]
        assert waits[0] >= 0.2 and waits[1] >= 0.4
        hung.set()
        assert all(got.path == "/hook" for got in away.received)
        assert len(given_up(host)) == before
        with database(host) as db:
            db.execute("DELETE FROM delivery")


def test_addresses_of_private_networks_get_nothing(host: ComfyHost) -> None:
    with Receiver() as receiver:
        port = receiver.url.rpartition(":")[2]
        save_settings(host, allowedHosts=[])
        try:
            post(host, task(webhookURL=f"{receiver.url}/a", uploadEndpoint=f"http://localhost:{port}/b")).data  # noqa: B018
            wait_until(lambda: len(given_up(host)) >= 2)
        finally:
            save_settings(host, allowedHosts=["127.0.0.1"])
        told = dict(given_up(host))
        assert told[f"{receiver.url}/a"] == "127.0.0.1 is not on the public internet"
        assert told[f"http://localhost:{port}/b"] == "localhost is not on the public internet"
        assert not receiver.received
    assert "signature" not in host.log_file.read_text("utf-8")


def test_a_picture_is_gone_when_its_time_is_over_also_after_a_restart(host: ComfyHost) -> None:
    kept, early, late = (post(host, task(**ttl)).data[0] for ttl in ({}, {"ttl": 60}, {"ttl": 60}))
    files = {item["imageUUID"]: next((host.base / "output").rglob(f"{item['imageUUID']}.*")) for item in (early, late)}
    with database(host) as db:
        expires = db.execute("SELECT expires FROM picture WHERE uuid = ?", (early["imageUUID"],)).fetchone()[0]
        assert 50 < expires - time.time() <= 60
    assert request(host, early["imageURL"]).status == 200

    def end(item: dict[str, Any]) -> None:
        # Waiting for a minute shows no more.
        with database(host) as db:
            db.execute("UPDATE picture SET expires = ? WHERE uuid = ?", (time.time() - 1, item["imageUUID"]))

    end(early)
    assert request(host, early["imageURL"]).status == 404
    post(host, task())
    wait_until(lambda: not files[early["imageUUID"]].exists())
    host.stop()
    end(late)
    assert files[late["imageUUID"]].exists()
    host.start()
    path = late["imageURL"].partition("/sd3local")[2]
    assert request(host, f"/sd3local{path}").status == 404
    wait_until(lambda: not files[late["imageUUID"]].exists())
    path = kept["imageURL"].partition("/sd3local")[2]
    assert request(host, f"/sd3local{path}").status == 200
    assert post(host, task(inputs={"seedImage": late["imageUUID"]})).codes == ["invalidSeedImage"]


def interrupted(host: ComfyHost, starts: int) -> str:
    """Puts down a task that so many processes began and none lived to finish."""
    wire = task()
    with database(host) as db:
        db.execute("INSERT INTO task VALUES (?, ?, ?, ?)", (wire["taskUUID"], json.dumps(wire), host.url, time.time()))
        row = (str(uuid.uuid4()), wire["taskUUID"], wire["seed"], starts)
        db.execute("INSERT INTO item (uuid, task, number, seed, state, starts) VALUES (?, ?, 0, ?, 'waiting', ?)", row)
    return wire["taskUUID"]


def test_what_was_still_to_be_sent_goes_out_after_a_restart(host: ComfyHost) -> None:
    with Receiver(failing(2)) as receiver:
        post(host, task(webhookURL=f"{receiver.url}/hook")).data  # noqa: B018
        receiver.wait_for("/hook")
        host.stop()
        heard = len(receiver.of("/hook"))
        again, never = interrupted(host, starts=1), interrupted(host, starts=5)
        host.start()
        assert len(polled(host, again).data) == 1
        error = polled(host, never).errors[0]
        assert (error["code"], error["taskUUID"]) == ("inferenceError", never)
        assert "ended several times" in error["message"]
        receiver.wait_for("/hook", heard + 1)
        wait_until(lambda: pending(host) == 0)
