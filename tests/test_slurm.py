"""The guide docs/slurm.md, command by command, on a real Slurm and a real PostgreSQL; and what goes wrong there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from carina.api.cohort_table import read_cohort_table
from carina.cli.worker import ENDED_EARLY
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from databases import new_database
from reading_pipeline import READING
from slurm import Slurm, slurm_cluster

SCRIPT = Path(__file__).resolve().parents[1] / "deploy" / "slurm" / "workers.sbatch"
GUIDE = Path(__file__).resolve().parents[1] / "docs" / "slurm.md"
PROGRAMS = Path(sys.executable).parent
PATH = f"{PROGRAMS}:{os.environ['PATH']}"
_NUMBERS = count()

STUDIES = 4
WORKERS = 2
Command = Callable[..., str]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with slurm_cluster() as cluster:
        yield cluster


@pytest.fixture
def cohort(tmp_path: Path, postgresql: str) -> Path:
    """What the guide has as ``/shared/cohort``, beside an archive of studies."""
    write_ct_series(chest_phantom(shape=(36, 200, 200), lesions=0).volume, tmp_path / "ct")
    for number in range(STUDIES):
        (tmp_path / "archive" / f"p{number}").mkdir(parents=True)
        (tmp_path / "archive" / f"p{number}" / "ct").symlink_to(tmp_path / "ct", target_is_directory=True)
    folder = tmp_path / "cohort"
    folder.mkdir()
    (folder / "reading.yaml").write_text(READING)
    settings = here(tmp_path, blocks("toml")[0])
    database = new_database(postgresql, f"slurm{next(_NUMBERS)}")
    told = settings.replace("postgresql+psycopg://carina@db.cluster/cohort", database)
    assert told != settings
    (folder / "carina.toml").write_text(told)
    shutil.copy(SCRIPT, folder)
    return folder


def blocks(language: str) -> list[str]:
    """The guide's blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(), flags=re.M | re.S)


def here(shared: Path, text: str) -> str:
    """A block with this test's folder, as many workers as the cluster has room for, and a light definition."""
    text = text.replace("/shared/", f"{shared}/").replace("--array=1-64", f"--array=1-{WORKERS}")
    return text.replace("--each folder", "--each folder --pipeline reading.yaml")


@pytest.fixture
def carina(cohort: Path) -> Command:
    def call(*words: str) -> str:
        done = subprocess.run([PROGRAMS / "carina", *words], cwd=cohort, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def start(slurm: Slurm, cohort: Path, *settings: Path) -> str:
    """Start a worker; gives its job's number."""
    return slurm.call("sbatch", "--parsable", "--array=1", SCRIPT, *settings, cwd=cohort, PATH=PATH)


def logs(cohort: Path, job: str) -> str:
    return "\n".join(file.read_text() for file in sorted(cohort.glob(f"carina-{job}_*.log")))


def test_the_guide_from_submit_to_the_table(slurm: Slurm, cohort: Path, carina: Command) -> None:
    submit, run, watch, table = (here(cohort.parent, block) for block in blocks("sh"))

    def do(block: str) -> str:
        return slurm.call("bash", "-euc", block, cwd=cohort, PATH=PATH)

    assert do(submit) == f"{STUDIES} submitted, 0 had a job already"
    job = do(run).removeprefix("Submitted batch job ")
    assert "\nhealthy: " in do(watch)
    assert slurm.wait(job) == ["COMPLETED"] * WORKERS, logs(cohort, job)
    assert do(table) == f"{STUDIES} done; table: cohort.csv"
    rows = read_cohort_table(cohort / "cohort.csv").to_dict("records")
    assert [Path(row["place"]).name for row in rows] == [f"p{number}" for number in range(STUDIES)]
    found = json.loads(carina("jobs", "list", "--json"))
    assert {(one["ended"], one["attempt"]) for one in found} == {("healthy", 1)}
    assert len({one["worker"] for one in found}) == WORKERS
    assert len(list((cohort / "node" / "runs").glob("*/manifest.json"))) == STUDIES


def test_a_worker_out_of_time_gives_its_job_back_and_is_not_completed(
    slurm: Slurm, cohort: Path, carina: Command
) -> None:
    """It is told as by ``--signal=B:TERM@60``."""
    carina("submit", "../archive/p0", "--pipeline", "default")
    job = start(slurm, cohort, cohort / "carina.toml")
    while (seen := json.loads(carina("jobs", "list", "--json"))[0])["state"] != "running":
        assert slurm.states(job) != ["COMPLETED"], logs(cohort, job)
    slurm.call("scancel", "--batch", "--signal=TERM", job)
    assert slurm.wait(job) == ["FAILED"]
    assert ENDED_EARLY in logs(cohort, job)
    (after,) = json.loads(carina("jobs", "list", "--json"))
    assert (seen["attempt"], after["state"], after["crashes"], after["retries"]) == (1, "pending", 0, 0)


def test_a_worker_where_carina_is_not_on_the_path_says_so(tmp_path: Path) -> None:
    words = ["/bin/bash", str(SCRIPT), str(tmp_path / "carina.toml")]
    done = subprocess.run(words, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert (
        done.stderr
        == "carina is not on PATH here: activate its environment where sbatch is called, or in this script\n"
    )


def test_a_worker_without_settings_says_what_it_takes(slurm: Slurm, cohort: Path) -> None:
    job = start(slurm, cohort)
    assert slurm.wait(job) == ["FAILED"]
    assert "the settings of the cohort: sbatch --array=1-64 workers.sbatch" in logs(cohort, job)
