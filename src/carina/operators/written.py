"""What the writers of DICOM objects share: their ports, and what they say where there is no DICOM source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from carina.operators.ports import DicomObjects, Log
from carina.pipeline.operator import Context

if TYPE_CHECKING:
    from pydicom import Dataset

    from carina.dicom.instances import SliceSeries

NO_DICOM = "The input is a volume file without DICOM attributes, so no DICOM objects are made."


class Written(NamedTuple):
    """The ports of a DICOM writer."""

    dicom: DicomObjects
    logs: Log


def nothing(context: Context) -> Written:
    """The result for an input that is no DICOM series."""
    context.warn(NO_DICOM)
    return Written(DicomObjects(objects={}, note=NO_DICOM), Log(lines=(NO_DICOM,)))


def written(objects: Mapping[str, Dataset], context: Context, *facts: str) -> Written:
    """Objects by file name, with a log that names each one's UID."""
    lines = [f"{name}.dcm {dataset.SOPClassUID.name} {dataset.SOPInstanceUID}" for name, dataset in objects.items()]
    context.record("objects", {name: str(dataset.SOPInstanceUID) for name, dataset in objects.items()})
    return Written(DicomObjects(objects=objects), Log(lines=(*lines, *facts)))


def written_slices(series: SliceSeries, context: Context, *facts: str) -> Written:
    """A series of one object a slice, each made as it is stored; the log names the series."""
    context.record("series", {series.stem: {"uid": series.uid, "instances": len(series)}})
    line = f"{series.stem}: {len(series)} objects in series {series.uid}"
    return Written(DicomObjects(objects=series), Log(lines=(line, *facts)))
