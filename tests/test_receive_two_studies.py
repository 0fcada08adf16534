"""Two studies under one Series Instance UID are two series: each is run on its own slices, and on all of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import select

from carina.database import ARRIVAL, JOB
from carina.jobs.projects import assign_series
from carina.receive.recover import recover
from test_receive_apart import Node, arrivals, bring, changed, files, jobs, node, read_by, settle
from test_receive_named import end_jobs, remove

__all__ = ["files", "node"]

OTHER_STUDY = "1.2.826.0.1.99"

WHO: Mapping[str, Mapping[str, str]] = {
    "the same patient": {},
    "another patient": {"PatientID": "OTHER", "PatientName": "Other"},
    "nobody named": {"PatientID": "", "PatientName": ""},
}


def studies_of(files: Sequence[Path], tmp_path: Path, who: str) -> tuple[list[Path], list[Path]]:
    """Slices of the first study, and all of another one under the same Series Instance UID."""
    other = changed(files, tmp_path / "other", is_renamed=True, StudyInstanceUID=OTHER_STUDY, **WHO[who])
    return list(files), other


def names_by_study(*studies: Sequence[Path]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for file in itertools.chain(*studies):
        dataset = dcmread(file, stop_before_pixels=True)
        found.setdefault(str(dataset.StudyInstanceUID), set()).add(f"{dataset.SOPInstanceUID}.dcm")
    return found


def last_read_by_study(node: Node) -> dict[str, set[str]]:
    """What the latest job on each study reads, by file name."""
    return {job.study_uid: set(read_by(node, job)) for job in jobs(node)}


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("first", [0, 1])
def test_each_study_is_run_on_its_own_slices(
    node: Node, files: Sequence[Path], tmp_path: Path, who: str, first: int
) -> None:
    studies = studies_of(files, tmp_path, who)
    for which in (first, 1 - first):
        bring(node, studies[which])
        settle(node)
    assert [(row.state, row.reason) for row in arrivals(node)] == [("queued", "")] * 2
    assert last_read_by_study(node) == names_by_study(*studies)
    assert [(job.state, job.cancel, job.supersedes) for job in jobs(node)] == [("pending", 0, None)] * 2


@pytest.mark.parametrize("order", sorted(set(itertools.permutations("aabb"))))
def test_what_comes_later_joins_its_own_study(
    node: Node, files: Sequence[Path], tmp_path: Path, order: tuple[str, ...]
) -> None:
    """In two parts each, in whatever order; the folder is looked over after each as after a power cut."""
    studies = dict(zip("ab", studies_of(files, tmp_path, "the same patient"), strict=True))
    for place, which in enumerate(order):
        part = slice(0, 10) if which not in order[:place] else slice(10, None)
        bring(node, studies[which][part])
        recover(node.settings, node.engine)
        settle(node)
    assert {row.state for row in arrivals(node)} == {"queued"}, arrivals(node)
    assert last_read_by_study(node) == names_by_study(*studies.values())
    of_study = {job.id: job.study_uid for job in jobs(node)}
    superseded = [(job.study_uid, of_study[job.supersedes]) for job in jobs(node) if job.supersedes]
    assert sorted(superseded) == sorted((uid, uid) for uid in last_read_by_study(node))


def test_both_that_come_at_once_are_two_arrivals(node: Node, files: Sequence[Path], tmp_path: Path) -> None:
    studies = studies_of(files, tmp_path, "another patient")
    bring(node, [file for pair in zip(*studies, strict=True) for file in pair])
    settle(node)
    assert last_read_by_study(node) == names_by_study(*studies)


def test_each_study_is_in_a_project_of_its_own(node: Node, files: Sequence[Path], tmp_path: Path) -> None:
    studies = studies_of(files, tmp_path, "another patient")
    bring(node, studies[0])
    bring(node, studies[1][:6])
    settle(node)
    other = arrivals(node)[1]
    with node.engine.begin() as connection:
        assign_series(connection, other, "scanner", "trial")
    bring(node, studies[1][6:])
    settle(node)
    with node.engine.connect() as connection:
        moved = connection.execute(select(ARRIVAL.c.study_uid, ARRIVAL.c.project).order_by(ARRIVAL.c.id)).all()
        projects = set(connection.execute(select(JOB.c.study_uid, JOB.c.project)).all())
    assert [tuple(row) for row in moved[1:]] == [(OTHER_STUDY, "trial")] * 2
    assert {tuple(row) for row in projects} == {(moved[0].study_uid, moved[0].project), (OTHER_STUDY, "trial")}


def test_retention_removes_a_study_while_more_of_the_other_comes(
    node: Node, files: Sequence[Path], tmp_path: Path
) -> None:
    studies = studies_of(files, tmp_path, "another patient")
    bring(node, studies[0])
    settle(node)
    end_jobs(node)
    bring(node, studies[1])
    remove(node, (1,))
    settle(node)
    assert last_read_by_study(node)[OTHER_STUDY] == names_by_study(studies[1])[OTHER_STUDY]
