"""What of a run is compared with that of another scan of the patient."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path

import msgspec
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from carina.api.result import Run
from carina.errors import BadConfig, one_line
from carina.measure.change import ScanFindings, is_told_cut
from carina.measure.findings import RegionFindings
from carina.pipeline.ports import FILE_ERRORS

NO_LUNGS = RegionFindings(region="lungs", lung_ml=0.0, lesion_ml=0.0, ratio_percent=0.0)


def scan_findings(run: Run) -> ScanFindings:
    """What a run found in both lungs together, when its scan was made, and by which network.

    Raises:
        BadConfig: ``run.damaged``, a file of the run is gone or damaged; ``run.unmeasured``, it measured no ratio.
    """
    ratio = _ratio(run)
    network = " ".join(ratio.lesion_made_by.split(" ")[:2])
    return ScanFindings(
        on=scanned_on(run),
        lungs=ratio.regions[0] if ratio.regions else NO_LUNGS,
        network=network,
        is_cut=is_told_cut((*ratio.warnings, *run.warnings)),
    )


def measured_by(run: Run) -> tuple[str, ...]:
    """The bundles (``name version sha256``) that made the masks that a run measured: lungs, lesions.

    Raises:
        BadConfig: as ``scan_findings``.
    """
    ratio = _ratio(run)
    return tuple(one for one in (ratio.lung_made_by, ratio.lesion_made_by) if one)


class _Ratio(msgspec.Struct, frozen=True):
    regions: tuple[RegionFindings, ...] = ()
    lesion_made_by: str = ""
    lung_made_by: str = ""
    warnings: tuple[str, ...] = ()


def _ratio(run: Run) -> _Ratio:
    stored = run.stored("volume-ratio.json")
    if not stored:
        said = f"{run.folder}: measured no lesion to lung ratio, so that nothing of it can be compared."
        raise BadConfig("run.unmeasured", said)
    try:
        return msgspec.convert(stored, _Ratio)
    except msgspec.ValidationError as error:
        said = f"{run.folder}: volume-ratio.json is none of Carina's ({one_line(str(error))}); make the run again."
        raise BadConfig("run.damaged", said) from error


def earlier_findings(runs: Mapping[int, Path]) -> dict[int, ScanFindings]:
    """What runs found, by their numbers and in their order.

    One that is damaged, or measured nothing, is passed over: its own pages tell of it.
    """
    found = {}
    for number, folder in runs.items():
        with suppress(BadConfig):
            found[number] = scan_findings(Run(folder))
    return found


def scanned_on(run: Run) -> date | None:
    """The study's date as the run's objects carry it; None where it has no objects, or they no date."""
    for file in run.dicom:
        try:
            text = str(dcmread(file, stop_before_pixels=True, specific_tags=["StudyDate"]).get("StudyDate", ""))
            return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
        except (*FILE_ERRORS, InvalidDicomError, ValueError):
            continue
    return None
