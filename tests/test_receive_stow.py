"""STOW-RS in: every instance of a body is accounted for, however the body is cut; what is hostile costs nothing."""

from __future__ import annotations

import logging
import random
import re
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import CTImageStorage

from carina.receive import multipart
from carina.receive.multipart import BadBody, MultipartParts
from carina.receive.refused import REFUSALS_TOLD
from carina.receive.store import InstanceStore, SentBy
from carina.receive.stow import NAMELESS_LISTED, StowAnswer, StowRequest, store_over_the_web
from carina.testing.hostile import damage
from received_files import arrival_states, instance_rows, new_store, small_ct, stored_files

BOUNDARY = "a=b'c"
EMPTY, ANOTHER = ["receive.no-instance, C000H]"], ["receive.uid, C000H]"]
TYPE = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'
ORIGIN = SentBy("stow", "127.0.0.1")
PART = b"Content-Type: application/dicom"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[InstanceStore]:
    made = new_store(tmp_path)
    yield made
    made.engine.dispose()


def body_of(parts: Iterable[bytes], head: bytes = PART) -> bytes:
    mark = b"--" + BOUNDARY.encode()
    return b"".join(mark + b"\r\n" + head + b"\r\n\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"


def cut(body: bytes, size: int) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


def post(store: InstanceStore, body: bytes, *, content_type: str = TYPE, size: int = 1000, **more: str) -> StowAnswer:
    request = StowRequest(origin=ORIGIN, content_type=content_type, **more)
    return store_over_the_web(store, request, cut(body, size))


def listed(answer: StowAnswer, tag: str, of: str) -> list[Any]:
    return [item.get(of, {"Value": [None]})["Value"][0] for item in answer.body.get(tag, {"Value": []})["Value"]]


NEARLY = st.sampled_from(
    [b"\r\n--a=b'c", b"\r\n--a=b'c-", b"\r\n--a=b'c \r", b"\r\n--a=b'", b"\r\n--", b"\r\n-", b"\r", b"--a=b'c", b"\n"]
)

IS_BOUNDARY = re.compile(rb"\r\n--a=b'c(--|[ \t]*\r\n)")


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(st.lists(st.one_of(NEARLY, st.binary(max_size=20)), max_size=5).map(b"".join), max_size=4),
    size=st.integers(1, 60),
    preamble=st.sampled_from([b"", b"\r\n", b"This is MIME.\r\n"]),
    epilogue=st.binary(max_size=20),
)
def test_parts_come_out_as_they_went_in(parts: list[bytes], size: int, preamble: bytes, epilogue: bytes) -> None:
    whole = preamble + body_of(parts) + epilogue
    if any(IS_BOUNDARY.search(b"\r\n" + part + b"\r\n") for part in parts):
        return
    read = [(kind.name, b"".join(data)) for kind, data in MultipartParts(cut(whole, size), BOUNDARY)]
    assert read == [("application/dicom", part) for part in parts]


def test_what_is_not_read_of_a_part_is_passed_over() -> None:
    parts = MultipartParts(cut(body_of([b"x" * 5000, b"second"]), 10_000), BOUNDARY)
    assert [next(data) for _, data in parts][1:] == [b"second"]


@pytest.mark.parametrize("size", [1, 7, 4096, 10**6])
def test_a_body_is_stored_and_every_instance_listed(store: InstanceStore, size: int) -> None:
    contents = [small_ct(f"1.2.3.{number}") for number in range(3)]
    answer = post(store, body_of(contents), size=size, retrieve_root="http://node/dicom-web")
    assert (answer.status, answer.message) == (200, "")
    assert listed(answer, "00081199", "00081155") == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]
    assert listed(answer, "00081199", "00081150") == [CTImageStorage] * 3
    assert (
        listed(answer, "00081199", "00081190")[0] == "http://node/dicom-web/studies/1.2/series/1.2.3/instances/1.2.3.0"
    )
    assert answer.body["00081190"] == {"vr": "UR", "Value": ["http://node/dicom-web/studies/1.2"]}
    assert set(answer.body) == {"00081190", "00081199"}
    assert [dcmread(file).SOPInstanceUID for file in stored_files(store)] == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]
    assert arrival_states(store.engine) == ["arriving"]


def test_the_same_again_is_success_without_a_row_and_another_content_is_apart(store: InstanceStore) -> None:
    assert post(store, body_of([small_ct()])).status == 200
    assert post(store, body_of([small_ct()])).status == 200
    assert instance_rows(store.engine) == 1
    assert post(store, body_of([small_ct(rows=5)])).status == 200
    assert arrival_states(store.engine) == ["arriving", "arriving"]


