"""A search that finds without end is ended: by its answers, over all its queries, and by its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from carina.config import DicomDestination
from carina.errors import DeliveryFailed
from carina.receive.fetch import Wanted, find_on_node


def _found(level: str, number: int) -> tuple[int, Dataset]:
    found = Dataset()
    found.QueryRetrieveLevel, found.Modality = level, "CT"
    found.StudyInstanceUID, found.SeriesInstanceUID = f"1.2.{number}", f"1.2.{number}.1"
    return 0xFF00, found


def one_query(_: str) -> Iterator[tuple[int, Dataset]]:
    yield from (_found("STUDY", number) for number in range(10**9))


def many_queries(level: str) -> Iterator[tuple[int, Dataset]]:
    """Ten studies, each with far fewer series than a query may find."""
    yield from (_found(level, number) for number in range(10 if level == "STUDY" else 90))


def slow_queries(level: str) -> Iterator[tuple[int, Dataset]]:
    for found in many_queries(level):
        time.sleep(0.05 if level == "SERIES" else 0)
        yield found


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (one_query, "more than 300 answers to one search; ask for less"),
        (many_queries, "more than 300 answers to one search; ask for less"),
        (slow_queries, "no end within 2 s; ask for less"),
    ],
)
def test_a_search_without_end_is_ended(
    answers: Callable[[str], Iterator[tuple[int, Dataset]]], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carina.receive.fetch.MOST_ANSWERS", 300)
    if answers is slow_queries:
        monkeypatch.setattr("carina.receive.fetch.SEARCHED_S", 2.0)

    def answer(event: Event) -> Iterator[tuple[int, Dataset]]:
        yield from answers(str(event.identifier.QueryRetrieveLevel))

    entity = AE(ae_title="ENDLESS")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, answer)])
    assert server is not None
    try:
        peer = DicomDestination(host="127.0.0.1", port=server.server_address[1], ae_title="ENDLESS")
        with pytest.raises(DeliveryFailed, match=words):
            find_on_node("endless", peer, Wanted(patient_id="KW-4711"))
    finally:
        server.shutdown()
