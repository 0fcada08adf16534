"""Who is known under a Series Instance UID stays known: what names no patient joins nobody when files are gone, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import update

from carina.config import RetentionSettings
from carina.database import ARRIVAL, JOB, OwnFolder, database_now
from carina.keeping.retention import Retention
from carina.receive.named import known_patients, note_patients
from carina.receive.recover import recover
from test_receive_apart import Node, arrivals, bring, changed, files, jobs, let_go, node, read_by, settle
from test_receive_mixed import of_another
from test_receive_parting import released, uids

__all__ = ["files", "node"]

GONE: Mapping[str, Sequence[int]] = {"none": (), "first": (1,), "other": (2,), "both": (1, 2)}
"""Arrivals whose files retention removed: the first patient's, and another one's."""


def remove(node: Node, which: Sequence[int]) -> None:
    """Have retention remove the files of some arrivals, and of no others."""
    with node.engine.begin() as connection:
        now = database_now(connection)
        old = ARRIVAL.c.id.in_(which)
        connection.execute(update(ARRIVAL).where(old).values(last_at=now - timedelta(days=40)))
    Retention(node.engine, node.store.folder, RetentionSettings(incoming_days=30)).round()
    states = {row.id: row.state for row in arrivals(node)}
    assert [number for number, state in states.items() if state == "removed"] == list(which)
    assert not [number for number in which if (node.store.folder / "incoming" / str(number)).exists()]


def end_jobs(node: Node) -> None:
    """Have every job ended well."""
    with node.engine.begin() as connection:
        ended = {"state": "stopped", "ended": "healthy", "stopped_at": database_now(connection)}
        connection.execute(update(JOB).values(**ended))


def forget_who(node: Node) -> None:
    """Have rows as they were before they said who is named."""
    with node.engine.begin() as connection:
        connection.execute(update(ARRIVAL).values(patients=None))


def two_known(node: Node, files: Sequence[Path], tmp_path: Path, *, is_removed: bool = False) -> None:
    """Have the first patient's instances run, and another's by themselves, each to its end."""
    removed = "YES" if is_removed else "NO"
    bring(node, changed(files[:10], tmp_path / "first", PatientIdentityRemoved=removed))
    settle(node)
    bring(node, of_another(files, tmp_path / "other", "all", is_removed=is_removed))
    settle(node)
    let_go(node, 2)
    assert [row.state for row in jobs(node)] == ["pending"] * 2, arrivals(node)
    end_jobs(node)


def nameless_of(files: Sequence[Path], tmp_path: Path) -> list[Path]:
    return changed(files[5:6], tmp_path / "nameless", is_renamed=True, PatientID="", PatientName="")


def come(node: Node, files: Sequence[Path]) -> None:
    bring(node, files)
    settle(node)


def volumes_with(node: Node, name: str) -> list[int]:
    """How many instances the volumes have in which an instance is."""
    return [len(read) for read in (read_by(node, job) for job in jobs(node)) if f"{name}.dcm" in read]


WAYS: Mapping[str, Sequence[str]] = {
    "alone": ("remove", "nameless"),
    "with the first one's": ("remove", "nameless and more"),
    "waits": ("nameless", "remove", "more"),
    "comes between": ("some more", "remove", "nameless", "more"),
    "is released": ("nameless and more", "remove", "release"),
}
"""How what names no patient comes, before or after files are removed."""


@pytest.mark.parametrize(
    ("gone", "older"),
    [("none", ""), ("first", ""), ("other", "since"), ("both", ""), ("both", "then"), ("both", "since")],
)
@pytest.mark.parametrize("way", WAYS)
def test_what_names_no_patient_joins_nobody_when_the_files_of_those_known_are_gone(
    node: Node, files: Sequence[Path], tmp_path: Path, way: str, gone: str, older: str
) -> None:
    """So it is after a start, and where the node was of an earlier version then, or when they were removed."""
    two_known(node, files, tmp_path)
    if older == "then":
        forget_who(node)
    nameless = nameless_of(files, tmp_path)
    [name] = uids(nameless)
    steps: Mapping[str, Callable[[], object]] = {
        "remove": lambda: leave(node, gone, is_older=older == "since"),
        "release": lambda: released(node, 3),
        "nameless": lambda: come(node, nameless),
        "nameless and more": lambda: come(node, [*nameless, *files[10:]]),
        "some more": lambda: come(node, files[10:11]),
        "more": lambda: come(node, files[11:]),
    }
    for step in WAYS[way]:
        steps[step]()
    check_held_alone(node, name)


def leave(node: Node, gone: str, *, is_older: bool) -> None:
    """Have files removed, and the node started again."""
    remove(node, GONE[gone])
    if is_older:
        forget_who(node)
    recover(node.settings, node.engine)


def check_held_alone(node: Node, name: str) -> None:
    """What names no patient waits with its reason, and is in no volume but its own once it is released."""
    assert not volumes_with(node, name)
    while held := [row for row in arrivals(node) if row.state == "quarantined" and name in row.reason]:
        assert held[0].reason.startswith("instances without a patient came where several patients are known")
        released(node, held[0].id)
    assert volumes_with(node, name) == [1], "it is run by itself"


@pytest.mark.parametrize("older", ["", "then"])
@pytest.mark.parametrize("gone", ["none", "first"])
def test_what_names_no_patient_is_theirs_where_one_alone_was_known(
    node: Node, files: Sequence[Path], tmp_path: Path, gone: str, older: str
) -> None:
    come(node, files[:10])
    end_jobs(node)
    if older == "then":
        forget_who(node)
    remove(node, GONE[gone])
    come(node, [*nameless_of(files, tmp_path), *files[10:]])
    assert "several patients" not in arrivals(node)[-1].reason


@pytest.mark.parametrize("older", ["", "then"])
@pytest.mark.parametrize("is_removed", [True, False])
def test_an_arrival_of_two_patients_whose_files_are_gone_names_both(
    node: Node, files: Sequence[Path], tmp_path: Path, older: str, *, is_removed: bool
) -> None:
    """Its digest of one patient is empty, and so are those of patients whose identity was removed."""
    two_known(node, files, tmp_path, is_removed=is_removed)
    with node.engine.begin() as connection:
        connection.execute(update(ARRIVAL).values(whose_sha256=""))
    if older:
        forget_who(node)
    own = OwnFolder(node.store.folder, node.engine)
    before = set(known_patients(node.store.folder, node.engine, arrivals(node)[0]))
    for row in arrivals(node):
        note_patients(own, row.id)
    remove(node, (1, 2))
    assert set(known_patients(node.store.folder, node.engine, arrivals(node)[0])) == before and len(before) == 2
    come(node, [*nameless_of(files, tmp_path), *files[10:]])
    assert arrivals(node)[-1].state == "quarantined"


def test_a_row_says_of_two_patients_that_they_are_in_it_and_of_no_more(
    node: Node, files: Sequence[Path], tmp_path: Path
) -> None:
    said: list[str] = []
    for patient in ("", "A", "A", "B", "C", "A", ""):
        come_of = changed(files[:1], tmp_path / str(len(said)), is_renamed=True, PatientID=patient, PatientName="")
        bring(node, come_of)
        said.append(arrivals(node)[0].patients)
    first, second = said[-1].split()
    assert said == ["", first, first, *[f"{first} {second}"] * 4]


def test_of_each_part_of_a_release_the_row_says_who_is_named(node: Node, files: Sequence[Path], tmp_path: Path) -> None:
    come(node, [*files, *of_another(files, tmp_path / "other", "all"), *nameless_of(files, tmp_path)])
    parts = released(node).parts
    rows = {row.id: row for row in arrivals(node)}
    assert sorted(rows[1].patients.split()) == sorted(filter(None, (rows[part].patients for part in parts)))
    assert sorted(len(rows[part].patients) for part in parts) == [0, 16, 16]
    assert [row.state for row in rows.values() if row.patients == ""] == ["quarantined"]
    assert str(dcmread(files[0]).PatientID) not in rows[1].patients
