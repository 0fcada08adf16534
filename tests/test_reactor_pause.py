"""What a peer answers reaches who asked, whenever the threads of an association get the processor."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.events import Event
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from carina.config import DicomDestination
from carina.deliver.association import associated
from carina.deliver.find_scu import found_by_query
from carina.deliver.identity import ObjectIdentity
from carina.deliver.pause import ReactorPause
from carina.deliver.store_scu import ECHO_CONTEXT
from carina.service.logs import log_to
from carina.testing.ports import free_port

ASKED = [
    ObjectIdentity(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=generate_uid(),
        series_uid="2.25.2",
        study_uid="2.25.1",
        transfer_syntax_uid=str(ImplicitVRLittleEndian),
    )
    for _ in range(8)
]


def has_it(event: Event) -> Iterator[tuple[int, Dataset | None]]:
    answer = Dataset()
    answer.SOPInstanceUID = event.identifier.SOPInstanceUID
    answer.QueryRetrieveLevel = "IMAGE"
    yield 0xFF00, answer


@pytest.fixture
def archive() -> Iterator[DicomDestination]:
    """A peer that has whatever it is asked for."""
    entity = AE(ae_title="HAS-ALL")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    entity.add_supported_context(Verification)
    port = free_port()
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_FIND, has_it)])
    yield DicomDestination(host="127.0.0.1", port=port, ae_title="HAS-ALL", timeout_s=20.0)
    server.shutdown()


@pytest.mark.parametrize("reactor_s, asker_s", [(0.0, 0.0), (0.02, 0.08), (0.08, 0.02), (0.05, 0.2)])
def test_no_answer_is_taken_by_the_thread_that_serves(
    archive: DicomDestination, monkeypatch: pytest.MonkeyPatch, reactor_s: float, asker_s: float
) -> None:
    waits, takes = ReactorPause.wait, DIMSEServiceProvider.get_msg

    def late(self: ReactorPause, timeout: float | None = None) -> bool:
        was_paused = not self.is_set()
        goes_on = waits(self, timeout)
        if was_paused:
            time.sleep(reactor_s)
        return goes_on

    def taken_late(self: DIMSEServiceProvider, block: Any = None) -> Any:
        if block:
            time.sleep(asker_s)
        return takes(self, block)

    monkeypatch.setattr(ReactorPause, "wait", late)
    monkeypatch.setattr(DIMSEServiceProvider, "get_msg", taken_late)
    found = found_by_query(ASKED, "archive", archive)
    assert set(found or ()) == {one.sop_instance_uid for one in ASKED}


def test_an_association_that_ended_keeps_nobody_waiting(archive: DicomDestination) -> None:
    with associated("archive", archive, [ECHO_CONTEXT]) as association:
        association.abort()
        association.join()
        association._is_paused = False
        association._reactor_checkpoint.clear()
        assert association._is_paused


def test_whoever_pauses_a_thread_that_waits_is_told_so_whatever_was_said_before() -> None:
    class Waiting(Association):  # type: ignore[misc]  # of pynetdicom, which has no types for its threads
        def __init__(self) -> None:
            threading.Thread.__init__(self, daemon=True)

        def run(self) -> None:
            pause.wait()

    waiting = Waiting()
    pause = ReactorPause(waiting)
    pause._goes_on = False
    waiting.start()
    waiting._is_paused = False
    pause.clear()
    assert waiting._is_paused
    pause.set()
    waiting.join()


def test_a_thread_that_goes_on_late_waits_again_where_it_is_paused_anew() -> None:
    class Served(Association):  # type: ignore[misc]  # of pynetdicom, which has no types for its threads
        def __init__(self) -> None:
            threading.Thread.__init__(self, daemon=True)
            self._is_paused, self.turns = False, 0
            self._kill = False

        def run(self) -> None:
            while not self._kill:
                self._is_paused = True
                pause.wait()
                self._is_paused = False
                self.turns += 1

    served = Served()
    pause = ReactorPause(served)
    served.start()
    for _ in range(2000):
        pause.clear()
        seen = served.turns
        assert served._is_paused
        pause.set()
        pause.clear()  # at once: the thread may not have had the processor
        turns = served.turns
        assert served._is_paused and turns >= seen
        assert served.turns == turns
        pause.set()
    served._kill = True
    pause.set()
    served.join()
    pause.clear()
    assert served._is_paused and served.turns > 0


def test_a_thread_that_an_error_ends_is_one_line_without_the_words_of_the_error() -> None:
    stream = io.StringIO()
    log_to(stream)

    patient = "MUSTERMANN^ERIKA"

    def ends() -> None:
        raise ValueError(patient)

    thread = threading.Thread(target=ends, name="association")
    thread.start()
    thread.join()
    (line,) = stream.getvalue().splitlines()
    said = json.loads(line)
    assert (said["code"], said["thread_name"], said["level"]) == ("bug.ValueError", "association", "error")
    assert "ends" in said["traceback"] and patient not in line
