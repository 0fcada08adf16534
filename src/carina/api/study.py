"""From a path to a finished run: choose the series, put settings, bundles and operators together, go."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from carina.api.result import Run
from carina.config import Settings, find_settings
from carina.deliver.onward import Onward
from carina.dicom.find import choose_source
from carina.dicom.find import find_series as find
from carina.dicom.found import Listing
from carina.dicom.read import read_source
from carina.dicom.rules import load_rules
from carina.dicom.series import Source, VolumeFile
from carina.dicom.voxel_limit import allow_voxels
from carina.errors import one_line
from carina.operators.catalogue import definition_file
from carina.operators.needed import needed_tasks
from carina.operators.networks import Networks
from carina.operators.others import with_others
from carina.pipeline.check import bound
from carina.pipeline.definition import Definition, load_definition
from carina.pipeline.digests import Digests
from carina.pipeline.manifest import Provenance
from carina.pipeline.operator import Operator
from carina.pipeline.run import Event, RunOptions, run_pipeline
from carina.pipeline.table import OperatorTable
from carina.volume.volume import Volume

LIBRARIES = ("numpy", "scipy", "pydicom", "highdicom", "openvino")

OUTPUT_BYTES_PER_VOXEL = 5
"""What a run writes for each voxel at most: int16 volume, uint8 masks, DICOM objects."""

SMALLEST_RUN_BYTES = 20_000_000

BROKEN_LISTED = 100
"""Broken files that a manifest lists; the count says how many there are."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How ``run`` and ``run_many`` do their work.

    ``settings`` are the node's, by default those of ``./carina.toml`` and the environment. ``pipeline`` is a definition
    file or the name of one that ships, by default ``default``; ``arguments`` replace the defaults of its parameters.
    ``uid`` picks a series by its UID. The definition knows ``operators`` beside those of Carina and of installed
    packages. ``progress`` hears of every step. ``onward`` is where a node sends the run's objects once it has ended: no
    step sends any then.
    """

    settings: Settings | None = None
    pipeline: Path | str | None = None
    arguments: Mapping[str, str] | None = None
    uid: str = ""
    operators: Sequence[Operator] = ()
    progress: Callable[[Event], None] | None = None
    onward: Onward | None = None


def default_settings() -> Settings:
    """The settings of ``carina.toml`` in the working folder, where there is one, and of the environment."""
    return find_settings(None, os.environ)


def _applied(given: Settings | None) -> Settings:
    """The settings of a call, which hold for all that it reads: the process keeps none of an earlier call's."""
    settings = given or default_settings()
    allow_voxels(settings.limits)
    return settings


def find_series(path: Path | str, settings: Settings | None = None) -> Listing:
    """Every series and volume file below a path, the best first, each with the verdict of the rules.

    ``counts()`` of the answer says what became of every file there.

    Raises:
        BadSeries: the path does not exist or holds neither DICOM nor a volume file.
    """
    settings = _applied(settings)
    return find(Path(path), load_rules(settings.series_rules), most_voxels=settings.limits.voxels)


def choose_series(path: Path | str, settings: Settings | None = None, uid: str = "") -> Source:
    """The series below a path that a run would take, or the one of a UID.

    Raises:
        BadSeries: none can be used; the message says for each why.
    """
    settings = _applied(settings)
    return choose_source(find_series(path, settings), load_rules(settings.series_rules), uid=uid)


def read_series(path: Path | str, uid: str = "") -> Volume:
    """Read the best axial chest CT below a path, or the series of a UID: HU ``(z, y, x)`` int16 with its grid.

    Raises:
        BadSeries: none can be used; the message says for each why.
    """
    return read_source(choose_series(path, uid=uid))


def run(
    source: Path | str | Source, out: Path | str, how: RunSettings | None = None, *, operators: Sequence[Operator] = ()
) -> Run:
    """Run a pipeline on a path's best series (or a chosen one), every result into the folder ``out``.

    ``operators`` join those of ``how``: a function of your own becomes a step of a definition.

    A run that was interrupted resumes after its last finished operator; one that is finished is only opened.

    Raises:
        CarinaError: by who must act; see ``carina.errors``.
    """
    how = how or RunSettings()
    settings = _applied(how.settings)
    definition, table = _pipeline(how, operators)
    if isinstance(source, str | Path):
        source = choose_series(source, settings, how.uid)
    networks = Networks(settings)
    networks.check(needed_tasks(definition))
    options = RunOptions(
        progress=how.progress,
        provenance=provenance(source, settings, networks),
        needed_bytes=needed_bytes(source),
    )
    run_pipeline(
        definition,
        table,
        inputs={"input": source},
        out=Path(out),
        services=(settings, networks, *((how.onward,) if how.onward else ())),
        options=options,
    )
    return Run(Path(out))


def check_pipeline(how: RunSettings) -> None:
    """See that the definition can be run, before anything is read for it.

    Raises:
        BadConfig: the definition has mistakes; the message lists each with its line.
    """
    bound(*_pipeline(how))


def _pipeline(how: RunSettings, operators: Sequence[Operator] = ()) -> tuple[Definition, OperatorTable]:
    definition = load_definition(definition_file(how.pipeline), how.arguments)
    table = with_others((how.settings or default_settings()).operators)
    return definition, table.with_all(*how.operators, *operators)


def needed_bytes(source: Source) -> int:
    """About what a run on this source writes."""
    if isinstance(source, VolumeFile):
        return max(SMALLEST_RUN_BYTES, OUTPUT_BYTES_PER_VOXEL * source.path.stat().st_size)
    return max(SMALLEST_RUN_BYTES, OUTPUT_BYTES_PER_VOXEL * len(source.instances) * source.rows * source.columns)


def provenance(source: Source, settings: Settings, networks: Networks) -> Provenance:
    """What the manifest says a run was made from; decides whether an earlier run is resumed."""
    runtime = networks.runtime_settings
    return Provenance(
        inputs=_inputs(source),
        beside={"files": _files(source)},
        bundles={
            task: {"name": one.name, "version": one.version, "sha256": one.sha256}
            for task, one in networks.readable().items()
        },
        settings={
            "runtime": {"kind": runtime.kind, "precision": runtime.precision, "plan": runtime.plan},
            "destinations": sorted(settings.destinations),
        },
        versions={"python": platform.python_version()} | {library: version(library) for library in LIBRARIES},
        warnings=() if isinstance(source, VolumeFile) else source.warnings,
    )


def _inputs(source: Source) -> dict[str, Any]:
    if isinstance(source, VolumeFile):
        digest = hashlib.sha256(source.path.read_bytes()).hexdigest()
        return {"kind": "volume file", "file": source.path.name, "sha256": digest}
    digests = Digests()
    named = [f"{one.sop_instance_uid} {one.position_mm} {digests.of(one.path).sha256}" for one in source.instances]
    return {
        "kind": "DICOM series",
        "series_uid": source.uid,
        "study_uid": source.study_uid,
        "instances": len(source.instances),
        "sha256": hashlib.sha256("\n".join(named).encode()).hexdigest(),
    }


def _files(source: Source) -> dict[str, Any]:
    """What became of every file below the path, and which are broken; the names of their folders may name a patient."""
    counts, broken = source.counts, source.inventory.broken
    told = [{"file": one_line(one.path.name), "reason": one_line(one.reason)} for one in broken[:BROKEN_LISTED]]
    kinds = {"used": counts.used, "copy": counts.copy, "other": counts.other, "broken": counts.broken}
    return {**kinds, "broken_files": told}
