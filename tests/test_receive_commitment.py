"""Storage commitment as its provider: what is reported to whom, and what is refused."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from sqlalchemy import Engine

from carina.config import DicomDestination, Settings
from carina.receive.commitment import SOME_MISSING
from carina.receive.listener import DicomListener
from carina.receive.store import InstanceStore
from receiving import receiver_settings


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    return receiver_settings(tmp_path)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed certificates with their keys, of the peer and of the node."""
    folder = tmp_path_factory.mktemp("tls")
    program = shutil.which("openssl") or pytest.skip("openssl is not installed; on Debian: apt-get install openssl")
    for name in ("peer", "node"):
        made = [str(program), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost"]
        names = ["-addext", "subjectAltName=DNS:localhost"]
        files = ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt"]
        subprocess.run([*made, *names, *files], check=True, capture_output=True)
    return folder


@dataclass(kw_only=True)
class Asker:
    """A peer that asks for storage commitment, and what it is told."""

    port: int = 0
    reports: list[tuple[int, Dataset]] = field(default_factory=list)
    is_told: threading.Event = field(default_factory=threading.Event)

    def hear(self, event: Event) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        self.is_told.set()
        return 0x0000, None


@contextmanager
def asker(tls: ssl.SSLContext | None = None) -> Iterator[Asker]:
    made, entity = Asker(), AE(ae_title="CT1")
    entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    handlers = [(evt.EVT_N_EVENT_REPORT, made.hear)]
    server = entity.start_server(("127.0.0.1", 0), block=False, ssl_context=tls, evt_handlers=handlers)
    made.port = server.server_address[1]
    yield made
    server.shutdown()


@contextmanager
def asked_of(node: Settings, engine: Engine, **destination: Any) -> Iterator[DicomListener]:
    """A node that listens, with the asker as its destination where it has a port."""
    peers = {"ct": DicomDestination(host="127.0.0.1", ae_title="CT1", **destination)} if destination else {}
    listener = DicomListener(InstanceStore(replace(node, destinations=peers), engine))
    listener.start()
    yield listener
    listener.stop()


def references(*uids: str, sop_class: str = CTImageStorage) -> list[Dataset]:
    made = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        made.append(item)
    return made


def ask(port: int, wanted: Sequence[Dataset]) -> int:
    """The status that a request is answered with."""
    asked = Dataset()
    asked.TransactionUID, asked.ReferencedSOPSequence = "1.2.9", Items(wanted)
    entity = AE(ae_title="CT1")
    entity.add_requested_context(StorageCommitmentPushModel)
    association = entity.associate("127.0.0.1", port, ae_title="CARINA")
    status, _ = association.send_n_action(asked, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    association.release()
    return int(status.Status)


def test_a_destination_with_tls_is_told_by_tls_alone(node: Settings, engine: Engine, certificates: Path) -> None:
    files = {name: str(certificates / name) for name in ("peer.crt", "peer.key", "node.crt", "node.key")}
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files["peer.crt"], files["peer.key"])
    server.load_verify_locations(files["node.crt"])
    server.verify_mode = ssl.CERT_REQUIRED
    ours = {"tls_certificate": files["node.crt"], "tls_key": files["node.key"], "tls_name": "localhost"}
    with asker(server) as peer, asked_of(node, engine, port=peer.port, tls_trusted=files["peer.crt"], **ours) as own:
        assert ask(own.port, references("1.2.3")) == 0x0000
        assert peer.is_told.wait(60)
    assert [(kind, one.TransactionUID) for kind, one in peer.reports] == [(SOME_MISSING, "1.2.9")]


def test_a_destination_with_tls_is_told_nothing_in_the_clear(
    node: Settings, engine: Engine, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trusted = str(certificates / "peer.crt")
    with asker() as peer, asked_of(node, engine, port=peer.port, tls_trusted=trusted, timeout_s=5.0) as own:
        assert ask(own.port, references("1.2.3")) == 0x0000
        for thread in threading.enumerate():
            if thread.name == "commitment":
                thread.join(60)
    assert peer.reports == []
    assert "nothing answers there by TLS" in caplog.text
