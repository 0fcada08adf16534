"""Earlier scans of a patient: which scans are one patient's, and how they are found from a job and its viewer."""

from __future__ import annotations

import re
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from carina.database import ARRIVAL, REMOVAL, SCHEMA
from carina.jobs.earlier import EarlierScan, earlier_scans
from carina.jobs.scan import iso_date, scan_of_header
from carina.receive.patient import ASKED_OF_PATIENTS, ScanOf, is_earlier, scan_of, study_moment
from carina.receive.store import InstanceStore, SentBy
from carina.receive.stow import StowRequest, store_over_the_web
from carina.service.node import RunningNode
from carina.synth.phantom import PhantomLesion, chest_phantom
from received_files import new_store, small_ct
from served_nodes import NOON, add_job, opened, serving
from viewer_runs import posed, write_run

PATIENT = {"PatientID": "KW-4711", "StudyDate": "20260301"}
NUMBERS = count(1)


def said(**more: str) -> dict[str, str]:
    return dict.fromkeys(ASKED_OF_PATIENTS, "") | more


@pytest.mark.parametrize(
    "patient_id",
    ["", "0", "0000", "-", "^^^", "ANONYMOUS", "anon 12", "Anonymized_", "UNKNOWN", "n/a", "NoID", "x", "Test "],
)
def test_what_stands_for_many_patients_is_nobodys(patient_id: str) -> None:
    assert not scan_of(said(PatientID=patient_id)).whose("scanner")


@pytest.mark.parametrize("text", ["A\\B", "A" * 65, "A\x00B", "A\nB"])
def test_what_is_no_value_is_nobodys(text: str) -> None:
    assert not scan_of(said(PatientID=text)).whose("scanner")
    assert not scan_of(said(PatientID="KW-1", IssuerOfPatientID=text)).whose("scanner")


@pytest.mark.parametrize(
    "patient_id",
    ["4711", "P1", "ANONA", "NA 0012", "X1", "Test-3", "TESTA 4", "00012", " 12 ", "Ä-1", "患者1", "A" * 64],
)
def test_an_id_is_a_patients(patient_id: str) -> None:
    found = scan_of(said(PatientID=patient_id))
    assert found.patient_id == patient_id.strip()
    assert re.fullmatch(r"[0-9a-f]{64}", found.whose("scanner"))
    assert not scan_of(said(PatientID=patient_id, PatientIdentityRemoved="YES ")).whose("scanner")
    assert scan_of(said(PatientID=patient_id, PatientIdentityRemoved="NO")).whose("scanner") == found.whose("scanner")


NAMES = st.sampled_from(["A", "B", "A B", "AB"])


@given(NAMES, NAMES, st.one_of(st.just(""), NAMES), st.one_of(st.just(""), NAMES), NAMES, NAMES)
def test_one_patient_has_one_id_of_one_issuer_or_of_one_source(
    id_1: str, id_2: str, issuer_1: str, issuer_2: str, source_1: str, source_2: str
) -> None:
    one, other = ScanOf(patient_id=id_1, issuer=issuer_1), ScanOf(patient_id=id_2, issuer=issuer_2)
    is_one = id_1 == id_2 and issuer_1 == issuer_2 and (bool(issuer_1) or source_1 == source_2)
    assert (one.whose(source_1) == other.whose(source_2)) is is_one


@pytest.mark.parametrize(
    ("date", "time", "moment"),
    [
        ("20260301", "101112.123", "20260301101112"),
        ("20260301", "", "20260301"),
        ("20260301", "101112.", "20260301101112"),
        ("20260301", "101160", "20260301101160"),
        ("20260301", "1011 ", "202603011011"),
        ("20260301", "10", "2026030110"),
        ("20260301", "10:11", "20260301"),
        ("20260301", "1", "20260301"),
        ("20260301", "101", "20260301"),
        ("20260301", "10111", "20260301"),
        ("20260301", "1011.5", "20260301"),
        ("20260301", "24", "20260301"),
        ("20260301", "1060", "20260301"),
        ("20260301", "101161", "20260301"),
        ("20260301", "1011121", "20260301"),
        ("2026.03.01", "101112", ""),
        ("", "101112", ""),
        ("\uff12\uff10260301", "", ""),
    ],
)
def test_a_study_was_made_at_the_moment_that_it_gives(date: str, time: str, moment: str) -> None:
    assert study_moment(date, time) == moment


DAYS = st.dates(date(2026, 3, 1), date(2026, 3, 3))
CLOCKS = st.times().map(lambda one: f"{one:%H%M%S}")
GIVEN = st.sampled_from([0, 2, 4, 6])


