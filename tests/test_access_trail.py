"""Every route that shows something of a patient, called by a reader: their name and what they saw are in the trail."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from pydicom import dcmread
from pydicom.uid import EncapsulatedPDFStorage

from access_nodes import Guarded, guarded
from carina.service.access.roles import Need
from carina.service.access.rules import ROUTE_RULES, Rule
from served_nodes import write_result
from viewer_runs import posed, through_dicom, write_run

VIEWS = [rule for rule in ROUTE_RULES if rule.view and rule.need is Need.READ]

INSTANCE_PATH = "/dicom-web/studies/{study}/series/{series}/instances/{instance}"
UPLOADED = {"/jobs/{job:int}/series", "/api/v1/jobs/{id}/series"}
"""The job is of no upload: tests/test_uploads_series.py looks at one that is."""

NOT_SHOWN_HERE = {f"{INSTANCE_PATH}/bulkdata/{{tag}}"}
"""A CT slice has no bulk data but its pixels: there is nothing to see."""

WHO = {Need.READ: "reader", Need.OPERATE: "operator"}
"""Who may look, of the least of them."""

LEADS_ON = {"/series/{series}", "/studies/{study}", "/jobs/{job:int}/next"}
"""To the results of the latest job on it; to the next result to read, or to the list of those."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("seen")
    phantom = through_dicom(posed("plain", (24, 48, 48)), folder / "phantom")
    with guarded(folder) as served:
        run = write_run(phantom, served.node.folder / "runs" / str(served.job))
        slice_file = min((folder / "ct").glob("*.dcm"))
        pdf = write_result(served.node, served.job, slice_file, EncapsulatedPDFStorage)
        pdf.rename(run / "dicom" / "volume-ratio.dcm")
        yield served


def values_of(node: Guarded) -> dict[str, str]:
    """What the parts of paths are on this node."""
    header = dcmread(min((node.node.folder.parent / "ct").glob("*.dcm")), stop_before_pixels=True)
    uids = {"study": header.StudyInstanceUID, "series": header.SeriesInstanceUID, "instance": header.SOPInstanceUID}
    places = {"plane": "axial", "index": "3", "z": "3", "y": "4", "x": "5", "size": "quarter", "layer": "lung"}
    uids |= {"project": "default", "number": str(node.job)}
    return {
        **uids,
        **places,
        "project": "default",
        "job": str(node.job),
        "id": str(node.job),
        "frames": "1",
        "tag": "7FE00010",
    }


def path_of(rule: Rule, values: dict[str, str]) -> str:
    names = {"/volume/": "ct", "/pdf/": "volume-ratio", "/files/": "manifest.json"}
    name = next((one for part, one in names.items() if part in rule.path), "")
    filled = values | {"name": name}
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda found: filled[found[1]], rule.path)


@pytest.mark.parametrize("rule", VIEWS, ids=lambda rule: rule.path)
def test_what_is_seen_is_in_the_trail_under_a_name(node: Guarded, rule: Rule) -> None:
    path = path_of(rule, values_of(node))
    accept = "text/event-stream" if rule.is_quiet else "*/*"
    who = WHO[rule.need]
    with node.person(who, accept=accept).stream("GET", path) as answer:
        status = answer.status_code
    if rule.path in UPLOADED:
        assert status == 409
        return
    if rule.path in NOT_SHOWN_HERE or "/earlier/" in rule.path:  # there is no earlier scan
        assert status == 404
        return
    assert status == (303 if rule.path in LEADS_ON else 200), path
    assert (f"{who}.one", "looked", rule.subject(path)) in node.trail()
    assert "{" not in rule.subject(path)


@pytest.mark.parametrize("path", ["series", "instances", "series/1.2.999/instances"])
def test_a_study_that_is_not_here_or_not_seen_was_not_looked_at(node: Guarded, path: str) -> None:
    before = node.trail()
    answer = node.person("reader", accept="*/*").get(f"/dicom-web/studies/1.2.999/{path}")
    assert (answer.status_code, answer.json()) == (200, [])
    assert node.trail() == before
