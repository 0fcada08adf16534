"""dicom-report-writer: a result as a PDF inside a DICOM object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from carina.dicom.decode import open_pixels
from carina.dicom.geometry import plan_volume
from carina.dicom.objects import joined
from carina.dicom.pdf import encapsulated_pdf
from carina.dicom.read import read_source
from carina.dicom.series import Series
from carina.measure.findings import Classification, KeySlice
from carina.operators.networks import Networks
from carina.operators.ports import ClassificationPort, RatioPort, SourcePort
from carina.operators.producers import makers, validations_of
from carina.operators.text import one_of
from carina.operators.written import Written, nothing, written
from carina.pipeline.operator import Context, Operator, Setting
from carina.report.facts import report_facts, said_sha256
from carina.report.pages import classification_pdf, ratio_pdf

if TYPE_CHECKING:
    from carina.volume.grid import Grid


def dicom_report_writer(
    result: ClassificationPort | RatioPort,
    source: SourcePort,
    *,
    called: Mapping[str, str] | None = None,
    networks: Networks,
    context: Context,
) -> Written:
    """Write a classification or a volume ratio as a PDF report with key slices, encapsulated in DICOM.

    ``called`` is the definition's ``creator``, ``name`` and ``version`` of the model; the report tells them beside the
    bundles that really ran.
    """
    if not isinstance(source, Series):
        return nothing(context)
    producers = makers(result, networks, context.when)
    told = _told(called or {})
    slices, grid = _key_slices(result.key_slices, source)
    facts = report_facts(source, producers, grid, validations=validations_of(result, networks), called=told)
    if isinstance(result, Classification):
        name, title = "classification", "COVID-19 classification"
        pdf = classification_pdf(result, facts, slices)
    else:
        name, title = "volume-ratio", "Lesion to lung volume ratio"
        pdf = ratio_pdf(result, facts, slices)
    said = (told,) if told else ()
    digest = said_sha256(replace(result, key_slices=slices), facts)
    return written({name: encapsulated_pdf(pdf, source, joined(producers), title, digest=digest)}, context, *said)


def _told(called: Mapping[str, str]) -> str:
    """The definition's words for the model, which need not be what ran; empty where it has none."""
    if not any(called.values()):
        return ""
    words = " ".join(called[key] for key in ("name", "version") if called.get(key)) or "model"
    creator = f" by {called['creator']}" if called.get("creator") else ""
    return f"The pipeline definition calls this {words}{creator}; what really ran is named on this page."


def _key_slices(slices: tuple[KeySlice, ...], source: Series) -> tuple[tuple[KeySlice, ...], Grid]:
    """The slices with CT voxels, read from the source where they lack them, and the grid they lie on."""
    plan = plan_volume(source)
    if all(key.hu is not None for key in slices):
        return slices, plan.grid
    if not plan.is_even or plan.is_sheared:
        hu = read_source(source).hu
        return tuple(replace(key, hu=hu[key.index]) for key in slices), plan.grid
    filled = []
    for key in slices:
        instance = source.instances[key.index]
        plane = np.empty((source.rows, source.columns), np.int16)
        open_pixels(instance.path).hu(instance.frame, plane)
        filled.append(replace(key, hu=plane))
    return tuple(filled), plan.grid


OPERATOR = Operator(
    name="dicom-report-writer",
    images=("clara/dicom-report-writer", "carina/dicom-report-writer"),
    function=dicom_report_writer,
    inputs={"/input": "result", "/dcm": "source"},
    outputs={"/output": "dicom", "/logs": "logs"},
    places={"/output": "dicom"},
    variables={
        "NVIDIA_DICOM_REPORT_TYPE": Setting(parameter="", read=one_of("pdf"), meaning="kind of report: pdf"),
        "NVIDIA_AI_MODEL_CREATOR": Setting(
            parameter="called", key="creator", meaning="what it calls the model's maker"
        ),
        "NVIDIA_AI_MODEL_NAME": Setting(parameter="called", key="name", meaning="what it calls the model"),
        "NVIDIA_AI_MODEL_VERSION": Setting(parameter="called", key="version", meaning="what it calls its version"),
    },
)
