"""dicom-reader: the chosen series, or a volume file, as a volume."""

from __future__ import annotations

from carina.dicom.read import read_source
from carina.operators.ports import SourcePort, VolumePort
from carina.pipeline.operator import Context, Operator


def dicom_reader(source: SourcePort, *, context: Context) -> VolumePort:
    """Read the voxels of a CT series (or of a MetaImage, NIfTI or NRRD file) in Hounsfield units."""
    volume = read_source(source, lambda done, count: context.progress(done / count))
    for warning in volume.warnings:
        context.warn(warning)
    return volume


OPERATOR = Operator(
    name="dicom-reader",
    images=("clara/dicom-reader", "carina/dicom-reader"),
    function=dicom_reader,
    inputs={"/input": "source"},
    outputs={"/output": ""},
    places={"/output": "volume"},
)
