"""A pipeline that takes the patient out: nothing in it goes past that, and no result tells whose scan it was."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom import dcmread
from sqlalchemy import select, update

from carina.api.result import Run
from carina.corrections.finish import Draft, finish
from carina.corrections.masks import MaskName
from carina.database import ARRIVAL, JOB, SCHEMA
from carina.deliver.notices import Notifier
from carina.deliver.pace import Pace
from carina.errors import BadConfig
from carina.jobs.compare import compare_job
from carina.jobs.execute import execute
from carina.jobs.queue import Attempt
from carina.operators.catalogue import find_definition
from carina.operators.deidentify import MAP_FILE
from carina.operators.ports import SourcePort
from carina.operators.table import BUILT_IN
from carina.pipeline.check import check_text
from carina.pipeline.foreign import ForeignOperator
from carina.pipeline.operator import Operator
from carina.pipeline.table import mistake_of
from carina.sections import NoticeSettings
from carina.service.node import RunningNode
from carina.service.viewer.ways_to_correct import source_of_run
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from served_nodes import add_job, hold, opened
from test_deidentify import NAMING, make_hostile
from tiny_networks import tiny_environment

FOREIGN = replace(BUILT_IN, foreigners=lambda _, step: foreign(step.inputs, step.outputs))
SHIPPED = find_definition("default-deidentified").read_text(encoding="utf-8")
STEPS: list[dict[str, Any]] = yaml.safe_load(SHIPPED)["operators"]
READERS = [
    (step["name"], entry["path"])
    for step in STEPS
    for entry in step["input"]
    if (entry.get("from"), entry.get("name")) == ("deidentify", "series")
]


def foreign(inputs: Any, outputs: Any) -> ForeignOperator:
    return ForeignOperator(
        name="theirs",
        images=("them/theirs",),
        function=lambda: None,
        inputs={},
        outputs={one.path: one.path for one in outputs},
        types={one.path: SourcePort for one in inputs},
        how="a program",
        mark="1",
    )


def changed(step: str, path: str, **wire: str) -> str:
    """The definition that ships, with one input wired otherwise."""
    definition = yaml.safe_load(SHIPPED)
    (inputs,) = (one["input"] for one in definition["operators"] if one["name"] == step)
    inputs[:] = [wire | {"path": path} if one["path"] == path else one for one in inputs]
    return yaml.safe_dump(definition)


def refused(text: str) -> list[str]:
    return [problem.message for problem in check_text(text, "x.yaml", FOREIGN)]


def past(step: str, path: str, instead: str = "") -> str:
    wire = instead or f"write {{from: deidentify, name: series, path: {path}}} instead"
    return f"'{step}' {path} reads the pipeline's input, with all that 'deidentify' takes out of it; {wire}"


def test_the_definition_that_ships_is_the_default_one_on_the_series_without_its_patient() -> None:
    default = yaml.safe_load(find_definition("default").read_text(encoding="utf-8"))["operators"]
    rewired = []
    for step in default:
        series = {"from": "deidentify", "name": "series"}
        inputs = [one if "from" in one else series | one for one in step["input"]]
        rewired.append(step | {"input": inputs})
    assert [step["name"] for step in STEPS] == ["deidentify", *(one["name"] for one in rewired), "send-series"]
    for step, wanted in zip(STEPS[1:-1], rewired, strict=True):
        assert step | {"description": ""} == wanted | {"description": ""}
    assert check_text(SHIPPED, "shipped.yaml", BUILT_IN) == []
    assert len(READERS) == 6


@pytest.mark.parametrize(("step", "path"), READERS)
@pytest.mark.parametrize("wire", [{}, {"name": "other"}])
def test_an_input_that_goes_past_the_deidentification_is_refused(step: str, path: str, wire: dict[str, str]) -> None:
    assert past(step, path) in refused(changed(step, path, **wire))


@pytest.mark.parametrize("name", [name for name, one in BUILT_IN.names.items() if one.inputs and name != "deidentify"])
def test_no_operator_may_read_the_pipelines_input_beside_it(name: str) -> None:
    operator = BUILT_IN.names[name]
    for path in operator.inputs:
        text = yaml.safe_dump(
            yaml.safe_load(SHIPPED)
            | {
                "operators": [
                    STEPS[0],
                    {"name": "x", "container": {"image": operator.images[0]}, "input": [{"path": path}]},
                ]
            }
        )
        assert past("x", path) in refused(text)


def test_a_program_of_others_may_not_either() -> None:
    theirs = {"name": "x", "container": {"image": "them/theirs"}, "input": [{"path": "/in"}]}
    text = yaml.safe_dump(yaml.safe_load(SHIPPED) | {"operators": [theirs, *STEPS]})
    assert refused(text) == [past("x", "/in")]


@pytest.mark.parametrize(
    ("outputs", "instead"),
    [
        (
            [{"path": "/dicom"}],
            "declare {path: /output, name: replaced} at 'deidentify' and write {from: deidentify, name: replaced, "
            "path: /input} instead",
        ),
        ([{"path": "/output"}], "write {from: deidentify, path: /input} instead"),
    ],
)
def test_what_to_write_instead_fits_what_is_declared(outputs: list[dict[str, str]], instead: str) -> None:
    reader = {"name": "x", "container": {"image": "carina/dicom-reader"}, "input": [{"path": "/input"}]}
    steps = [STEPS[0] | {"output": outputs}, reader | {"output": [{"path": "/output"}]}]
    assert refused(yaml.safe_dump(yaml.safe_load(SHIPPED) | {"operators": steps})) == [past("x", "/input", instead)]


def test_what_replaces_the_input_has_to_be_an_output() -> None:
    operator = Operator(name="x", images=("x",), function=lambda: None, inputs={}, replaces_input="/output")
    assert mistake_of(replace(operator, function=nothing)) == (
        "it replaces the pipeline's input by '/output', which is no output"
    )


def nothing() -> None:
    """An operator without inputs and outputs."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A node whose job on a patient's series has ended."""

    node: RunningNode
    job: int
    series: Path

    @property
    def run(self) -> Run:
        return Run(self.node.folder / "runs" / str(self.job))


