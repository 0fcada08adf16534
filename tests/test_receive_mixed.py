"""Whatever comes of another patient under one Series Instance UID is run with nobody else's, and named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace
from pydicom import dcmread
from pydicom.uid import BasicTextSRStorage
from sqlalchemy import update

from carina.database import ARRIVAL
from carina.receive.store import Accepted
from test_receive_apart import SLICES, Node, arrivals, bring, changed, files, jobs, let_go, node, read_by, run, settle

__all__ = ["files", "node"]


def report(files: Sequence[Path]) -> Sequence[Path]:
    """A report in place of a slice: no image at all."""
    dataset = dcmread(files[0])
    for keyword in ("PixelData", "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient"):
        delattr(dataset, keyword)
    dataset.Modality = "SR"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    dataset.save_as(files[0])
    return files[:1]


OTHERS: Mapping[str, Callable[[Sequence[Path]], Sequence[Path]]] = {
    "one slice": lambda files: files[5:6],
    "two adjacent": lambda files: files[5:7],
    "some with gaps": lambda files: [files[number] for number in (0, 1, 4, 5, 10)],
    "all": lambda files: files,
    "no image": report,
}
"""What of another patient's comes under the first one's Series Instance UID."""


def of_another(
    files: Sequence[Path], folder: Path, what: str, *, is_removed: bool = False, patient: str = "OTHER"
) -> Sequence[Path]:
    """Another patient's instances."""
    removed = {"PatientIdentityRemoved": "YES"} if is_removed else {}
    return OTHERS[what](changed(files, folder, is_renamed=True, PatientID=patient, PatientName=patient, **removed))


