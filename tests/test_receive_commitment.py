"""Storage commitment as its provider: what is reported to whom, and what is refused."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.dsutils import encode
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from sqlalchemy import Engine, Row

from carina.config import DicomDestination, Settings
from carina.receive import commitment
from carina.receive.commitment import SOME_MISSING, read_request
from carina.receive.files import arriving_file, read_says
from carina.receive.instance import NotAccepted
from carina.receive.listener import DicomListener
from carina.receive.store import InstanceStore, SentBy
from carina.testing.ports import free_port
from certificates import self_signed
from received_files import new_store, small_ct
from receiving import commitment_report, receiver_settings
from waiting import wait_until


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    return receiver_settings(tmp_path)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed certificates with their keys, of the peer and of the node."""
    return self_signed(tmp_path_factory.mktemp("tls"), "peer", "node")


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


def information(wanted: Sequence[Dataset], transaction: str = "1.2.9") -> Dataset:
    asked = Dataset()
    asked.TransactionUID, asked.ReferencedSOPSequence = transaction, Items(wanted)
    return asked


def ask(
    port: int, asked: Dataset, *, action: int = 1, instance: str = StorageCommitmentPushModelInstance, who: str = "CT1"
) -> int:
    """The status that a request is answered with."""
    entity = AE(ae_title=who)
    entity.add_requested_context(StorageCommitmentPushModel)
    association = entity.associate("127.0.0.1", port, ae_title="CARINA")
    status, _ = association.send_n_action(asked, action, StorageCommitmentPushModel, instance)
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
        assert ask(own.port, information(references("1.2.3"))) == 0x0000
        wait_until(peer.is_told.is_set)
    assert [(kind, one.TransactionUID) for kind, one in peer.reports] == [(SOME_MISSING, "1.2.9")]


def test_a_destination_with_tls_is_told_nothing_in_the_clear(
    node: Settings, engine: Engine, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trusted = str(certificates / "peer.crt")
    with asker() as peer, asked_of(node, engine, port=peer.port, tls_trusted=trusted, timeout_s=5.0) as own:
        assert ask(own.port, information(references("1.2.3"))) == 0x0000
        wait_until(lambda: "can't be reached: it speaks no TLS on this port" in caplog.text)
    assert peer.reports == []


def test_who_is_away_is_told_after_a_restart_of_the_node(node: Settings, engine: Engine) -> None:
    away = free_port()
    with asked_of(node, engine, port=away) as own:
        assert ask(own.port, information(references("1.2.3"), "1.2.10")) == 0x0000
    with asker() as peer, asked_of(node, engine, port=peer.port):
        wait_until(peer.is_told.is_set)
    assert [one.TransactionUID for _, one in peer.reports] == ["1.2.10"]


def without(keyword: str, asked: Dataset) -> Dataset:
    del asked[keyword]
    return asked


REFUSED: dict[str, tuple[int, Dataset, dict[str, Any]]] = {
    "no Transaction UID": (0x0115, without("TransactionUID", information(references("1.2.3"))), {}),
    "a Transaction UID that is none": (0x0115, information(references("1.2.3"), "abc"), {}),
    "no sequence": (0x0115, without("ReferencedSOPSequence", information([])), {}),
    "an empty sequence": (0x0115, information([]), {}),
    "an empty item": (0x0115, information([Dataset()]), {}),
    "an instance without its UID": (0x0115, information(references("1.2.3", "")), {}),
    "another SOP Instance": (0x0112, information(references("1.2.3")), {"instance": "1.2.3.4"}),
    "another action": (0x0123, information(references("1.2.3")), {"action": 2}),
    "nobody who can be told": (0x0124, information(references("1.2.3")), {"who": "STRANGER"}),
}


def test_what_can_not_be_answered_is_refused_and_nothing_reported(node: Settings, engine: Engine) -> None:
    with asker() as peer, asked_of(node, engine, port=peer.port) as own:
        got = {what: ask(own.port, asked, **how) for what, (_, asked, how) in REFUSED.items()}
        assert ask(own.port, information(references("1.2.3"))) == 0x0000
        wait_until(peer.is_told.is_set)
    assert got == {what: status for what, (status, *_) in REFUSED.items()}
    assert len(peer.reports) == 1, "of the last alone"


def test_who_is_let_in_for_its_reports_alone_is_committed_to_nothing(node: Settings, engine: Engine) -> None:
    source = replace(node.sources["any"], callers=("CT2",))
    with asked_of(replace(node, sources={"any": source}), engine, port=1, commitment=True) as own:
        assert ask(own.port, information(references("1.2.3"))) == 0x0124


def filled(folder: Path, *uids: str) -> InstanceStore:
    """A store that took instances in."""
    store = new_store(folder)
    for uid in uids:
        file = folder / f"{uid}.dcm"
        file.write_bytes(small_ct(uid))
        with arriving_file(file, read_says(file)) as arriving:
            store.accept(arriving, SentBy("scanner", "CT1@127.0.0.1"))
    return store


def test_each_instance_is_looked_at_once_and_its_class_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path, "1.2.3.0", "1.2.3.1", "1.2.3.2")
    looked: list[str] = []

    def look(_: object, row: Row[Any]) -> bool:
        looked.append(row.sop_instance_uid)
        return True

    monkeypatch.setattr(commitment, "is_intact", look)
    monkeypatch.setattr(commitment, "assure", look)
    monkeypatch.setattr(commitment, "UIDS_AT_ONCE", 2)
    wrong = references("1.2.3.2", sop_class="1.2.840.10008.5.1.4.1.1.4")
    wanted = [*references("1.2.3.0", "1.2.3.9", "1.2.3.1") * 50, *wrong * 3, *references("no UID")]
    asked = information(wanted)
    event, report = commitment_report(store.settings, store.engine, asked)
    assert event == SOME_MISSING
    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == ["1.2.3.0", "1.2.3.1"]
    failed = {item.ReferencedSOPInstanceUID: item.FailureReason for item in report.FailedSOPSequence}
    assert failed == {"1.2.3.9": 0x0112, "1.2.3.2": 0x0119, "no UID": 0x0112}
    assert sorted(looked) == ["1.2.3.0", "1.2.3.1"]


