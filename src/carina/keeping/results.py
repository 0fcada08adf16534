"""Whether the results of a node's runs are there as they were written, and the objects that are still to be sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, inspect, select

from carina.database import DELIVERY, JOB, REMOVAL
from carina.deliver.ledger import DeliveryState
from carina.errors import BadConfig
from carina.jobs.queue import JobEnd, JobState
from carina.keeping.corrected import Corrections, corrections_named, lost_corrections
from carina.keeping.removable import KeptKind
from carina.pipeline.digests import Digest, Digests
from carina.pipeline.folder import MANIFEST
from carina.pipeline.manifest import Manifest, read_manifest
from carina.pipeline.places import below
from carina.sections import RUNS, SET_ASIDE


@dataclass(frozen=True, kw_only=True)
class NamedResults:
    """Runs, by id, that ended well and were not removed, the files of objects not confirmed, and what readers finished.

    A run that did not end well may be tried again at any moment, and is not looked at.
    """

    runs: frozenset[int]
    objects: tuple[str, ...]
    corrections: Corrections = field(default_factory=dict)


NO_RESULTS = NamedResults(runs=frozenset(), objects=())
"""Of a database that can't be read."""


def results_named(connection: Connection) -> NamedResults:
    """What a database of any version that has jobs says is there."""
    stopped = JOB.c.state == JobState.STOPPED
    if inspect(connection).has_table(REMOVAL.name):
        stopped &= JOB.c.id.not_in(select(REMOVAL.c.subject_id).where(REMOVAL.c.kind == KeptKind.RUN))
    runs = connection.execute(select(JOB.c.id).where(stopped, JOB.c.ended == JobEnd.HEALTHY)).scalars()
    unconfirmed = select(DELIVERY.c.path).join(JOB, JOB.c.id == DELIVERY.c.job_id)
    unconfirmed = unconfirmed.where(stopped, DELIVERY.c.state != DeliveryState.CONFIRMED).distinct()
    objects = connection.execute(unconfirmed.order_by(DELIVERY.c.path)).scalars()
    corrections = corrections_named(connection)
    return NamedResults(runs=frozenset(runs), objects=tuple(objects), corrections=corrections)


def lost_results(folder: Path, named: NamedResults) -> tuple[str, ...]:
    """What of it is gone below a node's folder, or is not what was written there."""
    lost: list[str] = []
    for job_id in sorted(named.runs):
        lost += lost_of_run(folder, job_id)
        if (run := folder / RUNS / str(job_id)).is_dir():
            lost += [f"{RUNS}/{job_id}/{one}" for one in lost_corrections(run, named.corrections.get(job_id, {}))]
    return tuple(dict.fromkeys([*lost, *(path for path in named.objects if not (folder / path).is_file())]))


def lost_of_run(folder: Path, job_id: int) -> Iterator[str]:
    """Files below a node's folder that a run wrote and that are gone, or hold something else; or the run's folder."""
    place = f"{RUNS}/{job_id}"
    try:
        manifest = read_manifest(folder / place)
    except BadConfig as error:
        if error.code != "run.newer":
            yield f"{place}/{MANIFEST}"
        return
    if manifest is not None:
        yield from (f"{place}/{name}" for name in _lost(folder / place, manifest))
    elif not (folder / SET_ASIDE / f"run-{job_id}").exists():
        yield place if not (folder / place).exists() else f"{place}/{MANIFEST}"


def _lost(run: Path, manifest: Manifest) -> Iterator[str]:
    """A file that several operators wrote, as that of a scene, is as the last one left it."""
    written: dict[str, list[Digest]] = defaultdict(list)
    for record in manifest.operators.values():
        for name in (one for names in record.outputs.values() for one in names):
            written[name] += []
        for name, digest in record.files.items():
            written[name].append(digest)
    digests = Digests()
    yield from (name for name, known in sorted(written.items()) if not _is_whole(run, name, known, digests))


def _is_whole(run: Path, name: str, known: Sequence[Digest], digests: Digests) -> bool:
    """Of a run of an earlier version no digests are known, but where its files are."""
    try:
        file = below(run, name)
    except (BadConfig, OSError):
        return False
    return any(digests.agrees(file, digest) for digest in known) if known else file.is_file()
