"""A cohort on a real Slurm: submitted, run by an array of workers on one PostgreSQL queue, told in a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from carina.api.cohort_table import read_cohort_table
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from databases import new_database
from slurm import CORES, Slurm, slurm_cluster

SCRIPT = Path(__file__).resolve().parents[1] / "deploy" / "slurm" / "workers.sbatch"
PROGRAMS = Path(sys.executable).parent
_NUMBERS = count()

READING = """
api-version: 0.4.0
name: reading
operators:
- name: dicom-reader
  container: {image: carina/dicom-reader}
  input: [{path: /input}]
  output: [{path: /output}]
"""

STUDIES = 4
Command = Callable[..., str]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with slurm_cluster() as cluster:
        yield cluster


@pytest.fixture
def cohort(tmp_path: Path, postgresql: str) -> Path:
    """Settings, a definition and studies, as the guide has them."""
    write_ct_series(chest_phantom(shape=(36, 200, 200), lesions=0).volume, tmp_path / "ct")
    for number in range(STUDIES):
        (tmp_path / "archive" / f"p{number}").mkdir(parents=True)
        (tmp_path / "archive" / f"p{number}" / "ct").symlink_to(tmp_path / "ct", target_is_directory=True)
    (tmp_path / "reading.yaml").write_text(READING)
    database = new_database(postgresql, f"slurm{next(_NUMBERS)}")
    (tmp_path / "carina.toml").write_text(f'[node]\nfolder = "node"\ndatabase = "{database}"\n')
    return tmp_path


@pytest.fixture
def carina(cohort: Path) -> Command:
    def call(*words: str) -> str:
        done = subprocess.run([PROGRAMS / "carina", *words], cwd=cohort, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def start(slurm: Slurm, cohort: Path, array: str, *settings: Path) -> str:
    """Start workers as the guide does, with room for one job each; gives the job's number."""
    path = f"{PROGRAMS}:{os.environ['PATH']}"
    asked = ("--mem=1800", "--cpus-per-task=1", f"--array={array}")
    return slurm.call("sbatch", "--parsable", *asked, SCRIPT, *settings, cwd=cohort, PATH=path)


def logs(cohort: Path, job: str) -> str:
    return "\n".join(file.read_text() for file in sorted(cohort.glob(f"carina-{job}_*.log")))


def test_a_cohort_runs_to_its_end_through_sbatch(slurm: Slurm, cohort: Path, carina: Command) -> None:
    submitted = carina("submit", "archive", "--each", "folder", "--pipeline", "reading.yaml")
    assert submitted == f"{STUDIES} submitted, 0 had a job already\n"
    job = start(slurm, cohort, f"1-{CORES}", cohort / "carina.toml")
    assert slurm.wait(job) == ["COMPLETED"] * CORES, logs(cohort, job)
    assert carina("jobs", "table", "cohort.csv") == f"{STUDIES} done; table: cohort.csv\n"
    rows = read_cohort_table(cohort / "cohort.csv").to_dict("records")
    assert [Path(row["place"]).name for row in rows] == [f"p{number}" for number in range(STUDIES)]
    found = json.loads(carina("jobs", "list", "--json"))
    assert {(one["ended"], one["attempt"]) for one in found} == {("healthy", 1)}
    assert len({one["worker"] for one in found}) == CORES
    for one in found:
        assert (cohort / "node" / one["folder"] / "manifest.json").is_file()


def test_a_worker_that_slurm_cancels_gives_its_job_back(slurm: Slurm, cohort: Path, carina: Command) -> None:
    carina("submit", "archive/p0", "--pipeline", "default")
    job = start(slurm, cohort, "1", cohort / "carina.toml")
    while (seen := json.loads(carina("jobs", "list", "--json"))[0])["state"] != "running":
        assert slurm.states(job) != ["COMPLETED"], logs(cohort, job)
    slurm.call("scancel", job)
    assert slurm.wait(job) == ["CANCELLED"]
    (after,) = json.loads(carina("jobs", "list", "--json"))
    assert (seen["attempt"], after["state"], after["crashes"], after["retries"]) == (1, "pending", 0, 0)


def test_a_worker_without_settings_says_what_it_takes(slurm: Slurm, cohort: Path) -> None:
    job = start(slurm, cohort, "1")
    assert slurm.wait(job) == ["FAILED"]
    assert "the settings of the cohort: sbatch --array=1-64 workers.sbatch" in logs(cohort, job)
