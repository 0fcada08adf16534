"""Instances that are refused by the thousand: the log has the first of each reason, and how many there were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from sqlalchemy import Engine

from carina.config import Settings
from carina.receive.listener import DicomListener
from carina.receive.refused import REFUSALS_TOLD
from receiving import listening, receiver_settings
from waiting import wait_until

TIMES = 25


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    return receiver_settings(tmp_path)


@pytest.fixture
def listener(node: Settings, engine: Engine) -> Iterator[DicomListener]:
    with listening(node, engine) as made:
        yield made


def send_without_study(listener: DicomListener) -> None:
    """Send instances that lack their study's UID on one association."""
    sent = Dataset()
    sent.file_meta = FileMetaDataset()
    sent.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    sent.SOPClassUID = CTImageStorage
    sender = AE(ae_title="CT1")
    sender.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = sender.associate("127.0.0.1", listener.port, ae_title="CARINA")
    for number in range(TIMES):
        sent.SOPInstanceUID = f"1.2.{number}"
        assert association.send_c_store(sent).Status == 0xC000
    association.release()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "carina.receive.listener" and one.levelno >= 30]


def test_of_an_association_the_first_of_a_reason_are_told_and_their_number(
    listener: DicomListener, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        send_without_study(listener)
    wait_until(lambda: not listener._refusals)  # the end of an association is told when its connection closes
    ends = f"from CT1@127.0.0.1: {TIMES} instances were refused for one reason [receive.uid]; the first 10 are above."
    assert told(caplog).count(ends) == 2
    assert len(told(caplog)) == 2 * (REFUSALS_TOLD + 1)
