"""A web server that answers what it is told to, whatever that is."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from carina.config import DicomwebDestination

Answer = Iterable[bytes]
"""What a server sends, piece by piece; it stops where the client has gone."""


@contextmanager
def answering(answer: Callable[[str], Answer], timeout_s: float = 5.0) -> Iterator[DicomwebDestination]:
    """A server that answers each request's path with what it is told to send."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        head = b""
                        while b"\r\n\r\n" not in head:
                            head += connection.recv(65536)
                        for piece in answer(head.split()[1].decode()):
                            connection.sendall(piece)

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/web"
        try:
            yield DicomwebDestination(url=url, timeout_s=timeout_s)
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def head(kind: str, code: int = 200, more: str = "") -> bytes:
    return f"HTTP/1.1 {code} Words\r\nContent-Type: {kind}\r\nConnection: close\r\n{more}\r\n".encode()


def drip(first: bytes) -> Answer:
    yield first
    while True:
        time.sleep(0.02)
        yield b"x"


def half(first: bytes) -> Answer:
    """What begins, and then neither goes on nor ends."""
    yield first
    threading.Event().wait()


def listed(items: object) -> Answer:
    return [head("application/dicom+json") + (items if isinstance(items, bytes) else json.dumps(items).encode())]


def study(uid: str, **more: str) -> dict[str, object]:
    return {tag: {"vr": "LO", "Value": [value]} for tag, value in ({"0020000D": uid} | more).items()}
