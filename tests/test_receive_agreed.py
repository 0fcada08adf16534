"""What a sender negotiates and what it sends: the transfer syntax and the service of the presentation context."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification
from sqlalchemy import Engine, select

from carina.config import Settings
from carina.database import INSTANCE
from carina.receive.listener import DicomListener
from carina.receive.part import IN_MEMORY
from raw_messages import node_for_messages, parts, until
from receiving import echo, listening, rows

GE_IMPLICIT = UID("1.2.840.113619.5.2")
OF_NOBODY = UID("1.2.826.0.1.3680043.8.498.77")


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    return node_for_messages(tmp_path)


@pytest.fixture
def listener(node: Settings, engine: Engine) -> Iterator[DicomListener]:
    with listening(node, engine) as made:
        yield made


def a_ct(uid: str, pixels: int) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = CTImageStorage, uid, "CT"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2", "1.2.3"
    dataset.BitsAllocated = 16
    dataset.add_new("PixelData", "OW", bytes(pixels))
    return dataset


def store(
    port: int,
    *,
    context: UID = CTImageStorage,
    agreed: UID = ExplicitVRLittleEndian,
    implicit: bool = False,
    pixels: int = 512,
) -> int:
    """Send a CT in a presentation context, encoded as one likes; gives the status."""
    sender = AE(ae_title="CT1")
    sender.add_requested_context(context, agreed)
    association = sender.associate("127.0.0.1", port, ae_title="CARINA")
    assert association.is_established
    request = C_STORE()
    request.MessageID, request.Priority = 1, 0
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CTImageStorage, "1.2.3.4"
    request.DataSet = BytesIO(bytes(encode(a_ct("1.2.3.4", pixels), implicit, True)))
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    association.release()
    return int(answer.Status)


@pytest.mark.parametrize("pixels", [512, 2 * IN_MEMORY])
@pytest.mark.parametrize(
    ("agreed", "implicit", "said"),
    [
        (ExplicitVRLittleEndian, True, "its data set is in Implicit VR, agreed on was Explicit VR"),
        (JPEG2000Lossless, True, "its data set is in Implicit VR, agreed on was Explicit VR"),
        (ImplicitVRLittleEndian, False, "its data set is in Explicit VR, agreed on was Implicit VR"),
    ],
)
def test_a_data_set_in_another_encoding_than_was_agreed_on_is_refused_and_the_sender_told(
    listener: DicomListener,
    engine: Engine,
    node: Settings,
    caplog: pytest.LogCaptureFixture,
    agreed: UID,
    said: str,
    pixels: int,
    *,
    implicit: bool,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert store(listener.port, agreed=agreed, implicit=implicit, pixels=pixels) == 0xC000
    (line,) = [one.getMessage() for one in caplog.records]
    assert said in line
    assert line.endswith("[receive.encoding, C000H]")
    assert rows(engine) == 0
    assert until(lambda: not parts(node))
    assert echo(listener.port)


@pytest.mark.parametrize(
    ("agreed", "implicit"),
    [
        (ExplicitVRLittleEndian, False),
        (ImplicitVRLittleEndian, True),
        (GE_IMPLICIT, True),
        (GE_IMPLICIT, False),
    ],
)
def test_what_is_encoded_as_agreed_or_in_a_vendors_own_way_is_stored_under_that_name(
    listener: DicomListener, engine: Engine, agreed: UID, *, implicit: bool
) -> None:
    assert store(listener.port, agreed=agreed, implicit=implicit) == 0
    with engine.connect() as connection:
        assert connection.execute(select(INSTANCE.c.transfer_syntax_uid)).scalars().all() == [agreed]


@pytest.mark.parametrize("pixels", [512, 2 * IN_MEMORY])
@pytest.mark.parametrize("context", [Verification, StorageCommitmentPushModel])
def test_nothing_is_stored_in_the_presentation_context_of_another_service(
    listener: DicomListener,
    engine: Engine,
    node: Settings,
    caplog: pytest.LogCaptureFixture,
    context: UID,
    pixels: int,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert store(listener.port, context=context, pixels=pixels) == 0x0122
    (line,) = [one.getMessage() for one in caplog.records]
    assert f"a presentation context for {context.name}" in line
    assert rows(engine) == 0
    assert until(lambda: not parts(node))


@pytest.mark.parametrize("context", [OF_NOBODY, UID("1.2.840.10008.5.1.4.1.1.7")])
def test_what_comes_in_the_context_of_another_storage_class_is_what_its_data_set_says(
    listener: DicomListener, engine: Engine, context: UID
) -> None:
    assert store(listener.port, context=context) == 0
    with engine.connect() as connection:
        assert connection.execute(select(INSTANCE.c.sop_class_uid)).scalars().all() == [CTImageStorage]
