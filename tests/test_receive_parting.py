"""What is of several patients is parted once it is released: each one's is run by itself, and nothing is lost."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import Row, select, update

from carina.database import ARRIVAL, INSTANCE
from carina.database.intact import is_intact
from carina.errors import BadConfig
from carina.receive import parting
from carina.receive.complete import RUN_REFUSED
from carina.receive.recover import recover
from carina.receive.store import Accepted
from carina.service.arrivals import ReleasedArrival
from carina.service.changes import release_arrival
from carina.service.node import RunningNode
from carina.service.problems import Conflict, NotThere
from test_receive_apart import SLICES, Node, arrivals, bring, changed, files, jobs, node, queue, read_by, settle
from test_receive_mixed import OTHERS, of_another

__all__ = ["files", "node"]


NO_VOLUME = ("one slice", "some with gaps", "no image")
"""What of another's no run can read."""


def released(node: Node, arrival_id: int = 1, source: str = "") -> ReleasedArrival:
    """Let it go as the page, the command and REST do."""
    after = release_arrival(RunningNode(settings=node.settings, engine=node.engine), arrival_id, source)
    queue(node)
    return after


def kept(node: Node) -> dict[str, int]:
    """The arrivals of all instances by their UIDs; each is whole where its row says, and no file is without a row."""
    with node.engine.connect() as connection:
        rows: Sequence[Row[tuple[object, ...]]] = connection.execute(select(INSTANCE)).all()
    assert all(is_intact(node.store.folder / row.path, row) for row in rows)
    assert all(row.path.startswith(f"incoming/{row.arrival_id}/") for row in rows)
    return {row.sop_instance_uid: row.arrival_id for row in rows}


def uids(files: Sequence[Path]) -> set[str]:
    return {str(dcmread(file).SOPInstanceUID) for file in files}


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("with_nameless", [True, False])
def test_each_patients_are_run_by_themselves_or_wait_with_their_reason(
    node: Node, files: Sequence[Path], tmp_path: Path, what: str, *, with_nameless: bool
) -> None:
    others = of_another(files, tmp_path / "other", what)
    nameless = changed(files[5:6], tmp_path / "nameless", is_renamed=True, PatientID="", PatientName="")
    came = {"first": uids(files), "other": uids(others), "nobody": uids(nameless)}
    if not with_nameless:
        del came["nobody"], nameless[:]
    bring(node, [*files, *others, *nameless])
    settle(node)
    assert arrivals(node)[0].reason.endswith("or the worklist), and each patient's are then run by themselves.")
    after = released(node)
    assert (after.state, len(after.parts)) == ("joined", len(came))
    assert after.warning.startswith("It holds instances of several patients, and each one's are by themselves now: arr")
    waits = [*(["other"] if what in NO_VOLUME else []), *(["nobody"] if with_nameless else [])]
    check_run(node, came, came.keys() - waits)
    check_waiting(node, came, waits)


def test_what_names_nobody_beside_one_patient_is_not_theirs_where_others_are_known(
    node: Node, files: Sequence[Path], tmp_path: Path
) -> None:
    others = of_another(files, tmp_path / "other", "all")
    nameless = changed(files[5:6], tmp_path / "nameless", is_renamed=True, PatientID="", PatientName="")
    came = {"first": uids(files), "other": uids(others), "nobody": uids(nameless)}
    for some in (others, [*files, *nameless]):
        bring(node, some)
        settle(node)
    assert len(released(node, arrivals(node)[-1].id).parts) == 2
    check_run(node, came, {"first", "other"})
    check_waiting(node, came, ["nobody"])


def check_waiting(node: Node, came: Mapping[str, set[str]], who: Sequence[str]) -> None:
    """Of these the instances wait with their reason, and each one's are together; nothing is gone."""
    where, rows = kept(node), {row.id: row for row in arrivals(node)}
    assert set(where) == set().union(*came.values())
    of = {one: rows[where[min(came[one])]] for one in came}
    assert [{where[uid] for uid in came[one]} for one in came] == [{of[one].id} for one in came]
    assert [one for one in came if of[one].state == "quarantined"] == who
    for one in who:
        assert re.search("without a patient came" if one == "nobody" else f"{re.escape(RUN_REFUSED)}$", of[one].reason)