def test_one_instance_may_come_without_parts(store: InstanceStore) -> None:
    assert post(store, small_ct(), content_type="application/dicom").status == 200
    assert instance_rows(store.engine) == 1


def test_each_failure_has_its_reason_beside_what_was_stored(store: InstanceStore) -> None:
    parts = [
        small_ct("1.2.3.1"),
        small_ct("1.2.3.2", StudyInstanceUID="1.9"),
        small_ct("1.2.3.3", rows=800),
        b"no DICOM at all" * 20,
        small_ct("1.2.3.5", SeriesInstanceUID="../../x"),
        small_ct("1.2.3.6")[:200],
    ]
    answer = post(store, body_of(parts), study_uid="1.2")
    assert answer.status == 202
    assert listed(answer, "00081199", "00081155") == ["1.2.3.1"]
    failed = zip(listed(answer, "00081198", "00081155"), listed(answer, "00081198", "00081197"), strict=True)
    assert list(failed) == [("1.2.3.2", 0xA901), ("1.2.3.5", 0xC000)]
    assert listed(answer, "0008119A", "00081197") == [0xA700, 0xC000, 0xC000]
    assert [file.name for file in stored_files(store)] == ["1.2.3.1.dcm"]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "words"),
    [
        (b"{}", "application/json", 415, "Content-Type: 'application/json'; expected multipart/related"),
        (b"{}", 'multipart/related; type="application/dicom+json"; boundary=x', 415, "of application/dicom.json"),
        (b"", TYPE, 400, "the body ends before its closing boundary"),
        (b"--x\r\n\r\n", 'multipart/related; type="application/dicom"', 400, "boundary ''; expected 1 to 200"),
        (body_of([]), f"multipart/related; boundary={'b' * 201}", 400, "expected 1 to 200 characters"),
        (b"x" * 100_000, TYPE, 400, "no boundary at the beginning of the body"),
        (body_of([b""], b"X: " + b"y" * 9000), TYPE, 400, "part 1: its headers do not end within 8192 bytes"),
        (b"--a=b'c and more\r\n\r\n", TYPE, 400, "the body ends before its closing boundary"),
        (body_of([]), TYPE, 400, ""),
    ],
)
def test_a_body_that_cannot_be_followed_is_refused_in_one_line(
    store: InstanceStore, body: bytes, content_type: str, status: int, words: str
) -> None:
    answer = post(store, body, content_type=content_type)
    assert (answer.status, answer.body, stored_files(store)) == (status, {}, [])
    assert words.replace(".json", "+json") in answer.message.replace(".json", "+json")


@pytest.mark.parametrize("within", [b"", b" more", b"-", b"x\r\n", b"\r", b" " * 80 + b"\r\n"])
def test_pixels_that_look_like_a_boundary_are_pixels(store: InstanceStore, within: bytes) -> None:
    pixels = (b"\r\n--" + BOUNDARY.encode() + within).ljust(200, b"p")
    sent = small_ct("1.2.3.1", rows=10, PixelData=pixels)
    answer = post(store, body_of([sent, small_ct("1.2.3.2")]))
    assert (answer.status, listed(answer, "00081199", "00081155")) == (200, ["1.2.3.1", "1.2.3.2"])
    assert dcmread(stored_files(store)[0]).PixelData == pixels


@pytest.mark.parametrize(("within", "others"), [(b"\r\n", ["1.2.3.2"]), (b" \r\n\r\n", ["1.2.3.2"]), (b"--", [])])
def test_an_instance_with_a_boundary_in_its_pixels_is_refused(
    store: InstanceStore, caplog: pytest.LogCaptureFixture, within: bytes, others: list[str]
) -> None:
    pixels = (b"pppp\r\n--" + BOUNDARY.encode() + within).ljust(200, b"p")
    answer = post(store, body_of([small_ct("1.2.3.1", rows=10, PixelData=pixels), small_ct("1.2.3.2")]))
    assert answer.status != 200
    assert listed(answer, "00081198", "00081155") == ["1.2.3.1"]
    assert [file.name for file in stored_files(store)] == [f"{uid}.dcm" for uid in others]
    assert "instance 1.2.3.1: it is truncated: its pixel data has 4 of 200 bytes" in caplog.text


def test_a_body_that_breaks_off_keeps_what_had_arrived(store: InstanceStore) -> None:
    answer = post(store, body_of([small_ct("1.2.3.1"), small_ct("1.2.3.2")])[:-100])
    assert answer.status == 400
    assert listed(answer, "00081199", "00081155") == ["1.2.3.1"]
    assert listed(answer, "0008119A", "00081197") == [0xC000]
    assert [file.name for file in stored_files(store)] == ["1.2.3.1.dcm"]


