"""dicom-writer: a mask or volume as one DICOM image a slice, as the older published pipeline wrote them."""

from __future__ import annotations

from carina.dicom.instances import mask_slices, volume_slices
from carina.dicom.objects_header import notes
from carina.dicom.series import Series
from carina.operators.networks import Networks
from carina.operators.ports import MaskPort, SourcePort, VolumePort
from carina.operators.producers import producer
from carina.operators.written import Written, nothing, written_slices
from carina.pipeline.operator import Context, Operator
from carina.volume.volume import Mask


def dicom_writer(image: MaskPort | VolumePort, source: SourcePort, *, networks: Networks, context: Context) -> Written:
    """Write a mask or a volume as derived CT images, one a slice, in a new series of the source's study.

    A mask lies on the source's own slices, its labels are the stored values; a volume lies on its own slices, in HU.
    """
    if not isinstance(source, Series):
        return nothing(context)
    for note in notes(source):
        context.warn(note)
    if isinstance(image, Mask):
        return written_slices(mask_slices(image, source, producer(image.made_by, networks, context.when)), context)
    return written_slices(volume_slices(image, source, producer("", networks, context.when)), context)


OPERATOR = Operator(
    name="dicom-writer",
    images=("clara/dicom-writer", "carina/dicom-writer"),
    function=dicom_writer,
    inputs={"/input": "image", "/dicom": "source"},
    outputs={"/output": "dicom", "/logs": "logs"},
    places={"/output": "dicom/slices"},
)
