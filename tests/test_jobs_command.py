"""``carina submit``, ``jobs`` and ``worker`` as a user calls them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from called import called
from carina.api.cohort_table import read_cohort_table
from carina.config import NodeSettings, Settings
from carina.jobs.places import open_node
from carina.jobs.worker import Worker
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from forked import FORKED
from reading_pipeline import READING

SETTINGS = """
[node]
folder = "node"
[destinations.shelf]
kind = "folder"
path = "x"
"""

SHAPE = (36, 200, 200)
"""The smallest with slices and pixels that the rules take."""

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    write_ct_series(chest_phantom(shape=SHAPE, lesions=0).volume, folder)
    return folder


@pytest.fixture
def carina(series: Path, tmp_path: Path) -> Command:
    (tmp_path / "ct").symlink_to(series, target_is_directory=True)
    (tmp_path / "reading.yaml").write_text(READING)
    (tmp_path / "carina.toml").write_text(SETTINGS)
    return partial(called, folder=tmp_path)


def started(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """``carina`` in a process of its own, as it is installed."""
    program = str(Path(sys.executable).with_name("carina"))
    return subprocess.run([program, *words], cwd=folder, capture_output=True, text=True, check=False)


def test_a_series_from_submit_to_its_log(carina: Command, tmp_path: Path) -> None:
    submitted = started("submit", "ct", "--pipeline", "reading.yaml", "--to", "shelf", folder=tmp_path)
    assert submitted.stdout == "1\n", submitted.stderr
    done = started("worker", "--until-empty", folder=tmp_path)
    assert done.returncode == 0
    assert {json.loads(line)["part"].partition(".")[0] for line in done.stderr.splitlines()} == {"carina"}
    assert carina("jobs", "wait", "1").stdout == "job 1: healthy\n"
    (job,) = json.loads(carina("jobs", "list", "--json").stdout)
    assert (job["id"], job["ended"], job["destinations"]) == (1, "healthy", ["shelf"])
    assert (tmp_path / "node" / job["folder"] / "manifest.json").is_file()
    log = carina("jobs", "logs", "1").stdout
    assert "research use only" in log
    assert "dicom-reader: done" in log


def test_a_job_is_changed_while_it_waits(carina: Command) -> None:
    said = [
        carina(*words).stdout
        for words in (
            ("submit", "ct", "--pipeline", "reading.yaml", "--priority", "low"),
            ("jobs", "priority", "1", "high"),
            ("jobs", "cancel", "1"),
        )
    ]
    assert said == ["1\n", "job 1: pending\n", "job 1: canceled\n"]
    waited = carina("jobs", "wait", "1")
    assert (waited.returncode, waited.stdout) == (3, "job 1: canceled\n  canceled: asked for.\n")
    assert carina("jobs", "retry", "1").stdout == "job 1: pending\n"
    assert "priority: high" in carina("jobs", "show", "1").stdout


def test_several_jobs_are_changed_at_once_and_those_that_can_not_be_are_told(carina: Command) -> None:
    for _ in range(3):
        carina("submit", "ct", "--pipeline", "reading.yaml")
    assert carina("jobs", "priority", "1", "2", "high").stdout == "job 1: pending\njob 2: pending\n"
    carina("jobs", "cancel", "2")
    done = carina("jobs", "cancel", "1", "2", "9", "3", "3")
    assert (done.returncode, done.stdout) == (4, "job 1: canceled\njob 3: canceled\n")
    told = done.stderr.splitlines()
    assert len(told) == 2 and "job 2 is canceled: only what waits or runs is canceled." in told[0]
    assert "job 9: there is none" in told[1]
    assert carina("jobs", "retry", "1", "2", "3").stdout == "".join(f"job {n}: pending\n" for n in (1, 2, 3))


def test_jobs_of_one_project_are_listed_and_counted(carina: Command, tmp_path: Path) -> None:
    with (tmp_path / "carina.toml").open("a") as file:
        file.write('[sources.trial]\nkind = "folder"\npath = "drop"\nproject = "trial"\n')
    for project in ("trial", "default", "trial"):
        done = carina("submit", "ct", "--pipeline", "reading.yaml", "--project", project)
        assert done.returncode == 0, done.stderr
    listed = json.loads(carina("jobs", "list", "--project", "trial", "--json").stdout)
    assert [job["id"] for job in listed] == [3, 1]
    assert carina("jobs", "count", "--project", "default").stdout.startswith("pending: 1\n")
    refused = carina("jobs", "list", "--project", "nowhere")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (4, 1)
    assert "there is no project 'nowhere'; known: default, trial" in refused.stderr


def test_refusals_are_one_line(carina: Command) -> None:
    for words, code, told in (
        (("submit", "nowhere"), 3, "nowhere"),
        (("submit", "ct", "--to", "pacs"), 4, "destination pacs is not in the settings; known: shelf."),
        (("submit", "ct", "--pipeline", "liver"), 4, "liver"),
        (("jobs", "show", "7"), 4, "job 7: there is none"),
        (("jobs", "retry", "7"), 4, "job 7: there is none"),
    ):
        done = carina(*words)
        assert done.returncode == code, done.stderr
        assert told in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert "id" in carina("jobs", "list").stdout


COHORT = ("submit", "archive", "--each", "folder", "--pipeline", "reading.yaml")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two studies, one that is broken, and what is none."""
    for name in ("p1", "p2", ".hidden"):
        (tmp_path / "archive" / name / "study").mkdir(parents=True)
        (tmp_path / "archive" / name / "study" / "series").symlink_to(tmp_path / "ct", target_is_directory=True)
    (tmp_path / "archive" / "broken").mkdir()
    (tmp_path / "archive" / "broken" / "1.dcm").write_bytes(b"no DICOM")
    (tmp_path / "archive" / "notes.txt").write_text("no study")
    return tmp_path / "archive"


