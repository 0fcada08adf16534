"""Whether a PostgreSQL server takes anybody now, by what it says to a first message (its manual, 55.2 and 55.8).

Its sentences are in the language of ``lc_messages``, and the driver gives no code for a connection that was refused:
the server is asked once more, without the driver, for the code (SQLSTATE) that it answers with.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

_PROTOCOL = 3 << 16
_NOBODY = b"user\0nobody\0\0"
_ERROR = b"E"
_CODE = b"C"
_LONGEST_ANSWER = 64 * 1024
GREETING_S = 3.0
"""How long a server may take to answer."""

TAKES_NOBODY_NOW = ("57P", "53")
"""How codes begin of a server that starts, ends, recovers, or has too many connections (its manual, appendix A)."""


def takes_nobody_now(host: str, port: int) -> bool:
    """Whether a server says so itself, to whoever it is; False where it says anything else, or can't be asked."""
    with suppress(OSError, ValueError, struct.error):
        return _code_of(_asked(host, port)).startswith(TAKES_NOBODY_NOW)
    return False


def _asked(host: str, port: int) -> bytes:
    """The first message of its answer, from its kind on; ``host`` is a folder where the server has a socket there.

    A server that takes nobody says so whoever asks: no name of the address goes over a line that may have no TLS.
    """
    startup = struct.pack("!II", 8 + len(_NOBODY), _PROTOCOL) + _NOBODY
    with _connected(host, port) as stream:
        stream.sendall(startup)
        with stream.makefile("rb") as answer:
            kind = answer.read(1)
            (size,) = struct.unpack("!I", answer.read(4))
            return kind + answer.read(min(max(size - 4, 0), _LONGEST_ANSWER))


def _connected(host: str, port: int) -> socket.socket:
    if not host.startswith("/"):
        return socket.create_connection((host or "localhost", port), GREETING_S)
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(GREETING_S)
    try:
        made.connect(f"{host}/.s.PGSQL.{port}")
    except OSError:
        made.close()
        raise
    return made


def _code_of(message: bytes) -> str:
    """The SQLSTATE of an error; empty where the message is none."""
    fields = message[1:].split(b"\0") if message[:1] == _ERROR else []
    return next((field[1:].decode("ascii", "replace") for field in fields if field[:1] == _CODE), "")
