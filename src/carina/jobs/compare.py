"""The report on what changed between a scan and earlier ones of its patient: ``python -m carina.jobs.compare JOB``.

The process reads the node's settings from its standard input. The report's UIDs follow from what it says, the series
and those that it is compared with, and it enters the delivery ledger in the transaction that ends the wish for earlier
scans: one that is killed between is started again, and no second object comes of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import msgspec
from sqlalchemy import Engine

from carina import __version__
from carina.api.compared import earlier_findings, measured_by, scan_findings
from carina.api.result import Run
from carina.api.study import choose_series
from carina.config import Settings
from carina.database import OwnFolder, database_now
from carina.deliver.ledger import enter
from carina.dicom.objects import Producer, joined, save_object
from carina.dicom.pdf import encapsulated_pdf
from carina.dicom.series import Series
from carina.errors import BadConfig, CarinaError, told
from carina.jobs.comparison import OBJECT_FILE, removed_words
from carina.jobs.earlier import EarlierScan, earlier_scans, wish_of
from carina.jobs.listing import Job, find_job
from carina.jobs.places import connected
from carina.jobs.sources import source_of
from carina.jobs.wishes import end_wish
from carina.measure.change import ScanFindings
from carina.report.change_pages import CHANGE_TITLE, change_pdf
from carina.report.facts import report_facts, said_sha256


def compare_job(settings: Settings, engine: Engine, job_id: int) -> None:
    """Write the report of what changed since earlier scans, enter it into the ledger, and end the wish.

    Raises:
        CarinaError: the job, its series or a run is not there any more, or can't be read.
        OSError: the report can't be written.
    """
    folder = Path(settings.node.folder)
    with engine.connect() as connection:
        job, every = find_job(connection, job_id), earlier_scans(connection, job_id)
        removed = removed_words(connection, job_id)
    if job is None or not every:
        why = f" {' '.join(removed.values())}" if removed else ""
        raise BadConfig("compare.nothing", f"job {job_id}: there is nothing to compare it with.{why}")
    scans, findings = _undamaged(folder, job, every)
    written = _write(folder, job, scans, findings)
    wanted = {name: settings.destinations.get(name) for name in job.destinations}
    with OwnFolder(folder, engine).begin() as connection:
        now = database_now(connection)
        files = [written] if written else []
        enter(connection, job_id, wanted, files, folder=folder, now=now)
        wish = wish_of(connection, job_id)
        said = f"{wish.said if wish else ''} Compared with job {scans[0].job_id} of {scans[0].on}."
        end_wish(connection, job_id, said.strip(), now)


def _undamaged(
    folder: Path, job: Job, scans: Sequence[EarlierScan]
) -> tuple[Sequence[EarlierScan], Sequence[ScanFindings]]:
    found = earlier_findings({one.job_id: folder / one.folder for one in scans})
    if not found:
        raise BadConfig(
            "compare.damaged", f"job {job.id}: every run that it is to be compared with is damaged or measured nothing."
        )
    return [one for one in scans if one.job_id in found], list(found.values())


def _write(folder: Path, job: Job, scans: Sequence[EarlierScan], earlier: Sequence[ScanFindings]) -> Path | None:
    """The report as an object among those of the run; None where the source is no DICOM series."""
    run = Run(folder / job.folder)
    if run.is_deidentified:
        why = "the pipeline takes the patient out, and a report on two scans would tie them to the patient again"
        raise BadConfig("compare.deidentified", f"job {job.id}: {why}.")
    source = choose_series(source_of(folder, job), uid=job.series_uid)
    if not isinstance(source, Series):
        return None
    producers = _producers(run, [one.series_uid for one in scans])
    later, facts = scan_findings(run), report_facts(source, producers)
    pdf, digest = change_pdf(later, earlier, facts), said_sha256((later, tuple(earlier)), facts)
    made = encapsulated_pdf(pdf, source, joined(producers), CHANGE_TITLE, digest=digest)
    return save_object(made, run.folder / OBJECT_FILE)


def _producers(run: Run, since: Sequence[str]) -> tuple[Producer, ...]:
    """Who measured the later scan; ``since`` are the series that it is compared with, which enter the UIDs."""
    when = datetime.fromisoformat(run.manifest.ended or run.manifest.started)
    nobody = Producer(
        model_creator="Carina",
        model_name="no model",
        model_version="0",
        bundle_sha256="",
        software_version=__version__,
        when=when,
        settings=f"since {' '.join(since)}",
    )
    made = [
        replace(nobody, model_name=name, model_version=version, bundle_sha256=sha256)
        for name, version, sha256 in (f"{one}  ".split(" ")[:3] for one in measured_by(run))
    ]
    return tuple(made) or (nobody,)


def run_comparison() -> int:
    """Make the report of one job."""
    settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=Settings)
    try:
        compare_job(settings, connected(settings), int(sys.argv[1]))
    except (CarinaError, OSError) as error:
        sys.stderr.write(f"{told(error).message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run_comparison())
