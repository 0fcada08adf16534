"""A correction by several hands: a stroke is that of who painted it, and wherever a reader is named all are."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from sqlalchemy import update

from carina.api.result import Run
from carina.cli.cases import cases
from carina.cli.jobs import show
from carina.corrections.decisions import readers_state
from carina.corrections.finish import finished_folder
from carina.corrections.hands import by_whom
from carina.corrections.journal import Journal
from carina.corrections.masks import MaskName, network_mask
from carina.corrections.painting import Author, OpenStrokes, Painting, StrokeKind, StrokeRecord, labels_sha256
from carina.corrections.voxel_runs import places_of, runs_of, runs_of_flags
from carina.database import JOB
from carina.errors import BadConfig
from carina.service.node import RunningNode
from carina.volume.arrays import Labels
from dicom_objects_samples import errors_of
from served_nodes import NOON, add_job, hold, opened, serving
from test_corrections import author, painted, small_mask
from viewer_runs import posed, through_dicom, write_run

PAGES = ("/", "/jobs/1/view/", "/jobs/1/view/report", "/jobs/1/view/correct/lesion", "/agreement/")
"""Every page that names who decided about a mask."""


def told(painting: Painting, finished: int) -> list[tuple[str, int, int]]:
    return [(one.painter, one.painted, one.taken_back) for one in painting.open_strokes(finished)]


def test_a_stroke_is_that_of_who_painted_it_whoever_turns_it(tmp_path: Path) -> None:
    painting = painted(tmp_path)
    for number, reader in enumerate(("rita", "rita", "rob")):
        painting.paint([10 * number, 3], 1, "brush", author(f"{number}", reader), number)
    assert told(painting, 0) == [("rita", 2, 0), ("rob", 1, 0)] and painting.undoes == "rob"
    painting.undo(author("a", "rob"), 3)
    painting.undo(author("b", "rob"), 4)
    assert (painting.undoes, painting.redoes, told(painting, 0)) == ("rita", "rita", [("rita", 1, 0)])
    painting.redo(author("c", "rob"), 5)
    assert painting.painters(painting.revision) == ("rita",) and painting.redoes == "rob"
    again = painted(tmp_path)
    assert again.open_strokes(3) == [OpenStrokes(painter="rob", painted=0, taken_back=1)]
    again.redo(author("d", "rita"), 6)
    assert again.painters(7) == ("rita", "rob") and again.open_strokes(3) == []
    assert again.painters(5) == ("rita",) and again.painters(0) == ()


STROKES = st.tuples(st.sampled_from(["rita", "rob"]), st.sets(st.integers(0, 11), min_size=1), st.integers(0, 1))
TURNS = st.tuples(st.sampled_from(["rita", "rob"]), st.sampled_from(["undo", "redo"]), st.booleans())


class Stack:
    """The strokes of a mask, and which of them are in it, in the order in which they came and went."""

    def __init__(self, painting: Painting) -> None:
        self.painting, self.base = painting, painting.marks.copy()
        self.strokes: list[tuple[str, list[int], int]] = []
        self.done: list[int] = []
        self.undone: list[int] = []

    def paint(self, by: Author, places: set[int], value: int) -> None:
        change = self.painting.paint(runs_of(np.array(sorted(places))), value, "brush", by, self.painting.revision)
        if not change.runs:
            return
        self.done.append(len(self.strokes))
        self.strokes.append((by.reader, places_of(change.runs, self.base.size).tolist(), value))
        self.undone.clear()

    def turn(self, by: Author, what: str, *, is_own: bool) -> None:
        taken, put = (self.done, self.undone) if what == "undo" else (self.undone, self.done)
        meant = [one for one in taken if not is_own or self.strokes[one][0] == by.reader]
        if not meant:
            with pytest.raises(BadConfig, match=f"no stroke.* to {what}"):
                getattr(self.painting, what)(by, self.painting.revision, is_own=is_own)
            return
        getattr(self.painting, what)(by, self.painting.revision, is_own=is_own)
        taken.remove(meant[-1])
        put.append(meant[-1])

    @property
    def expected(self) -> Labels:
        found = self.base.copy()
        for one in sorted(self.done):
            found[self.strokes[one][1]] = self.strokes[one][2]
        return found


@given(st.lists(st.one_of(STROKES, STROKES, TURNS, TURNS), max_size=14))
@settings(max_examples=40, deadline=None)
def test_whoever_takes_back_or_brings_back_the_mask_is_what_is_in_it_in_its_order(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[tuple[str, Any, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("turns")
    stack = Stack(painted(folder))
    for number, (who, what, more) in enumerate(deeds):
        by = author(f"{number}", who)
        if isinstance(what, set):
            stack.paint(by, what, more)
        else:
            stack.turn(by, what, is_own=more)
        np.testing.assert_array_equal(stack.painting.marks, stack.expected)
        assert stack.painting.voxels == np.count_nonzero(stack.expected)
        assert set(stack.painting.undoable) == {stack.strokes[one][0] for one in stack.done}
    np.testing.assert_array_equal(painted(folder).marks, stack.painting.marks)


def test_a_stroke_that_changed_nothing_is_none(tmp_path: Path) -> None:
    painting = painted(tmp_path)
    for before in (0, 1):
        painting.paint([0, 3], before, "eraser", author("a", "rita"), before)
        painting.paint([], 1, "fill", author("b", "rita"), before)
        assert painting.painters(1) == ("rob",) * before and painting.revision == painting.catch_up() == before
        assert painting.can_undo == bool(before) and len(painting.open_strokes(0)) == before
        if not before:
            painting.paint([0, 3], 1, "brush", author("c", "rob"), 0)
    painting.undo(author("d", "rob"), 1)
    painting.paint([0, 3], 0, "eraser", author("e", "rita"), 2)
    assert painting.can_redo
    assert painted(tmp_path).revision == 2


def test_empty_strokes_that_an_earlier_carina_stored_are_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "lesion.strokes", StrokeRecord)
    base = StrokeRecord(kind=StrokeKind.BASE, at=NOON, sha256=labels_sha256(small_mask().labels))
    empty = StrokeRecord(kind=StrokeKind.PAINT, at=NOON, id="a", reader="rita", tool="eraser", value=0)
    with journal.held():
        journal.unread()
        for record in (base, empty, StrokeRecord(kind=StrokeKind.UNDO, at=NOON, id="b", reader="rita")):
            journal.append(record)
    painting = painted(tmp_path)
    assert painting.revision == 2 and painting.painters(1) == () and painting.open_strokes(0) == []


@pytest.mark.parametrize(
    ("reader", "painters", "finisher", "words"),
    [
        ("rob", (), "", "rob"),
        ("rob", (), "rob", "rob"),
        ("rob", ("rob",), "rob", "rob"),
        ("rob", ("rita",), "rob", "rob (painted by rita)"),
        ("rob", ("rita", "ann", "rob"), "rob", "rob (painted by rita, ann and rob)"),
        ("ann", ("rita",), "rob", "ann (painted by rita, finished by rob)"),
        ("rita", ("rita",), "rob", "rita (painted by rita, finished by rob)"),
        ("ann", (), "rob", "ann (finished by rob)"),
    ],
)
def test_whose_a_correction_is(reader: str, painters: tuple[str, ...], finisher: str, words: str) -> None:
    assert by_whom(reader, painters, finisher) == words


@pytest.fixture
def node(tmp_path: Path) -> RunningNode:
    """A node with one job, whose run has the lesions of a phantom."""
    one = opened(tmp_path)
    phantom = through_dicom(posed("plain", (24, 48, 48)), tmp_path / "ct")
    phantom = replace(phantom, lesion=replace(phantom.lesion, names={1: "COVID-19 lesion"}))
    arrival = hold(one, sorted((tmp_path / "ct").iterdir()))
    job = add_job(one, arrival, reading="unread")
    write_run(phantom, one.folder / f"runs/{job}")
    with one.engine.begin() as connection:
        connection.execute(update(JOB).values(source=f"incoming/{arrival}", folder=f"runs/{job}"))
    return one


@pytest.fixture
def served(node: RunningNode) -> Iterator[str]:
    with serving(node) as url:
        yield url


def run_of(node: RunningNode) -> Run:
    return Run(node.folder / "runs/1")


def post(url: str, what: str, **asked: object) -> dict[str, object]:
    answer = httpx.post(f"{url}/jobs/1/view/correct/lesion/{what}", json=asked, timeout=60)
    answer.raise_for_status()
    found: dict[str, object] = answer.json()
    return found


def paint(node: RunningNode, url: str, *readers: str) -> dict[str, object]:
    """One stroke of each reader; gives what came of the last."""
    marks = np.zeros(network_mask(run_of(node), MaskName.LESION).labels.shape, np.bool_)
    stored: dict[str, object] = {}
    for number, reader in enumerate(readers):
        marks[:] = False
        marks[number, :4, :4] = True
        asked = {"revision": number, "id": f"{number}", "reader": reader, "tool": "brush"}
        stored = post(url, "strokes", **asked, runs=runs_of_flags(marks))
    return stored


def everywhere(node: RunningNode, url: str, words: str) -> None:
    """Every place that says who decided says these words."""
    for page in PAGES:
        assert words in unescape(httpx.get(url + page, timeout=60).text), page
    config = ["--config", str(node.folder.parent / "carina.toml")]
    assert f"by {words}, " in CliRunner().invoke(show, ["1", *config], catch_exceptions=False).output


def in_data(node: RunningNode, url: str, tmp_path: Path) -> tuple[str, list[str], str]:
    """Reader, painters and finisher, as each interface for programs has them: they are the same."""
    (job,) = httpx.get(f"{url}/api/v1/jobs").json()["jobs"]
    table = tmp_path / "reviewed.csv"
    CliRunner().invoke(cases, [str(run_of(node).folder), "--csv", str(table)], catch_exceptions=False)
    (row,) = csv.DictReader(table.open())
    said = job["decisions"][0]
    found = said["reader"], said["painters"], said["finisher"]
    assert (row["reader"], row["painters"].split("; "), row["finisher"]) == found
    (one,) = readers_state(run_of(node)).decisions
    assert (one.reader, list(one.painters), one.finisher) == found
    return found


@pytest.mark.parametrize(
    ("painters", "words", "operators"),
    [
        (["rita"], "rob (painted by rita)", "rita^"),
        (["rita", "rob"], "rob (painted by rita and rob)", ["rita^", "rob^"]),
    ],
)
def test_every_place_names_all_whose_hand_is_in_a_correction(
    node: RunningNode, served: str, tmp_path: Path, painters: list[str], words: str, operators: object
) -> None:
    paint(node, served, *painters)
    post(served, "decision", revision=len(painters), reader="rob", decision="corrected")
    folder = finished_folder(run_of(node).folder, MaskName.LESION, 1)
    facts = json.loads((folder / "correction.json").read_bytes())
    assert (facts["reader"], facts["painters"]) == ("rob", painters)
    path = folder / "dicom" / "lesion-seg.dcm"
    dataset = dcmread(path)
    assert errors_of(path) == [] and dataset.ContentCreatorName == "rob^"
    assert dataset.ContributingEquipmentSequence[0].OperatorsName == operators
    assert f"measured with lesion correction 1 of {words}" in unescape(httpx.get(f"{served}/jobs/1/view/report").text)
    everywhere(node, served, words)
    assert in_data(node, served, tmp_path) == ("rob", painters, "rob")
    post(served, "decision", revision=len(painters), reader="ann", decision="accepted")
    people = words.removeprefix("rob (").removesuffix(")")
    everywhere(node, served, f"ann ({people}, finished by rob)")
    assert in_data(node, served, tmp_path) == ("ann", painters, "rob")


def test_a_page_is_told_whose_strokes_wait_and_that_somebody_painted(node: RunningNode, served: str) -> None:
    page = f"{served}/jobs/1/view/correct/lesion"
    before = httpx.get(f"{page}/standing.json").json()
    assert before["stamp"] == httpx.get(f"{page}/mask.json").json()["stamp"]
    stored = paint(node, served, "rita", "rita", "rob")
    assert stored["open"] == [
        {"painter": "rita", "painted": 2, "taken_back": 0},
        {"painter": "rob", "painted": 1, "taken_back": 0},
    ]
    assert (stored["undoes"], stored["redoes"], stored["painters"]) == ("rob", "", ["rita", "rob"])
    after = httpx.get(f"{page}/standing.json").json()
    assert after["stamp"] == stored["stamp"] != before["stamp"]
    post(served, "decision", revision=3, reader="rob", decision="corrected")
    finished = httpx.get(f"{page}/mask.json").json()
    assert finished["open"] == [] and finished["painters"] == ["rita", "rob"]
    assert finished["stamp"] == httpx.get(f"{page}/standing.json").json()["stamp"] != after["stamp"]