@pytest.mark.parametrize("is_removed", [True, False])
@pytest.mark.parametrize("what", OTHERS)
def test_whatever_is_of_another_patient_waits_apart_and_is_named(
    node: Node, files: Sequence[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str, *, is_removed: bool
) -> None:
    bring(node, files)
    settle(node)
    others = of_another(files, tmp_path / "other", what, is_removed=is_removed)
    assert bring(node, others) == {Accepted.NEW}
    settle(node)
    _, apart = arrivals(node)
    assert (apart.state, apart.is_apart, len(jobs(node))) == ("apart", 1, 1)
    assert str(min(dcmread(file).SOPInstanceUID for file in others)) in apart.reason
    assert caplog.messages == [f"arrival {apart.id}: apart: {apart.reason}"]
    let_go(node, apart.id)
    first, alone = jobs(node)
    assert (first.state, alone.supersedes) == ("pending", None)
    assert (len(read_by(node, first)), len(read_by(node, alone))) == (SLICES, len(others))


@pytest.mark.parametrize("what", OTHERS)
def test_whatever_comes_together_with_another_patients_waits_in_quarantine_until_the_first_ones_come_alone(
    node: Node, files: Sequence[Path], tmp_path: Path, what: str
) -> None:
    others = of_another(files, tmp_path / "other", what)
    bring(node, [*files[:9], *others])
    settle(node)
    [mixed] = arrivals(node)
    assert mixed.state == "quarantined" and not jobs(node)
    assert mixed.reason.startswith("the series holds instances of several patients (")
    bring(node, files[9:])
    settle(node)
    [job] = jobs(node)
    read = read_by(node, job)
    assert len(read) == SLICES and "OTHER" not in read.values()
    assert [row.state for row in arrivals(node)] == ["quarantined", "queued"]
    let_go(node, 1)
    assert [one.supersedes for one in jobs(node)] == [None, None]


def test_more_of_the_first_patients_with_one_of_another_waits_and_takes_no_place(
    node: Node, files: Sequence[Path], tmp_path: Path
) -> None:
    bring(node, files[:10])
    settle(node)
    bring(node, [*files[10:11], *of_another(files, tmp_path / "other", "one slice")])
    settle(node)
    bring(node, files[11:])
    settle(node)
    assert [row.state for row in arrivals(node)] == ["queued", "quarantined", "queued"]
    first, grown = jobs(node)
    assert (grown.supersedes, set(read_by(node, grown).values()) & {"OTHER"}) == (first.id, set())
    assert len(read_by(node, grown)) == SLICES


def test_a_node_that_once_took_another_patients_instances_in_runs_the_first_ones_alone(
    node: Node, files: Sequence[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bring(node, files[:10])
    settle(node)
    bring(node, of_another(files, tmp_path / "other", "one slice"))
    settle(node)
    with node.engine.begin() as connection:  # as earlier versions had it
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == 2).values(state="queued", is_apart=0, reason=""))
    caplog.clear()
    bring(node, files[10:])
    settle(node)
    assert set(read_by(node, jobs(node)[-1]).values()) == set(read_by(node, jobs(node)[0]).values())
    assert len(read_by(node, jobs(node)[-1])) == SLICES
    assert caplog.messages == [
        "arrival 3: of what came before under its Series UID, 1 is another patient's, and no part of it"
    ]


@pytest.mark.parametrize("broken", ["source", "file"])
def test_another_patients_are_apart_also_where_the_node_cant_judge_them(
    node: Node, files: Sequence[Path], tmp_path: Path, broken: str
) -> None:
    bring(node, files)
    settle(node)
    bring(node, of_another(files, tmp_path / "other", "one slice"))
    if broken == "source":
        node = Node(node.store, replace(node.settings, sources={}))
    else:
        next(Path(node.store.folder, "incoming", "1").glob("*.dcm")).write_bytes(b"x")
    settle(node)
    assert arrivals(node)[-1].state == "apart"


def test_what_differs_of_several_patients_without_names_says_so(
    node: Node, files: Sequence[Path], tmp_path: Path
) -> None:
    bring(node, files)
    settle(node)
    for patient, part in (("A", files[:5]), ("B", files[5:])):
        came = changed(part, tmp_path / patient, PatientID=patient, PatientIdentityRemoved="YES")
        assert bring(node, came) == {Accepted.APART}
    settle(node)
    assert arrivals(node)[-1].state == "apart"
    assert "Besides, the series holds instances of several patients (7, 5; the fewest" in arrivals(node)[-1].reason


@pytest.mark.parametrize("when", ["before", "with them", "after"])
def test_what_names_no_patient_is_in_nobodys_volume_where_several_are_known(
    node: Node, files: Sequence[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    """It waits in quarantine, and is named, whenever it comes."""
    nameless = changed(files[5:6], tmp_path / "nameless", is_renamed=True, PatientID="", PatientName="")
    others = of_another(files, tmp_path / "other", "all")
    came = {
        "before": [[*files[:3], *others[:3], *nameless], files[3:], others[3:]],
        "with them": [[*files[:3], *others[:3]], [*files[3:], *nameless], others[3:]],
        "after": [[*files[:3], *others[:3]], files[3:], others[3:], nameless],
    }
    for some in came[when]:
        bring(node, some)
        settle(node)
    name = str(dcmread(nameless[0]).SOPInstanceUID)
    [held] = [row for row in arrivals(node) if name in row.reason]
    assert held.state == "quarantined"
    assert (when == "before") != held.reason.startswith("instances without a patient came where several patients are")
    assert any(name in message for message in caplog.messages)
    volumes = [read_by(node, job) for job in jobs(node)]
    assert [set(read.values()) for read in volumes] == (
        [{"OTHER"}] if when == "with them" else [{str(dcmread(files[0]).PatientID)}, {"OTHER"}]
    )
    assert {len(read) for read in volumes} == {SLICES}


def _let_go_and_run(node: Node, arrival: int) -> None:
    let_go(node, arrival)
    run(node)
    run(node, is_healthy=True)


KNOWN_BY: Mapping[str, Callable[[Node, int], None]] = {
    "apart": lambda node, arrival: None,
    "released": let_go,
    "ended": _let_go_and_run,
    "another source's": lambda node, arrival: let_go(node, arrival, "pacs"),
}
"""What became of another patient's instances before one came that names none."""


@pytest.mark.parametrize("with_more", [True, False])
@pytest.mark.parametrize("other", ["one slice", "all"])
@pytest.mark.parametrize("became", KNOWN_BY)
def test_what_names_no_patient_joins_nobody_whatever_became_of_the_others_that_are_known(
    node: Node, files: Sequence[Path], tmp_path: Path, became: str, other: str, *, with_more: bool
) -> None:
    bring(node, files[:10])
    settle(node)
    bring(node, of_another(files, tmp_path / "other", other))
    settle(node)
    KNOWN_BY[became](node, 2)
    before = [(job.id, set(read_by(node, job))) for job in jobs(node)]
    nameless = changed(files[5:6], tmp_path / "nameless", is_renamed=True, PatientID="", PatientName="")
    bring(node, [*nameless, *(files[10:11] if with_more else [])])
    settle(node)
    held = arrivals(node)[-1]
    name = str(dcmread(nameless[0]).SOPInstanceUID)
    assert (held.state, name in held.reason) == ("quarantined", True)
    assert held.reason.startswith("instances without a patient came where several patients are known")
    assert [(job.id, set(read_by(node, job))) for job in jobs(node)] == before
    bring(node, files[11 if with_more else 10 :])
    settle(node)
    last = jobs(node)[-1]
    assert set(read_by(node, last)) == {f"{dcmread(file).SOPInstanceUID}.dcm" for file in files}
    assert (arrivals(node)[2].state, last.supersedes) == ("quarantined", before[0][0])


@pytest.mark.parametrize("when", ["first", "later"])
def test_what_came_without_a_patient_before_another_was_known_is_no_part_of_what_comes_after(
    node: Node, files: Sequence[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    nameless = changed(files[5:6], tmp_path / "nameless", is_renamed=True, PatientID="", PatientName="")
    for some in [[*nameless, *files[:9]]] if when == "first" else [files[:9], nameless]:
        bring(node, some)
        settle(node)
    bring(node, of_another(files, tmp_path / "other", "all"))
    settle(node)
    bring(node, files[9:])
    settle(node)
    assert f"1 without a patient: {dcmread(nameless[0]).SOPInstanceUID}" in caplog.messages[-1]
    assert len(read_by(node, jobs(node)[-1])) == SLICES


def test_where_one_patient_is_known_what_names_none_is_theirs_also_by_another_source(
    node: Node, files: Sequence[Path], tmp_path: Path
) -> None:
    bring(node, files[:9])
    bring(node, files[:9], "pacs")
    settle(node)
    nameless = changed(files[9:], tmp_path / "nameless", PatientID="", PatientName="")
    bring(node, nameless)
    settle(node)
    assert (arrivals(node)[-1].state, arrivals(node)[-1].reason) == ("queued", "")
    assert len(read_by(node, jobs(node)[-1])) == SLICES


def test_another_patients_that_come_with_one_that_names_none_name_it(
    node: Node, files: Sequence[Path], tmp_path: Path
) -> None:
    bring(node, files)
    settle(node)
    nameless = changed(files[5:6], tmp_path / "nameless", is_renamed=True, PatientID="", PatientName="")
    bring(node, [*of_another(files, tmp_path / "other", "all"), *nameless])
    settle(node)
    apart = arrivals(node)[-1]
    assert apart.state == "apart"
    assert apart.reason.endswith(f"; 1 without a patient: {dcmread(nameless[0]).SOPInstanceUID}.")