@pytest.mark.parametrize("is_implicit", [False, True])
@pytest.mark.parametrize("is_undefined", [False, True])
def test_a_request_is_read_however_it_is_written(*, is_implicit: bool, is_undefined: bool) -> None:
    wanted = references("1.2.3.1", "1.2.3.22", "1.2.3.1")
    wanted[1].add_new(0x00081160, "IS", "7")
    asked = information(wanted)
    asked.add_new(0x00091001, "LO", "private")
    asked["ReferencedSOPSequence"].is_undefined_length = is_undefined
    for item in wanted:
        item.is_undefined_length_sequence_item = is_undefined
    data = encode(asked, is_implicit, True) or b""
    request = read_request(data, "trial", is_implicit=is_implicit)
    assert request.transaction_uid == asked.TransactionUID and request.project == "trial"
    assert request.references == ((CTImageStorage, "1.2.3.1"), (CTImageStorage, "1.2.3.22"))
    for length in range(len(data)):  # whatever it lacks is no error but its refusal
        with suppress(NotAccepted):
            read_request(data[:length], "trial", is_implicit=is_implicit)


def test_values_that_are_no_single_uid_are_refused() -> None:
    for uid in ("1.2.3\\1.2.4", " ", "\0"):
        wanted = references("1.2.3.1")
        wanted[0].add_new(0x00081155, "UI", uid)
        with pytest.raises(NotAccepted, match="lacks its SOP class or instance"):
            read_request(encode(information(wanted), False, True) or b"", "")
    with pytest.raises(NotAccepted, match="can't be followed"):
        read_request((encode(information(references("1.2.3.1")), False, True) or b"")[:-9], "")


def test_a_file_that_can_not_be_put_on_the_disk_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bool:
        raise OSError(5, "Input/output error")

    store = filled(tmp_path, "1.2.3.1")
    monkeypatch.setattr(commitment, "is_intact", broken)
    monkeypatch.setattr(commitment, "assure", broken)
    _, report = commitment_report(store.settings, store.engine, information(references("1.2.3.1")))
    assert [item.FailureReason for item in report.FailedSOPSequence] == [0x0110]