def check_run(node: Node, came: Mapping[str, set[str]], who: Set[str]) -> None:
    """What is run, a job for each patient, reads all that is theirs, and nobody else's."""
    read = [{name.removesuffix(".dcm") for name in read_by(node, job)} for job in jobs(node)]
    assert sorted(map(sorted, read)) == sorted(sorted(came[one]) for one in who)


def test_what_was_kept_back_is_run_by_itself_once_it_is_released_too(
    node: Node, files: Sequence[Path], tmp_path: Path
) -> None:
    bring(node, [*files, *of_another(files, tmp_path / "other", "one slice")])
    settle(node)
    _, other = released(node).parts
    assert released(node, other).warning.startswith("Its run is refused for the reason for which it waited")
    assert [len(read_by(node, job)) for job in jobs(node)] == [SLICES, 1]
    with pytest.raises(Conflict, match="arrival 1 is joined: what waits in quarantine"):
        released(node)


def test_more_that_comes_of_each_patient_is_run_with_what_came_before_of_that_one(
    node: Node, files: Sequence[Path], tmp_path: Path
) -> None:
    others = of_another(files, tmp_path / "other", "all")
    bring(node, [*files[:6], *others[:6]])
    settle(node)
    assert len(released(node, source="scanner").parts) == 2
    for more in (files[6:], others[6:]):
        bring(node, more)
        settle(node)
    grown = jobs(node)[-2:]
    assert {one.supersedes for one in grown} == {1, 2}
    assert [(len(read), len(set(read.values()))) for read in (read_by(node, job) for job in grown)] == [(SLICES, 1)] * 2
    assert bring(node, [*files, *others]) == {Accepted.REPEATED}


def test_what_differs_and_is_of_several_patients_stays_by_itself(
    node: Node, files: Sequence[Path], tmp_path: Path
) -> None:
    bring(node, files)
    settle(node)
    for patient, some in (("A", files[:6]), ("B", files[6:])):
        bring(node, changed(some, tmp_path / patient, PatientID=patient, PatientIdentityRemoved="YES"))
    settle(node)
    apart = arrivals(node)[-1]
    parts = released(node, apart.id).parts
    assert [(row.is_apart, row.state) for row in arrivals(node) if row.id in parts] == [(1, "queued")] * 2
    assert [sorted(set(read_by(node, job).values())) for job in jobs(node)[1:]] == [["A"], ["B"]]
    assert [job.supersedes for job in jobs(node)] == [None] * 3


def test_of_each_part_the_row_says_whose_it_is(node: Node, files: Sequence[Path], tmp_path: Path) -> None:
    bring(node, [*files, *of_another(files, tmp_path / "other", "all")])
    settle(node)
    parts = released(node).parts
    whose = {row.whose_sha256 for row in arrivals(node) if row.id in parts}
    assert (len(whose), "" in whose) == (2, False)


@pytest.mark.parametrize("projects", [frozenset({"default"}), frozenset({"other"})])
def test_who_sees_one_project_parts_what_is_in_it_alone(
    node: Node, files: Sequence[Path], tmp_path: Path, projects: frozenset[str]
) -> None:
    bring(node, [*files, *of_another(files, tmp_path / "other", "all")])
    settle(node)
    seen = RunningNode(settings=node.settings, engine=node.engine).seen_in(projects)
    if "default" in projects:
        assert len(release_arrival(seen, 1, "").parts) == 2 and len(kept(node)) == 2 * SLICES
        return
    rows = arrivals(node)
    with pytest.raises(NotThere, match="there is no arrival 1"):
        release_arrival(seen, 1, "")
    assert arrivals(node) == rows


