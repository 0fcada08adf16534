"""Searches of a DICOMweb server that does what no server should: bounded, and never taken for nothing there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from pydicom.uid import ImplicitVRLittleEndian

from carina.config import DicomDestination, DicomwebDestination
from carina.deliver.identity import ObjectIdentity
from carina.deliver.paced_http import LEAST_PROGRESS
from carina.deliver.qido import found_by_qido
from carina.errors import BadConfig, DeliveryFailed
from carina.receive import web_fetch
from carina.receive.fetch import Wanted
from carina.receive.pull import find_at
from carina.receive.web_fetch import ASKED_AT_ONCE, search_series
from web_answers import Answer, answering, drip, head, listed, study


def test_a_search_ends_where_the_server_repeats_itself() -> None:
    pages: list[int] = []

    def repeating(path: str) -> Answer:
        pages.append(1)
        return listed(
            [study("1.2.3", **{"00080050": "A1"})] * ASKED_AT_ONCE if path.startswith("/web/studies?") else []
        )

    with answering(repeating) as server:
        assert search_series("web", server, Wanted(accession="A1")) == ()
    assert len(pages) == 3  # two of studies, one of the study's series


@pytest.mark.parametrize(
    "items",
    [
        [study("../../escape")],
        [study("1.2.3", **{"00080050": "ANOTHER"})],
        [{"0020000D": {"vr": "UI"}}],
    ],
)
def test_what_does_not_fit_a_query_is_passed_over(items: object) -> None:
    asked: list[str] = []

    def answer(path: str) -> Answer:
        asked.append(path)
        return listed(items)

    with answering(answer) as server:
        assert search_series("web", server, Wanted(accession="A1")) == ()
    assert {path.partition("?")[0] for path in asked} == {"/web/studies"}


def piece(body: bytes, more: str = "", code: int = 200) -> Answer:
    return [head("application/dicom+json", code, more) + body]


LIST = json.dumps([study("1.2.3", **{"00080050": "A1"})]).encode()

NO_ANSWERS: dict[str, tuple[Callable[[], Answer], str, str]] = {
    "nothing at all": (lambda: piece(b""), "delivery.no-json", "is no list in JSON"),
    "a page to log in at": (lambda: piece(b"<html>"), "delivery.no-json", "is no list in JSON"),
    "no text": (lambda: piece(b"\xff\xfe"), "delivery.no-json", "is no list in JSON"),
    "a mapping": (lambda: piece(b'{"0020000D": "x"}'), "delivery.no-json", "is no list in JSON"),
    "nested": (lambda: piece(b"[" * 100_000), "delivery.no-json", "is no list in JSON"),
    "many values": (lambda: piece(b"[" + b"{}," * 2_000_000 + b"{}]"), "delivery.no-json", "at most 1000000 values"),
    "no data sets": (lambda: piece(b'[1, null, "x"]'), "delivery.no-json", "is no data set"),
    "no attributes": (lambda: piece(b'[{"0020000D": 5}]'), "delivery.no-json", "is no data set"),
    "half a list": (lambda: piece(LIST[:40]), "delivery.no-json", "is no list in JSON"),
    "cut off": (
        lambda: piece(LIST[:40], f"Content-Length: {len(LIST)}\r\n"),
        "delivery.cut-off",
        "bytes before its end",
    ),
    "cut off before it": (lambda: piece(b"", "Content-Length: 9\r\n"), "delivery.cut-off", "9 bytes before its end"),
    "cut after a whole list": (lambda: piece(b"[]", "Content-Length: 9\r\n"), "delivery.cut-off", "broke off, 7 by"),
    "a chunk cut off": (
        lambda: piece(b"ff\r\n[", "Transfer-Encoding: chunked\r\n"),
        "delivery.unreachable",
        "IncompleteRead",
    ),
    "endless": (lambda: without_end(b"[" + b" " * LEAST_PROGRESS), "delivery.endless", "larger than any is"),
    "drips": (lambda: drip(head("application/dicom+json") + b"["), "delivery.unreachable", "only [0-9]+ bytes came in"),
}


def without_end(first: bytes) -> Answer:
    yield from piece(first)
    while True:
        yield b" " * LEAST_PROGRESS


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_what_is_no_whole_answer_is_never_nothing_there(name: str) -> None:
    answer, code, words = NO_ANSWERS[name]
    one = ObjectIdentity(
        study_uid="1.2",
        series_uid="1.2.3",
        sop_class_uid="1.2.4",
        sop_instance_uid="1.2.5",
        transfer_syntax_uid=ImplicitVRLittleEndian,
    )
    asks: list[Callable[[DicomwebDestination], object]] = [
        lambda server: search_series("web", server, Wanted(accession="A1")),
        lambda server: found_by_qido([one], "web", server),
    ]
    with answering(lambda _: answer(), timeout_s=0.3) as server:
        for ask in asks:
            with pytest.raises(DeliveryFailed, match=f"^web .*{words}") as said:
                ask(server)
            assert (said.value.code, said.value.exit_code) == (code, 6)


def test_no_content_is_nothing_there() -> None:
    with answering(lambda _: piece(b"", code=204)) as server:
        assert search_series("web", server, Wanted(accession="A1")) == ()


@pytest.mark.parametrize(
    ("bound", "code", "words"),
    [
        ({"MOST_REQUESTS": 9}, "delivery.endless", "its answers go on without end"),
        ({"MOST_SEARCH_BYTES": 4000}, "delivery.endless", "its answer is larger than any is"),
        ({"MOST_SEARCH_S": -1.0}, "delivery.endless", "its answer takes too long"),
        ({"MOST_ANSWERS": 40}, "fetch.too-many", "more than 40 answers to one search"),
    ],
)
def test_a_search_is_bounded_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, bound: dict[str, float], code: str, words: str
) -> None:
    """A server of a few studies, each of a few series: no query is over a bound, all of them together are."""
    for name, value in bound.items():
        monkeypatch.setattr(web_fetch, name, value)

    def answer(path: str) -> Answer:
        of_study = re.search(r"/studies/([0-9.]+)/series", path)
        if not path.endswith("offset=0"):
            return listed([])
        above, tag = (of_study[1], "0020000E") if of_study else ("1.2", "0020000D")
        more = {"00080060": "CT"} if of_study else {"00080050": "A1"}
        return listed([study("1.2", **{tag: f"{above}.{number}"}, **more) for number in range(1, 9)])

    with answering(answer) as server, pytest.raises(DeliveryFailed, match=words) as said:
        search_series("web", server, Wanted(accession="A1"))
    assert said.value.code == code
    monkeypatch.undo()
    with answering(answer) as server:
        assert len(search_series("web", server, Wanted(accession="A1"))) == 64


def test_a_search_is_not_redirected_and_says_what_was_answered() -> None:
    moved = head("text/plain", 307, "Location: http://127.0.0.1:9/\r\n")
    with answering(lambda _: [moved]) as server, pytest.raises(DeliveryFailed, match="answered 307 Temporary Redirect"):
        search_series("web", server, Wanted(accession="A1"))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            Wanted(patient_id="*"),
            r"the patient ID has \*, \? or \\ .*, by which a query fits others too; expected one",
        ),
        (Wanted(patient_id="47?1"), "the patient ID has"),
        (Wanted(accession="A1\\A2"), "the accession number has"),
        (Wanted(accession="A1\n"), "the accession number has"),
        (Wanted(accession=" "), "a blank accession number fits everything"),
        (Wanted(study_uid="1.2.*"), r"Study Instance UID '1\.2\.\*' is none, or not one alone"),
        (Wanted(study_uid="1.2", series_uid="1.2\\1.3"), "Series Instance UID"),
    ],
)
def test_a_key_that_fits_more_than_one_value_is_asked_of_nobody(wanted: Wanted, words: str) -> None:
    """Of either kind of peer: what fits would be fetched, of whichever patient it is."""
    web, node = DicomwebDestination(url="http://127.0.0.1:9"), DicomDestination(host="::1", port=9, ae_title="AWAY")
    for peer in (web, node):
        with pytest.raises(BadConfig, match=words):
            find_at("away", peer, wanted)
