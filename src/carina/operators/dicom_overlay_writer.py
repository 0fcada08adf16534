"""dicom-overlay-writer: the CT with outlines and fill as a colour series, for a PACS that shows no Segmentation."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

from carina.dicom.decode import open_pixels
from carina.dicom.geometry import mask_on_source
from carina.dicom.instances import Colours, colour_slices
from carina.dicom.objects import joined
from carina.dicom.objects_header import notes
from carina.dicom.series import Series
from carina.operators.networks import Networks
from carina.operators.ports import MaskPort, SourcePort
from carina.operators.producers import producer
from carina.operators.written import Written, nothing, written_slices
from carina.pipeline.operator import Context, Operator
from carina.report.colour import colour_plane

DESCRIPTION = "CT with lungs outlined and lesions filled"


def dicom_overlay_writer(
    lesion: MaskPort, lung: MaskPort, source: SourcePort, *, networks: Networks, context: Context
) -> Written:
    """Paint lungs and lesions on the source's own slices and write them as colour images, one a slice.

    CT values are read from the source slice by slice, so that no slice is resampled and one is in memory at a time.
    """
    if not isinstance(source, Series):
        return nothing(context)
    for note in notes(source):
        context.warn(note)
    lungs, lesions = mask_on_source(lung, source), mask_on_source(lesion, source)

    opened = lru_cache(maxsize=1)(open_pixels)  # a multi-frame file's header is read once

    def picture(k: int) -> Colours:
        one, hu = source.instances[k], np.empty((source.rows, source.columns), np.int16)
        opened(one.path).hu(one.frame, hu)
        return colour_plane(hu, lungs[k] > 0, lesions[k] > 0, source.slice_axes)

    made = joined(tuple(producer(mask.made_by, networks, context.when) for mask in (lesion, lung)))
    digest = hashlib.sha256()
    for flags in (*lungs, *lesions):
        digest.update(np.packbits(flags > 0).data)
    told = tuple(dict.fromkeys((*lung.told, *lesion.told)))
    return written_slices(
        colour_slices(picture, source, made, description=DESCRIPTION, digest=digest.hexdigest(), told=told), context
    )


OPERATOR = Operator(
    name="dicom-overlay-writer",
    images=("carina/dicom-overlay-writer",),
    function=dicom_overlay_writer,
    inputs={"/input": "lesion", "/label_image": "lung", "/dcm": "source"},
    outputs={"/output": "dicom", "/logs": "logs"},
    places={"/output": "dicom/overlay"},
)
