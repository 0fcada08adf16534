"""The operator table: every container image name that a definition may use."""

from __future__ import annotations

from carina.operators import (
    ai_covid_19,
    ai_covid_lesion,
    ai_lung,
    ai_volume_ratio,
    dicom_reader,
    dicom_report_writer,
    dicom_seg_writer,
    findings,
    measurements_sr,
    register_results,
)
from carina.pipeline.operator import Operator

_ALL = (
    dicom_reader.OPERATOR,
    ai_lung.OPERATOR,
    ai_covid_lesion.OPERATOR,
    ai_covid_19.OPERATOR,
    ai_volume_ratio.OPERATOR,
    dicom_seg_writer.OPERATOR,
    dicom_report_writer.OPERATOR,
    measurements_sr.OPERATOR,
    findings.OPERATOR,
    register_results.OPERATOR,
)

BY_NAME: dict[str, Operator] = {operator.name: operator for operator in _ALL}
"""Operators by their own name."""

OPERATORS: dict[str, Operator] = {image: operator for operator in _ALL for image in operator.images}
"""Operators by the container images that mean them; the tag is informational."""
