"""Every operator that a definition may use."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from carina.operators import (
    ai_covid_19,
    ai_covid_lesion,
    ai_lung,
    ai_volume_ratio,
    deidentify,
    dicom_overlay_writer,
    dicom_reader,
    dicom_report_writer,
    dicom_seg_writer,
    dicom_writer,
    findings,
    lung_lesions,
    measurements_sr,
    register_results,
)
from carina.operators.left_aside import left_aside
from carina.operators.placed import misplaced
from carina.pipeline.plugins import with_installed
from carina.pipeline.table import OperatorTable

_ALL = (
    dicom_reader.OPERATOR,
    ai_lung.OPERATOR,
    ai_covid_lesion.OPERATOR,
    lung_lesions.OPERATOR,
    ai_covid_19.OPERATOR,
    ai_volume_ratio.OPERATOR,
    dicom_seg_writer.OPERATOR,
    dicom_report_writer.OPERATOR,
    dicom_writer.OPERATOR,
    dicom_overlay_writer.OPERATOR,
    measurements_sr.OPERATOR,
    findings.OPERATOR,
    deidentify.OPERATOR,
    register_results.OPERATOR,
)

NO_OPERATORS = OperatorTable(misplaced=misplaced)
"""No operators, for those who put in their own; masks and CTs that meet in one of them must lie on one grid."""

BUILT_IN = replace(NO_OPERATORS, left_aside=left_aside).with_all(*_ALL)
"""The operators of this package."""


@cache
def known_operators() -> OperatorTable:
    """The operators of this package and those of the packages that are installed beside it."""
    return with_installed(BUILT_IN)
