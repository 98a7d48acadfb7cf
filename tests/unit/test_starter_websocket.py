"""The WebSocket client against bytes written by hand from RFC 6455."""

from __future__ import annotations

import io
import os
import socket
import struct
import threading

import pytest

from tools.starter.websocket import WebSocket


def frame(kind: int, data: bytes, last: bool = True) -> bytes:
    """A server's frame by RFC 6455, section 5.2."""
    head = bytes([(0x80 if last else 0) | kind])
    if len(data) < 126:
        return head + bytes([len(data)]) + data
    if len(data) < 2**16:
        return head + bytes([126]) + struct.pack("!H", len(data)) + data
    return head + bytes([127]) + struct.pack("!Q", len(data)) + data


def served(answer: bytes) -> tuple[int, io.BytesIO, threading.Thread]:
    """A server that takes one connection, sends `answer` in pieces, and keeps what it is sent."""
    server = socket.create_server(("127.0.0.1", 0))
    received = io.BytesIO()

    def serve() -> None:
        with server, server.accept()[0] as connection:
            received.write(connection.recv(65536))
            for start in range(0, len(answer), 1000):
                connection.sendall(answer[start : start + 1000])
            while chunk := connection.recv(65536):
                received.write(chunk)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return server.getsockname()[1], received, thread


def test_messages_of_all_lengths_in_parts_with_a_ping_between() -> None:
    picture = os.urandom(70_000)
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    answer += frame(1, b"short") + frame(1, "größer".encode() * 100) + frame(1, b"in ", last=False) + frame(9, b"ping!")
    answer += frame(0, b"parts") + frame(2, picture) + frame(8, b"")
    port, received, thread = served(answer)
    with WebSocket("127.0.0.1", port, "/ws?clientId=a") as client:
        messages = [client.receive(10) for _ in range(4)]
        with pytest.raises(ConnectionError):
            client.receive(10)
    thread.join(10)
    assert messages == ["short", "größer" * 100, "in parts", picture]
    request, pong = received.getvalue().split(b"\r\n\r\n", 1)
    assert request.startswith(b"GET /ws?clientId=a HTTP/1.1\r\n")
    assert pong[:2] == bytes([0x8A, 0x80 | 5])
    assert bytes(byte ^ pong[2 + i % 4] for i, byte in enumerate(pong[6:])) == b"ping!"


def test_silence_is_none_and_a_refusal_an_error() -> None:
    port, _, _ = served(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + frame(1, b"whole")[:3])
    with WebSocket("127.0.0.1", port, "/ws") as client:
        assert client.receive(0.05) is None
    port, _, _ = served(b"HTTP/1.1 404 Not Found\r\n\r\n")
    with pytest.raises(ConnectionError, match="404"):
        WebSocket("127.0.0.1", port, "/ws")