@given(DAYS, CLOCKS, GIVEN, DAYS, CLOCKS, GIVEN)
def test_what_is_earlier_was_earlier_whatever_is_not_given(
    day: date, clock: str, given: int, other_day: date, other_clock: str, other_given: int
) -> None:
    """A study is earlier only if it is at every moment that both can have been made at, and then it is said."""
    first, last = (day, clock[:given].ljust(6, "0")), (day, clock[:given].ljust(6, "9"))
    other_first = (other_day, other_clock[:other_given].ljust(6, "0"))
    other_last = (other_day, other_clock[:other_given].ljust(6, "9"))
    one = study_moment(f"{day:%Y%m%d}", clock[:given])
    other = study_moment(f"{other_day:%Y%m%d}", other_clock[:other_given])
    assert is_earlier(one, other) is (last < other_first)
    assert is_earlier(other, one) is (other_last < first)


def test_no_moment_is_neither_earlier_nor_later() -> None:
    assert not is_earlier("", "20260301")
    assert not is_earlier("20260301", "")


def receive(store: InstanceStore, source: str, series: str = "", **header: Any) -> int:
    """An instance of a series and study of its own; the id of its arrival."""
    number = next(NUMBERS)
    content = small_ct(
        f"2.25.{number}.9", series or f"2.25.{number}.1", **{"StudyInstanceUID": f"2.25.{number}"} | header
    )
    request = StowRequest(origin=SentBy(source, "PACS@127.0.0.1"), content_type="application/dicom")
    assert store_over_the_web(store, request, [content]).status == 200
    with store.engine.connect() as connection:
        return int(connection.execute(select(ARRIVAL.c.id).order_by(ARRIVAL.c.id.desc())).scalars().first() or 0)


def test_an_arrival_of_two_patients_is_nobodys(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    for patient in ("KW-1", "KW-2", "KW-1"):
        receive(store, "scanner", "1.2.3", PatientID=patient, StudyInstanceUID="1.2")
    with store.engine.connect() as connection:
        assert connection.execute(select(ARRIVAL.c.whose_sha256)).scalars().all() == [""]


def found(node: RunningNode, job: int) -> list[int]:
    with node.engine.connect() as connection:
        return [one.job_id for one in earlier_scans(connection, job)]


OTHERS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "another id": ({}, {"PatientID": "KW-4712"}),
    "another issuer": ({"IssuerOfPatientID": "A"}, {"IssuerOfPatientID": "B"}),
    "no issuer": ({"IssuerOfPatientID": "A"}, {}),
    "no id": ({"PatientID": ""}, {"PatientID": ""}),
    "de-identified": ({"PatientIdentityRemoved": "YES"}, {"PatientIdentityRemoved": "YES"}),
    "one of them de-identified": ({}, {"PatientIdentityRemoved": "YES"}),
    "no date": ({}, {"StudyDate": ""}),
    "the same moment": ({}, {"StudyDate": "20260401"}),
    "later": ({}, {"StudyDate": "20260402"}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_patients_scan_is_not_an_earlier_one(tmp_path: Path, name: str) -> None:
    node = opened(tmp_path)
    this, other = OTHERS[name]
    add_job(node, receive(node.store, "scanner", **PATIENT | other))
    job = add_job(node, receive(node.store, "scanner", **PATIENT | {"StudyDate": "20260401"} | this))
    assert found(node, job) == []


@pytest.mark.parametrize(("issuer", "source", "is_one"), [("", "scanner", True), ("", "b", False), ("K", "b", True)])
def test_without_an_issuer_a_patient_is_one_sources(tmp_path: Path, issuer: str, source: str, is_one: bool) -> None:  # noqa: FBT001
    node = opened(tmp_path)
    header = PATIENT | {"IssuerOfPatientID": issuer}
    before = add_job(node, receive(node.store, "scanner", **header))
    job = add_job(node, receive(node.store, source, **header | {"StudyDate": "20260401"}))
    assert found(node, job) == ([before] if is_one else [])


MOMENTS = ["", "20260331", "20260401", "2026040108", "202604010815", "20260401081500", "20260401101500", "202604011016"]


def test_earlier_in_the_database_is_earlier(tmp_path: Path) -> None:
    node = opened(tmp_path)
    made: dict[str, int] = {}
    for moment in MOMENTS:
        header = {"PatientID": "KW-4711", "StudyDate": moment[:8], "StudyTime": moment[8:]}
        made[moment] = add_job(node, receive(node.store, "scanner", **header), series_uid=f"1.{len(made)}")
    for moment, job in made.items():
        earlier = {made[one] for one in MOMENTS if is_earlier(one, moment)}
        assert set(found(node, job)) == earlier, moment


def test_earlier_scans_are_healthy_runs_of_the_same_pipeline_the_latest_study_first(tmp_path: Path) -> None:
    node = opened(tmp_path)
    dates = ("20250101", "20260301", "20240101")
    arrivals = [receive(node.store, "scanner", **PATIENT | {"StudyDate": date}) for date in dates]
    jobs = [add_job(node, arrival, series_uid=f"1.{arrival}") for arrival in arrivals]
    add_job(node, arrivals[0], series_uid=f"1.{arrivals[0]}", ended="faulted")
    add_job(node, arrivals[0], series_uid=f"1.{arrivals[0]}", pipeline="other")
    again = add_job(node, arrivals[0], series_uid=f"1.{arrivals[0]}")
    with node.engine.begin() as connection:
        gone = {"kind": "run", "subject_id": jobs[2], "why": "old", "begun_at": NOON}
        connection.execute(insert(REMOVAL), gone)
    job = add_job(node, receive(node.store, "scanner", **PATIENT | {"StudyDate": "20260401"}), series_uid="2.1")
    assert found(node, job) == [jobs[1], again]
    assert found(node, add_job(node, None)) == []
    with node.engine.begin() as connection:
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == arrivals[1]).values(study_uid="1.2"))
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == arrivals[0]).values(study_uid="1.2"))
    assert found(node, again) == []