@pytest.mark.parametrize("when", ["disk", "database"])
def test_a_release_that_fails_leaves_all_as_it_was(
    node: Node, files: Sequence[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    bring(node, [*files, *of_another(files, tmp_path / "other", "all")])
    settle(node)
    before, rows = kept(node), arrivals(node)
    linked: list[Path] = []

    def full(source: Path, target: Path) -> None:
        if len(linked) == SLICES + 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        linked.append(target)
        target.hardlink_to(source)

    def gone(*_: object) -> None:
        raise ConnectionError("the database went away")

    with monkeypatch.context() as patched:
        if when == "disk":
            patched.setattr(parting, "link_or_copy", full)
        else:
            patched.setattr("carina.service.changes.audit", gone)
        with pytest.raises(BadConfig if when == "disk" else ConnectionError, match=r"[Nn]o space|went away"):
            released(node)
    assert (kept(node), arrivals(node)) == (before, rows) and not jobs(node)
    assert [one.name for one in (node.store.folder / "incoming").glob("[0-9]*")] == ["1"]
    assert len(released(node).parts) == len(jobs(node)) == 2


def test_a_kill_before_the_rows_are_written_loses_nothing(node: Node, files: Sequence[Path], tmp_path: Path) -> None:
    """What it left is out of the way once the node starts."""
    bring(node, [*files, *of_another(files, tmp_path / "other", "all")])
    settle(node)
    left = node.store.folder / "incoming/2"
    left.mkdir()
    for file in sorted((node.store.folder / "incoming/1").glob("*.dcm"))[:3]:
        (left / file.name).hardlink_to(file)
    recover(node.settings, node.engine)
    assert not list(left.glob("*"))
    assert len(released(node).parts) == len(jobs(node)) == 2 and len(kept(node)) == 2 * SLICES


def test_what_an_anonymiser_named_anew_is_released_as_one(node: Node, files: Sequence[Path], tmp_path: Path) -> None:
    came = [changed([file], tmp_path / file.name, PatientID=file.stem)[0] for file in files]
    bring(node, came)
    settle(node)
    with node.engine.begin() as connection:
        connection.execute(update(ARRIVAL).values(state="quarantined", reason="a rule"))
    assert released(node).parts == () and len(read_by(node, jobs(node)[-1])) == SLICES


def test_what_a_killed_release_left_is_in_no_run_of_whoever_gets_its_number(
    node: Node, files: Sequence[Path], tmp_path: Path
) -> None:
    """SQLite gives a number again that was rolled back, and the node serves on."""
    others = of_another(files, tmp_path / "other", "all")
    came = {"first": uids(files), "other": uids(others)}
    bring(node, [*files, *others])
    settle(node)
    incoming = node.store.folder / "incoming"
    for number, some in (("2", sorted(incoming.glob("1/*"))[:3]), ("3", sorted(incoming.glob("1/*"))[-3:])):
        (incoming / number).mkdir()
        for file in some:
            (incoming / number / file.name).hardlink_to(file)
    new = changed(files, tmp_path / "new", is_renamed=True, PatientID="NEW", SeriesInstanceUID="1.2.99")
    bring(node, new)
    settle(node)
    assert arrivals(node)[-1].state == "queued"
    assert len(released(node).parts) == 2
    check_run(node, came | {"new": uids(new)}, {"first", "other", "new"})
    assert len(list((node.store.folder / "unknown").rglob("*.dcm"))) == 6


DAMAGED: Mapping[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "cut": lambda file: file.write_bytes(file.read_bytes()[:700]),
    "no DICOM": lambda file: file.write_bytes(b"no DICOM" * 100),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_what_the_disk_has_lost_is_not_said_to_name_no_patient(
    node: Node, files: Sequence[Path], tmp_path: Path, how: str
) -> None:
    nameless = changed(files[5:6], tmp_path / "nameless", is_renamed=True, PatientID="", PatientName="")
    bring(node, [*files, *of_another(files, tmp_path / "other", "all"), *nameless])
    settle(node)
    [lost], [name] = uids(files[-1:]), uids(nameless)
    DAMAGED[how](node.store.folder / f"incoming/1/{lost}.dcm")
    released(node)
    waiting = sorted(row.reason for row in arrivals(node) if row.state == "quarantined")
    assert [reason[:39] for reason in waiting] == [
        "instances that were accepted are damage",
        "instances without a patient came where ",
    ]
    assert [reason.rpartition(" ")[2] for reason in waiting] == [f"{lost}.", f"{name}."]
    assert bring(node, files[-1:]) == {Accepted.NEW}