def test_a_cohort_is_submitted_once(carina: Command, archive: Path, tmp_path: Path) -> None:
    assert carina(*COHORT).stdout == "3 submitted, 0 had a job already\n"
    (archive / "later").symlink_to(tmp_path / "ct", target_is_directory=True)
    assert carina(*COHORT, "--priority", "low").stdout == "1 submitted, 3 had a job already\n"
    found = json.loads(carina("jobs", "list", "--json").stdout)
    phantom, broken = (round(1500 + 20 * voxels / 1e6, 1) for voxels in (math.prod(SHAPE), 1024**2))
    assert [(Path(job["source"]).name, job["folder"], job["priority"], job["memory_mb"]) for job in found] == [
        ("later", "runs/4", "low", phantom),
        ("p2", "runs/3", "normal", phantom),
        ("p1", "runs/2", "normal", phantom),
        ("broken", "runs/1", "normal", broken),
    ]


def test_what_became_of_a_cohort_is_a_table(carina: Command, archive: Path, tmp_path: Path) -> None:
    carina(*COHORT)
    assert carina("jobs", "table", "before.csv").stdout == "3 waiting; table: before.csv\n"
    node = Settings(node=NodeSettings(folder=str(tmp_path / "node")))
    Worker(node, open_node(node), world=FORKED).go(until_empty=True)
    assert carina("jobs", "table", "after.csv").stdout == "2 done, 1 failed; table: after.csv\n"
    printed, here = carina("jobs", "table", "-"), tmp_path / "after.csv"
    assert (printed.stdout, printed.stderr) == (here.read_text(encoding="utf-8"), "2 done, 1 failed\n")
    assert not (tmp_path / "-").exists()
    rows = read_cohort_table(tmp_path / "after.csv").to_dict("records")
    assert [(Path(row["place"]).name, row["state"], row["code"], row["folder"]) for row in rows] == [
        ("broken", "failed", "series.truncated", "1"),
        ("p1", "done", "", "2"),
        ("p2", "done", "", "3"),
    ]
    assert carina("jobs", "table", "none.csv", "--pipeline", "default-overlay").stdout == "no jobs; table: none.csv\n"


def test_an_empty_cohort_is_refused(carina: Command, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "notes.txt").write_text("no study")
    done = carina("submit", "archive", "--each", "folder")
    assert (done.returncode, done.stdout) == (3, "")
    assert "no folder or volume file lies directly below" in done.stderr