def test_a_job_links_to_the_earlier_scan_and_the_viewer_compares_both(tmp_path: Path) -> None:
    node = opened(tmp_path)
    before = add_job(node, receive(node.store, "scanner", **PATIENT), series_uid="1.1")
    job = add_job(node, receive(node.store, "scanner", **PATIENT | {"StudyDate": "20260401"}), series_uid="1.2")
    stranger = add_job(node, receive(node.store, "scanner", PatientID="KW-1", StudyDate="20260301"))
    larger = [PhantomLesion(centre_mm=(80.0, 30.0, -55.0), radii_mm=(26.0, 26.0, 26.0))]
    write_run(chest_phantom(shape=(40, 96, 96), lesions=larger, seed=4), node.folder / "runs" / str(before))
    write_run(posed("plain"), node.folder / "runs" / str(job))
    (node.folder / "runs" / str(job) / "dicom").mkdir()
    with serving(node) as url, httpx.Client(base_url=url) as client:
        page = client.get(f"/jobs/{job}").text
        link = f"/jobs/{job}/view/changes?earlier={before}"
        assert f'2026-03-01: <a href="/jobs/{before}">job {before}</a>, <a href="{link}">compare</a>' in page
        changes = client.get(link).text
        assert "the volume marked as lesion" in changes
        assert client.get(f"/jobs/{job}/view/changes").text == changes
        earlier, later = re.findall(r'<img[^>]* src="([^"?]+)', changes)
        assert earlier.startswith(f"/jobs/{job}/view/earlier/{before}/slice/")
        assert later.startswith(f"/jobs/{job}/view/slice/")
        assert client.get(earlier).headers["content-type"] == "image/png"
        assert f'href="/jobs/{job}/view/changes"' in client.get(f"/jobs/{job}/view/").text
        refused = client.get(f"/jobs/{job}/view/earlier/{stranger}/report")
        assert (refused.status_code, f"no earlier run {stranger}; known: {before}." in refused.text) == (404, True)


def test_a_first_scan_says_that_there_is_none_earlier(tmp_path: Path) -> None:
    node = opened(tmp_path)
    job = add_job(node, receive(node.store, "scanner", **PATIENT))
    write_run(posed("plain"), node.folder / "runs" / str(job))
    with serving(node) as url, httpx.Client(base_url=url) as client:
        assert "Earlier scans" not in client.get(f"/jobs/{job}").text
        told = client.get(f"/jobs/{job}/view/changes").text
        assert "No earlier scan of this patient was run here" in told
        assert "carina fetch NAME --patient ID" in told and "in the project of this one" in told
        assert "<table" not in told and "<form" not in told


def test_the_id_is_in_no_listing_and_no_table(tmp_path: Path) -> None:
    node = opened(tmp_path)
    job = add_job(node, receive(node.store, "scanner", **PATIENT))
    with serving(node) as url, httpx.Client(base_url=url) as client:
        texts = [client.get(path).text for path in ("/", f"/jobs/{job}", "/api/v1/arrivals", "/api/v1/jobs")]
    with node.engine.connect() as connection:
        texts += [str(row) for table in SCHEMA.tables.values() for row in connection.execute(select(table))]
        whose = connection.execute(select(ARRIVAL.c.whose_sha256)).scalars().all()
    assert "2.25" in "".join(texts)
    assert not [text for text in texts if "KW-4711" in text]
    assert not [text for text in texts[:4] if whose[0] in text]


IMPOSSIBLE = ("20261399", "20260230", "00000000", "2026-1-1", "")


@pytest.mark.parametrize("date", IMPOSSIBLE)
def test_a_day_that_there_is_not_is_shown_nowhere(date: str) -> None:
    assert iso_date(date) == ""
    assert scan_of_header({"StudyDate": date}).words == ""
    assert study_moment(date, "1015") == ""
    assert EarlierScan(job_id=1, series_uid="", folder="", studied=date).on is None
    assert iso_date("20260228101500") == "2026-02-28"
