"""measurements-sr: the measurements as a TID 1500 report."""

from __future__ import annotations

from carina.dicom.series import Series
from carina.dicom.sr import Makers, measurements, unlike_segments
from carina.operators.networks import Networks
from carina.operators.ports import ClassificationPort, DicomObjects, RatioPort, SourcePort
from carina.operators.producers import producer
from carina.operators.written import Written, nothing, written
from carina.pipeline.operator import Context, Operator


def measurements_sr(  # noqa: PLR0913 - five ports and two services, and an operator's ports are its parameters
    ratio: RatioPort,
    source: SourcePort,
    classification: ClassificationPort | None = None,
    lung_seg: DicomObjects | None = None,
    lesion_seg: DicomObjects | None = None,
    *,
    networks: Networks,
    context: Context,
) -> Written:
    """Write the measurements, and the class probabilities, as a structured report that refers to the segments."""
    if not isinstance(source, Series):
        return nothing(context)
    segs = [dataset for objects in (lung_seg, lesion_seg) if objects for dataset in objects.objects.values()]
    for sentence in unlike_segments(ratio, source, segs):
        context.warn(sentence)
    makers = Makers(
        lung=producer(ratio.lung_made_by, networks, context.when),
        lesion=producer(ratio.lesion_made_by, networks, context.when),
        classifier=producer(classification.made_by, networks, context.when) if classification else None,
    )
    return written({"measurements": measurements(ratio, classification, source, makers, segs)}, context)


OPERATOR = Operator(
    name="measurements-sr",
    images=("carina/measurements-sr",),
    function=measurements_sr,
    inputs={
        "/input": "ratio",
        "/dcm": "source",
        "/classification": "classification",
        "/lung_seg": "lung_seg",
        "/lesion_seg": "lesion_seg",
    },
    outputs={"/output": "dicom", "/logs": "logs"},
    places={"/output": "dicom"},
)
