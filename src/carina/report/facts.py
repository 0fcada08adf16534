"""What a report says about its study, as one frozen value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
from pydicom import Dataset

from carina.dicom.objects import Producer
from carina.dicom.series import Series, Source
from carina.dicom.validity import valid_value
from carina.models.validation import Validation
from carina.volume.grid import Grid


@dataclass(frozen=True, kw_only=True)
class ReportFacts:
    """Study, series and models as a report shows them; empty text where unknown. Holds no patient name.

    ``made_at`` is the time of the run. ``models`` made the result. ``grid`` is that of the key slices: it gives their
    position in mm and which way they are shown. ``validations`` is what models say of themselves, by model name.
    ``called`` is what the pipeline definition calls the model, where that is not what ran. ``warnings`` say what had
    to be done to the series (tilt corrected, attributes missing).
    """

    made_at: datetime
    software_version: str
    models: tuple[Producer, ...] = ()
    patient_id: str = ""
    accession_number: str = ""
    study_date: str = ""
    series_description: str = ""
    series_number: str = ""
    kernel: str = ""
    series_uid: str = ""
    grid: Grid | None = None
    validations: Mapping[str, Validation] = field(default_factory=dict)
    called: str = ""
    warnings: tuple[str, ...] = ()


def report_facts(
    source: Source,
    models: tuple[Producer, ...],
    grid: Grid | None = None,
    *,
    validations: Mapping[str, Validation] | None = None,
    called: str = "",
    warnings: tuple[str, ...] = (),
) -> ReportFacts:
    """The facts of a source and of the models that were run on it; the time is that of the first model's producer.

    The series' own warnings come first, ``warnings`` (the volume's) follow; none is told twice.

    Raises:
        ValueError: no model is given.
    """
    if not models:
        raise ValueError("a report needs at least one producer")
    said = {"series_uid": source.uid}
    if isinstance(source, Series):
        header = source.header
        date = _text(header, "StudyDate")
        said |= {
            "patient_id": _text(header, "PatientID"),
            "accession_number": _text(header, "AccessionNumber"),
            "study_date": f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 else date,
            "series_description": _text(header, "SeriesDescription"),
            "series_number": _text(header, "SeriesNumber"),
            "kernel": _text(header, "ConvolutionKernel"),
        }
        warnings = tuple(dict.fromkeys(source.warnings + warnings))
    return ReportFacts(
        made_at=models[0].when,
        software_version=models[0].software_version,
        models=models,
        grid=grid,
        validations=validations or {},
        called=called,
        warnings=warnings,
        **said,
    )


def said_sha256(findings: object, facts: ReportFacts) -> str:
    """A hash of all that a report says, but for the moment of the run, which alone differs when a run is repeated.

    ``findings`` are frozen values, with the arrays of their slices.
    """
    never = datetime.min
    timeless = replace(facts, made_at=never, models=tuple(replace(one, when=never) for one in facts.models))
    said = msgspec.json.encode((findings, timeless), enc_hook=_plain, order="deterministic")
    return hashlib.sha256(said).hexdigest()


def _plain(value: Any) -> object:
    """Arrays as their shape and a hash, numpy's numbers as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()
    raise NotImplementedError(f"{type(value).__name__} is nothing that a report says")


def _text(header: Dataset, keyword: str) -> str:
    return valid_value(header, keyword) or ""
