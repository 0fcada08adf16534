"""A PostgreSQL server that takes nobody now is waited for, whatever language it speaks."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from carina.database import open_database
from carina.database.engine import DatabaseAway
from carina.errors import BadConfig
from carina.testing.ports import free_port

pytest.importorskip("psycopg")

LANGUAGES = {
    "de": ("FATAL", "das Datenbanksystem startet", "Passwort-Authentifizierung für »carina« fehlgeschlagen"),
    "en": ("FATAL", "the database system is starting up", 'password authentication failed for user "carina"'),
    "it": ("FATALE", "il sistema di database si sta avviando", 'autenticazione fallita per "carina"'),
    "ja": ("致命的エラー", "データベースシステムは起動処理中です", "パスワード認証に失敗しました"),
    "ru": ("ВАЖНО", "система баз данных запускается", "пользователь не прошёл проверку подлинности"),
}
NOT_NOW = ("57P01", "57P02", "57P03", "53300", "53200")
NEVER = ("28P01", "28000", "3D000", "42501", "08P01")


def refusal(severity: str, code: str, words: str) -> bytes:
    fields = {"S": severity, "V": "FATAL", "C": code, "M": words}
    body = b"".join(name.encode() + text.encode() + b"\0" for name, text in fields.items()) + b"\0"
    return b"E" + struct.pack("!I", 4 + len(body)) + body


@contextmanager
def server(answer: bytes) -> Iterator[str]:
    """A server that answers everybody alike, after saying that it speaks no TLS; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        (size, kind) = struct.unpack("!II", connection.recv(8, socket.MSG_WAITALL))
                        while kind in (80877103, 80877104):  # asked for TLS, for GSS
                            connection.sendall(b"N")
                            (size, kind) = struct.unpack("!II", connection.recv(8, socket.MSG_WAITALL))
                        connection.recv(size - 8, socket.MSG_WAITALL)
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"postgresql+psycopg://carina:x@127.0.0.1:{listener.getsockname()[1]}/node"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("code", [*NOT_NOW, *NEVER])
def test_by_its_code_a_server_is_waited_for_or_its_address_is_wrong(language: str, code: str) -> None:
    severity, starting, wrong = LANGUAGES[language]
    words = starting if code in NOT_NOW else wrong
    with server(refusal(severity, code, words)) as address, pytest.raises(BadConfig, match=words) as caught:
        open_database(address)
    assert isinstance(caught.value, DatabaseAway) == (code in NOT_NOW)


def test_a_server_that_is_not_there_is_waited_for() -> None:
    with pytest.raises(DatabaseAway, match="can't be reached, or takes nobody now"):
        open_database(f"postgresql+psycopg://carina@127.0.0.1:{free_port()}/node")


def test_a_server_that_asks_for_a_password_where_none_is_known_says_where_one_goes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    monkeypatch.delenv("PGPASSWORD", raising=False)
    asks = b"R" + struct.pack("!II", 8, 3)  # for a password as plain text
    with server(asks) as address, pytest.raises(BadConfig, match=r"expected a password: a line in ~/\.pgpass"):
        open_database(address.replace(":x@", "@"))


@pytest.mark.parametrize("answer", [b"", b"E", b"E\xff\xff\xff\xff", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_is_no_server_of_its_kind_ends_in_one_line(answer: bytes) -> None:
    with server(answer) as address, pytest.raises(BadConfig) as caught:
        open_database(f"{address}?connect_timeout=2")
    assert "\n" not in caught.value.message