def test_a_client_that_is_gone_leaves_nothing_half(store: InstanceStore) -> None:
    body = body_of([small_ct("1.2.3.1"), small_ct("1.2.3.2")])

    def chunks() -> Iterator[bytes]:
        yield body[:-300]
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        store_over_the_web(store, StowRequest(origin=ORIGIN, content_type=TYPE), chunks())
    assert [file.name for file in stored_files(store)] == ["1.2.3.1.dcm"]


def test_a_full_disk_says_later_a_wrong_file_says_never(tmp_path: Path) -> None:
    store = new_store(tmp_path, free_gb=1e9)
    answer = post(store, body_of([small_ct()]))
    assert (answer.status, listed(answer, "00081198", "00081197")) == (503, [0xA700])
    assert post(store, body_of([b"x" * 500])).status == 409
    store.engine.dispose()


def test_parts_are_counted(store: InstanceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "MOST_PARTS", 2)
    answer = post(store, body_of([small_ct(f"1.2.3.{number}") for number in range(3)]))
    assert (answer.status, answer.message) == (413, "more than 2 parts; send them in several requests.")
    assert instance_rows(store.engine) == 2


def test_many_parts_that_are_refused_take_little_memory(store: InstanceStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "carina.receive.stow")  # what the test keeps of the log is not the store's
    body = list(cut(body_of([b""] * 3000), 65_536))
    tracemalloc.start()
    try:
        answer = store_over_the_web(store, StowRequest(origin=ORIGIN, content_type=TYPE), iter(body))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (answer.status, len(listed(answer, "0008119A", "00081197"))) == (409, NAMELESS_LISTED)
    assert peak < 5_000_000, "of 8 MB with what tracebacks hold"


@pytest.mark.parametrize(("cut_off", "status", "failed"), [(0, 202, ["1.2.3.2", "1.2.3.3"]), (6, 400, ["1.2.3.2"])])
def test_many_parts_that_are_refused_are_told_in_a_few_lines(
    store: InstanceStore, caplog: pytest.LogCaptureFixture, cut_off: int, status: int, failed: list[str]
) -> None:
    wrong = [small_ct(uid, StudyInstanceUID="x") for uid in ("1.2.3.2", "1.2.3.3")]
    body = body_of([*[b""] * 300, small_ct("1.2.3.1"), *wrong])
    answer = post(store, body[: len(body) - cut_off])
    assert (answer.status, len(listed(answer, "0008119A", "00081197"))) == (status, NAMELESS_LISTED)
    assert listed(answer, "00081199", "00081155") == ["1.2.3.1"]
    assert listed(answer, "00081198", "00081155") == failed
    *lines, end = [record.getMessage() for record in caplog.records if record.name == "carina.receive.stow"]
    assert [
        line.rpartition("[")[2] for line in lines if "boundary" not in line
    ] == EMPTY * REFUSALS_TOLD + ANOTHER * len(failed)
    assert (
        end
        == "from 127.0.0.1: 300 instances were refused for one reason [receive.no-instance]; the first 10 are above."
    )


def test_a_large_part_takes_no_memory(tmp_path: Path) -> None:
    store = new_store(tmp_path, instance_mb=100)
    content = small_ct(rows=5000)
    body = list(cut(body_of([content]), 65_536))
    del content
    tracemalloc.start()
    try:
        answer = store_over_the_web(store, StowRequest(origin=ORIGIN, content_type=TYPE), iter(body))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        store.engine.dispose()
    assert answer.status == 200
    assert peak < 3_000_000, "of 50 MB"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_damaged_bodies_end_with_an_answer_and_nothing_outside(store: InstanceStore, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    body = bytearray(body_of([small_ct("1.2.3.1"), small_ct("1.2.3.2", SOPInstanceUID="../../../x"), b"y" * 50]))
    for _ in range(rng.choice((1, 2, 5, 20))):
        damage(body, rng)
    try:
        answer = post(store, bytes(body), size=rng.choice((1, 50, 5000)))
    except BadBody:
        pytest.fail("a damaged body ends with an answer")
    assert answer.status in (200, 202, 400, 409, 413)
    outside = [file for file in tmp_path.rglob("*") if file.is_file() and store.folder not in file.parents]
    assert {file.name.partition("-")[0] for file in outside} <= {"node.sqlite"}
    assert len(stored_files(store)) == instance_rows(store.engine)
