"""Why a peer can't be reached by TLS: what is seen of it is said, and what to do, by DICOM and by DICOMweb alike."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from carina.config import DicomDestination, DicomwebDestination, Peer
from carina.deliver.deliver import echo
from carina.errors import DeliveryFailed
from carina.testing.difficult_pacs import difficult_pacs
from carina.testing.ports import free_port

Speak = Callable[[socket.socket], None]

OWN = {"certificate": "crt", "key": "key"}
SHOW = "Set tls_certificate and tls_key."
OPEN = "its port is open, but no DICOM association is answered there"
SHOW_NONE = "A dicomweb destination shows none: have the server take user and password, or a token."


@contextmanager
def peer(speak: Speak) -> Iterator[int]:
    """What does with every connection as it is told, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(OSError):
                        connection.settimeout(60)
                        speak(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(server.getsockname()[1])
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def by_tls(folder: Path, shown: str, asks: str = "", newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Speak:
    """One that agrees on TLS, reads a request and ends; ``asks``: it wants a certificate that this signs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{shown}.crt", folder / f"{shown}.key")
    context.maximum_version = newest
    if asks:
        context.load_verify_locations(folder / f"{asks}.crt")
        context.verify_mode = ssl.CERT_REQUIRED

    def speak(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(4096)

    return speak


def ends(connection: socket.socket) -> None:
    connection.recv(4096)


def speaks_dicom(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, 1]))


def said(port: int, folder: Path, trusted: str, ours: str = "") -> dict[str, str]:
    """What is said of it by each kind of destination, without its name and address."""
    own: dict[str, Any] = {f"tls_{part}": str(folder / f"{ours}.{end}") for part, end in OWN.items()} if ours else {}
    signs = str(folder / f"{trusted}.crt")
    dicom = DicomDestination(
        host="127.0.0.1", port=port, ae_title="PACS", tls_trusted=signs, tls_name="localhost", timeout_s=60, **own
    )
    web = DicomwebDestination(url=f"https://localhost:{port}/dicom-web", tls_trusted=signs, timeout_s=60)
    told: dict[str, str] = {}
    peers: dict[str, Peer] = {"dicom": dicom, "dicomweb": web}
    for kind, destination in peers.items():
        if kind == "dicom" or not ours:
            with pytest.raises(DeliveryFailed, match=r"can't be reached: .*\.$") as caught:
                echo("PACS", destination)
            told[kind] = caught.value.message.partition(" can't be reached: ")[2]
    return told


NEW = "It needs a new one, or this machine's clock is wrong."


@pytest.mark.parametrize(
    ("shown", "trusted", "words"),
    [
        ("expired", "root", f"its certificate has expired. {NEW}"),
        ("early", "root", f"its certificate is not valid yet. {NEW}"),
        ("good", "stranger", r"nothing in \S+/stranger.crt signs its certificate. Put what does into tls_trusted."),
        ("stranger", "root", r"nothing in \S+/root.crt signs its certificate. Put what does into tls_trusted."),
        ("other", "root", "its certificate is not for localhost. Set (tls_name|url) to a name that is in it."),
        ("pinned", "pinned", r"tls_trusted: '\S+pinned.crt' expired on [-0-9]+ [0-9:]+ UTC. Put there what signs the "),
        ("good", "root", "it ended the connection once TLS was agreed on. It may ask for a certificate of ours. "),
    ],
)
def test_what_is_wrong_with_a_peers_certificate_is_said(tls_files: Path, shown: str, trusted: str, words: str) -> None:
    with peer(by_tls(tls_files, shown)) as port:
        told = said(port, tls_files, trusted)
    assert all(re.match(words, one) for one in told.values()) and len(told) == 2, told


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_peer_that_asks_for_a_certificate_of_ours_says_so(tls_files: Path, newest: ssl.TLSVersion) -> None:
    """TLS 1.3 tells who shows none so after the handshake alone, and TLS 1.2 does not say of what it failed."""
    with peer(by_tls(tls_files, "good", asks="root", newest=newest)) as port:
        none = said(port, tls_files, "root")
        others = {ours: said(port, tls_files, "root", ours)["dicom"] for ours in ("stranger", "expired", "early")}
    old = newest is ssl.TLSVersion.TLSv1_2
    asks = "it ended the TLS handshake (handshake failure). It may ask for" if old else "it asks for"
    assert none == {
        "dicom": f"{asks} a certificate of ours. {SHOW}",
        "dicomweb": f"{asks} a certificate of ours. {SHOW_NONE}",
    }
    assert others["stranger"] == "it does not trust our certificate (tls_certificate). Give it what signs that."
    for ours, words in {"expired": "expired on", "early": "is not valid before"}.items():
        file = re.escape(str(tls_files / f"{ours}.crt"))
        assert re.fullmatch(rf"tls_certificate: '{file}' {words} .* UTC\. Put a new one there\.", others[ours])


@pytest.mark.parametrize(
    ("speak", "words"),
    [
        (ends, "it ended the TLS handshake without a word, as a peer without TLS does. Give the port on which it"),
        (speaks_dicom, "it speaks no TLS on this port. Give the port on which it speaks TLS."),
    ],
)
def test_a_peer_without_tls_is_told_from_a_closed_port(tls_files: Path, speak: Speak, words: str) -> None:
    with peer(speak) as port:
        assert all(one.startswith(words) for one in said(port, tls_files, "root").values())
    assert said(free_port(), tls_files, "root") == {
        "dicom": "nothing answers there. Check address, port and AE titles.",
        "dicomweb": "[Errno 111] Connection refused. Check its URL.",
    }


def wants_tls(folder: Path) -> Speak:
    return by_tls(folder, "good")


@pytest.mark.parametrize("speaks", [wants_tls, lambda _: ends], ids=["wants TLS", "ends"])
def test_an_open_port_without_an_answer_is_told_from_a_closed_one(
    tls_files: Path, speaks: Callable[[Path], Speak]
) -> None:
    with peer(speaks(tls_files)) as port:
        destination = DicomDestination(host="127.0.0.1", port=port, ae_title="PACS", timeout_s=60)
        with pytest.raises(
            DeliveryFailed, match=rf"^PACS \(PACS@127\.0\.0\.1:{port}\) can't be reached: {OPEN}\. It may"
        ):
            echo("PACS", destination)
    away = DicomDestination(host="127.0.0.1", port=free_port(), ae_title="PACS", timeout_s=60)
    with pytest.raises(DeliveryFailed, match=r"nothing answers there\. Check address, port and AE titles\."):
        echo("PACS", away)


def test_nor_is_a_silent_port_taken_for_a_closed_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        destination = DicomDestination(host="127.0.0.1", port=port, ae_title="PACS", timeout_s=0.5)
        with pytest.raises(DeliveryFailed, match=rf"{OPEN}\. It may want TLS \(tls_trusted\), or be no DICOM node: "):
            echo("PACS", destination)


def test_a_node_that_speaks_dicom_without_tls_is_told_so(tls_files: Path) -> None:
    with difficult_pacs() as pacs:
        said_of_it = said(pacs.port, tls_files, "root").values()
    assert all("TLS" in one and "Give the port on which it speaks TLS." in one for one in said_of_it)


def test_a_peer_that_does_not_answer_the_handshake_is_told_so(tls_files: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for destination in (
            DicomDestination(
                host="127.0.0.1", port=port, ae_title="P", tls_trusted=str(tls_files / "root.crt"), timeout_s=0.2
            ),
            DicomwebDestination(url=f"https://127.0.0.1:{port}/web", timeout_s=0.2),
        ):
            with pytest.raises(
                DeliveryFailed, match=r"it did not answer the TLS handshake in time\. See whether it sp"
            ):
                echo("PACS", destination)