SETTINGS = """
[models]
folders = ["{CARINA_MODELS_FOLDERS}"]
lung = "{CARINA_MODELS_LUNG}"
lesion = "{CARINA_MODELS_LESION}"
covid = "{CARINA_MODELS_COVID}"
[deidentify]
key = "{key}"
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
[destinations.share]
kind = "folder"
path = "{share}"
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """A job by ``default-deidentified``, on a series that has the name wherever a file can have one."""
    folder = tmp_path_factory.mktemp("node")
    for file in write_ct_series(chest_phantom(shape=(36, 200, 200), lesions=2, seed=4).volume, folder / "Doe^Jane"):
        make_hostile(file)
    bundles = tiny_environment(folder / "bundles")
    node = opened(folder, SETTINGS.format(key="k" * 40, share=folder / "share", **bundles))
    values: dict[str, Any] = {
        "state": "running",
        "ended": "",
        "attempt": 1,
        "stopped_at": None,
        "destinations": '["share"]',
    }
    job = add_job(node, source=str(folder / "Doe^Jane"), pipeline="default-deidentified", **values)
    log = logging.FileHandler(node.folder / "log.txt")
    ours = logging.getLogger("carina")
    ours.addHandler(log)
    ours.setLevel(logging.INFO)
    assert execute(node.settings, node.engine, Attempt(job, 1))
    notices = NoticeSettings(lesion_percent=0.001)
    Notifier(engine=node.engine, folder=node.folder, settings=notices, clock=node.now, pace=Pace()).round()
    ours.setLevel(logging.NOTSET)
    ours.removeHandler(log)
    yield Ended(node=node, job=job, series=folder / "Doe^Jane")


def told(ended: Ended) -> list[dict[str, Any]]:
    """Every row of every table."""
    with ended.node.engine.connect() as connection:
        return [dict(row._mapping) for table in SCHEMA.sorted_tables for row in connection.execute(select(table))]


def test_no_file_of_a_run_tells_the_patient(ended: Ended) -> None:
    files = [file for file in ended.run.folder.rglob("*") if file.is_file()]
    assert len(files) > 100
    assert [file.name for file in files if NAMING.search(file.read_bytes())] == [MAP_FILE]


def test_no_row_and_no_line_of_the_log_tells_the_patient(ended: Ended) -> None:
    """But where the series is: a path that its sender chose."""
    rows = told(ended)
    assert [row["ended"] for row in rows if "pipeline" in row] == ["healthy"]
    assert len([row for row in rows if row.get("destination") == "share"]) == 5 + 36
    assert [row["state"] for row in rows if "body" in row] == ["waiting"]
    assert [row.pop("source") for row in rows if "pipeline" in row] == [str(ended.series)]
    assert not NAMING.search(json.dumps(rows, default=str).encode())
    log = (ended.node.folder / "log.txt").read_bytes()
    assert b"deidentify: done" in log and not NAMING.search(log)


def test_its_five_objects_are_of_the_study_that_is_sent_with_them(ended: Ended) -> None:
    files = (ended.run.folder / "dicom").glob("*.dcm")
    objects = {file.stem: dcmread(file, stop_before_pixels=True) for file in files}
    assert set(objects) == {"lung-seg", "lesion-seg", "measurements", "classification", "volume-ratio"}
    study = {(one.PatientID, one.StudyInstanceUID) for one in objects.values()}
    assert study == {(one.PatientID, one.StudyInstanceUID) for one in map(dcmread, ended.run.dicom)}
    original = dcmread(next(ended.series.iterdir()), stop_before_pixels=True)
    assert original.StudyInstanceUID not in {uid for _, uid in study}


def test_no_page_of_its_reports_tells_the_patient(ended: Ended, tmp_path: Path) -> None:
    for name in ("classification", "volume-ratio"):
        pdf = tmp_path / f"{name}.pdf"
        pdf.write_bytes(dcmread(ended.run.folder / "dicom" / f"{name}.dcm").EncapsulatedDocument)
        text = subprocess.run(["pdftotext", pdf, "-"], capture_output=True, check=True).stdout
        assert re.search(rb"CARINA-[A-Z2-7]{12}", text)
        assert not NAMING.search(text)


def test_an_object_of_a_correction_is_of_the_series_without_its_patient(ended: Ended) -> None:
    run = ended.run
    source = source_of_run(run, ended.series)
    draft = Draft(layer=MaskName.LUNG, labels=run.lung.labels, revision=1, reader="R", at=datetime.now(UTC))
    made = finish(run, draft, source)
    file = run.folder / "corrections" / f"lung-{made.number}" / "dicom" / "lung-seg.dcm"
    assert not NAMING.search(file.read_bytes())
    assert dcmread(file).PatientID == dcmread(run.dicom[0]).PatientID


def test_what_is_told_of_two_scans_of_the_patient_is_not_made(ended: Ended) -> None:
    """A report on what changed would be made from the series as it came, and name the scan that it is compared with."""
    node, now = ended.node, ended.job
    one, other, *_ = sorted(ended.series.iterdir())
    earlier = add_job(node, hold(node, [one]), pipeline="default-deidentified")
    shutil.copytree(ended.run.folder, node.folder / "runs" / str(earlier))
    make_earlier(node, now, hold(node, [other]))
    with pytest.raises(BadConfig, match=rf"job {now}: the pipeline takes the patient out, and a report on two scans"):
        compare_job(node.settings, node.engine, now)
    assert not (ended.run.folder / "dicom" / "change.dcm").exists()


def make_earlier(node: RunningNode, later: int, arrival: int) -> None:
    """All scans are one patient's, and that of a job is the latest."""
    latest = {"studied": "20260301", "study_uid": "1.2.3"}
    with node.engine.begin() as connection:
        connection.execute(update(JOB).where(JOB.c.id == later).values(arrival_id=arrival))
        connection.execute(update(ARRIVAL).values(whose_sha256="a" * 64, studied="20260101"))
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == arrival).values(**latest))
