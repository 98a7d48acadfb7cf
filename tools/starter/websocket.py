"""The little of RFC 6455 that listening to ComfyUI takes: one client, text and binary messages, ping and close."""

from __future__ import annotations

import base64
import os
import socket
import struct
import time

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class WebSocket:
    """A connection to `ws://host:port/path`. Raises ConnectionError when the other side refuses or ends it."""

    def __init__(self, host: str, port: int, path: str, timeout: float = 10.0):
        self._socket = socket.create_connection((host, port), timeout=timeout)
        self._buffer = b""
        self._parts: list[bytes] = []
        self._kind = TEXT
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._buffer:
            self._read()
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            self.close()
            raise ConnectionError(f"no WebSocket at {path}: {head.splitlines()[0].decode(errors='replace')}")

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def receive(self, timeout: float) -> str | bytes | None:
        """The next message, or None when none is complete within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            while (frame := self._frame()) is not None:
                message = self._take(*frame)
                if message is not None:
                    return message
            if (left := deadline - time.monotonic()) <= 0:
                return None
            self._socket.settimeout(left)
            try:
                self._read()
            except TimeoutError:
                return None

    def send(self, data: bytes, kind: int = TEXT) -> None:
        size = len(data)
        if size < 126:
            head = struct.pack("!BB", 0x80 | kind, 0x80 | size)
        elif size < 2**16:
            head = struct.pack("!BBH", 0x80 | kind, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | kind, 0x80 | 127, size)
        mask = os.urandom(4)
        self._socket.settimeout(10.0)
        self._socket.sendall(head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)))

    def _read(self) -> None:
        chunk = self._socket.recv(65536)
        if not chunk:
            raise ConnectionError("the WebSocket was closed")
        self._buffer += chunk

    def _frame(self) -> tuple[bool, int, bytes] | None:
        """(is last, opcode, payload) of the first frame in the buffer, if it is all there. A server does not mask."""
        if len(self._buffer) < 2:
            return None
        first, size, start = self._buffer[0], self._buffer[1] & 0x7F, 2
        if size == 126:
            start = 4
        elif size == 127:
            start = 10
        if len(self._buffer) < start:
            return None
        if start > 2:
            size = int.from_bytes(self._buffer[2:start], "big")
        if len(self._buffer) < start + size:
            return None
        payload = self._buffer[start : start + size]
        self._buffer = self._buffer[start + size :]
        return bool(first & 0x80), first & 0x0F, payload

    def _take(self, last: bool, kind: int, payload: bytes) -> str | bytes | None:
        if kind == CLOSE:
            raise ConnectionError("the WebSocket was closed")
        if kind == PING:
            self.send(payload, PONG)
        if kind >= CLOSE:
            return None
        if kind != CONTINUATION:
            self._kind, self._parts = kind, []
        self._parts.append(payload)
        if not last:
            return None
        data = b"".join(self._parts)
        return data.decode() if self._kind == TEXT else data
