"""dicom-seg-writer: a mask as a DICOM Segmentation."""

from __future__ import annotations

import re

from carina.dicom.codes import Structure, structure_of
from carina.dicom.objects_header import notes
from carina.dicom.seg import check_geometry, segmentation
from carina.dicom.series import Series
from carina.measure.lungs import split_lungs
from carina.operators.networks import Networks
from carina.operators.ports import MaskPort, SourcePort
from carina.operators.producers import producer
from carina.operators.text import one_of, text_list
from carina.operators.written import Written, nothing, written
from carina.pipeline.operator import Context, Operator, Setting
from carina.volume.volume import Mask

LUNG_LABELS = ("left lung", "right lung")


def dicom_seg_writer(
    mask: MaskPort,
    source: SourcePort,
    *,
    labels: tuple[str, ...] = (),
    kind: str = "BINARY",
    networks: Networks,
    context: Context,
) -> Written:
    """Write a mask as a DICOM Segmentation on the source slices, its geometry compared with the mask's.

    Without ``labels`` a lung mask is told apart into left and right, any other keeps its own names.
    """
    if not isinstance(source, Series):
        return nothing(context)
    for note in notes(source):
        context.warn(note)
    mask, texts = _segments(mask, labels)
    maker = producer(mask.made_by, networks, context.when)
    dataset = segmentation(mask, source, maker, texts, kind=kind)
    check_geometry(dataset, mask, source)
    checked = "geometry read back and compared with the mask: the same"
    return written({_name(texts or list(mask.names.values())): dataset}, context, checked)


def _segments(mask: Mask, labels: tuple[str, ...]) -> tuple[Mask, list[str] | None]:
    """The mask to write and its segments' labels: a lung mask of one label is split where one is not enough."""
    is_lung = len(mask.names) == 1 and structure_of(next(iter(mask.names.values()))) is Structure.LUNGS
    if is_lung and len(labels) in (0, 2):
        return split_lungs(mask), list(labels or LUNG_LABELS)
    return mask, list(labels) or None


def _name(labels: list[str]) -> str:
    """The file's name: by what the segments show."""
    match structure_of(labels[0]):
        case Structure.LUNGS | Structure.LEFT_LUNG | Structure.RIGHT_LUNG:
            return "lung-seg"
        case Structure.LESION | Structure.GROUND_GLASS | Structure.CONSOLIDATION:
            return "lesion-seg"
        case _:
            return re.sub(r"[^a-z0-9]+", "-", labels[0].lower()).strip("-") or "seg"


OPERATOR = Operator(
    name="dicom-seg-writer",
    images=("clara/dicom-seg-writer", "carina/dicom-seg-writer"),
    function=dicom_seg_writer,
    inputs={"/input": "mask", "/dcm": "source"},
    outputs={"/output": "dicom", "/logs": "logs"},
    places={"/output": "dicom"},
    variables={
        "NVIDIA_SEG_LABELS": Setting(parameter="labels", read=text_list, meaning="label of each segment, a JSON list"),
        "CARINA_SEG_TYPE": Setting(parameter="kind", read=one_of("BINARY", "LABELMAP"), meaning="segmentation type"),
    },
)
