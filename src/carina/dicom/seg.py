"""A mask as a DICOM Segmentation on the slices it was made from (PS3.3 A.51, C.8.20)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from highdicom.seg import Segmentation as HighdicomSegmentation
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.uid import CTImageStorage
from pydicom.valuerep import format_number_as_ds

from carina.dicom.codes import AI_FAMILY, SEGMENT_CODES, Structure, structure_of, tracked_names
from carina.dicom.geometry import mask_on_source
from carina.dicom.objects import Producer, long_string, reference_to, references, stamp, tracking_uid
from carina.dicom.objects_header import frame_of_reference_uid, nameless_study, patient_and_study
from carina.dicom.seg_check import check_geometry, merged_labels
from carina.dicom.series import Instance, Series
from carina.dicom.validity import valid_value
from carina.errors import BadConfig
from carina.volume.arrays import Labels
from carina.volume.volume import Mask

__all__ = ["check_geometry", "segmentation"]

SEG_SERIES_NUMBERS = {
    Structure.LUNGS: 9101,
    Structure.LEFT_LUNG: 9101,
    Structure.RIGHT_LUNG: 9101,
    Structure.LESION: 9102,
    Structure.GROUND_GLASS: 9102,
    Structure.CONSOLIDATION: 9102,
    Structure.OTHER: 9103,
}

NO_CHEST = "Not a chest CT?"


def segmentation(
    mask: Mask, series: Series, producer: Producer, segments: Sequence[str] | None = None, *, kind: str = "BINARY"
) -> Dataset:
    """The mask as a Segmentation object in a new series of the source's study.

    ``segments`` are the segments' label texts in the order of the mask's label values, by default the mask's own
    names; one text for a mask of several labels merges them into one segment. Codes follow from the texts
    (``codes.structure_of``). ``kind`` is ``BINARY`` or ``LABELMAP``. Frames lie on the source's own slices, with its
    matrix and frame of reference; a slice without a label has no frame. A mask without any label gives one empty
    frame in the middle of the series, since an object without frames is not valid: its segments are described, its
    references complete, and a reader finds nothing in it. The mask's refusals and warnings stand in Image Comments;
    where there are refusals, Content Description begins with a question.

    Raises:
        BadConfig: there are neither as many texts as labels nor one, or ``kind`` is unknown.
        ModelFailed: the mask holds a value without a name, or its grid is not parallel to the slices.
    """
    if kind not in ("BINARY", "LABELMAP"):
        raise BadConfig("seg.kind", f"segmentation type {kind!r} is not known; use BINARY or LABELMAP.")
    texts = _texts(mask, segments)
    labels = merged_labels(mask_on_source(mask, series), mask, len(texts))
    used = labels.any(axis=(1, 2))
    planes = np.flatnonzero(used) if used.any() else np.array([len(labels) // 2])
    facts = kind, _digest(labels, planes), repr((texts, mask.refusals, mask.warnings))
    sources = _sources(series)
    dataset: Dataset = HighdicomSegmentation(
        source_images=[sources[k] for k in planes],
        pixel_array=labels if len(planes) == len(labels) else labels[planes],
        segmentation_type=SegmentationTypeValues(kind),
        segment_descriptions=_describe_all(texts, series, producer),
        series_instance_uid=producer.uid(series, "seg series", *facts),
        series_number=SEG_SERIES_NUMBERS[structure_of(texts[0])],
        sop_instance_uid=producer.uid(series, "seg", *facts),
        instance_number=1,
        manufacturer=long_string(producer.manufacturer),
        manufacturer_model_name=long_string(producer.model_name) or "unknown",
        software_versions=long_string(producer.software_version),
        device_serial_number=long_string(producer.bundle_sha256 or "none"),
        content_label="RESEARCH",
        content_description=long_string(_content(mask, texts, producer)),
        content_creator_name="Carina^",
        omit_empty_frames=bool(used.any()),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )
    dataset.update(patient_and_study(series))
    _refer(dataset, series)
    organization = producer.uid(series, "dimension organization", *facts)
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for item in dataset.DimensionIndexSequence:
        item.DimensionOrganizationUID = organization
    stamp(dataset, producer, f"{', '.join(texts)} segmentation", mask.told)
    return dataset


def _content(mask: Mask, texts: Sequence[str], producer: Producer) -> str:
    """What the object holds and who made it; a doubt comes first, since viewers show the beginning."""
    return f"{NO_CHEST} " * bool(mask.refusals) + f"{', '.join(texts)} by {producer.model_name}"


def _texts(mask: Mask, segments: Sequence[str] | None) -> list[str]:
    names = [mask.names[value] for value in sorted(mask.names)]
    texts = list(segments) if segments is not None else names
    if len(texts) not in (1, len(names)) or not texts:
        raise BadConfig(
            "seg.labels", f"{len(texts)} segment labels {texts} are given for a mask with {len(names)}: {names}."
        )
    return [long_string(text) for text in texts]


def _digest(labels: Labels, planes: npt.NDArray[np.intp]) -> str:
    found = hashlib.sha256()
    for k in planes:
        found.update(int(k).to_bytes(4, "little"))
        found.update(np.ascontiguousarray(labels[k]).data)
    return found.hexdigest()


def _sources(series: Series) -> list[Dataset]:
    """Each source slice as the writer needs it: identity and plane. Only these attributes are ever copied."""
    common = nameless_study(series)
    common.Modality = "CT"
    common.SOPClassUID = CTImageStorage
    common.SeriesInstanceUID = series.uid
    common.FrameOfReferenceUID = frame_of_reference_uid(series)
    common.PositionReferenceIndicator = ""
    common.Rows, common.Columns = series.rows, series.columns
    common.PixelSpacing = [format_number_as_ds(value) for value in series.pixel_spacing_mm]
    common.ImageOrientationPatient = [
        format_number_as_ds(value + 0.0) for axis in (series.slice_axes[2], series.slice_axes[1]) for value in axis
    ]
    step = format_number_as_ds(slice_step_mm(series))
    common.SliceThickness = common.SpacingBetweenSlices = step
    common.LossyImageCompression = "01" if valid_value(series.header, "LossyImageCompression") == "01" else "00"
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        value = valid_value(series.header, keyword)
        if value is not None and common.LossyImageCompression == "01":
            setattr(common, keyword, value)
    sources = []
    for k, instance in enumerate(series.instances):
        source = Dataset()
        source.update(common)
        source.SOPInstanceUID = _name(k, instance)
        source.ImagePositionPatient = [format_number_as_ds(value + 0.0) for value in instance.position_mm]
        sources.append(source)
    return sources


def slice_step_mm(series: Series) -> float:
    """The mean distance of neighbouring slices along their normal, in mm (1 for a single slice), as in the volume."""
    along = np.array([i.position_mm for i in series.instances]) @ np.array(series.slice_axes[0])
    return float(np.abs(along[-1] - along[0])) / (len(along) - 1) if len(along) > 1 else 1.0


def _refer(dataset: Dataset, series: Series) -> None:
    """Refer to every source object, and from each frame to its own slice, by their true classes and frames."""
    whole = references(series)
    group = Dataset()
    group.SeriesInstanceUID = series.uid
    group.ReferencedInstanceSequence = whole
    dataset.ReferencedSeriesSequence = [group]
    dataset.SourceImageSequence = whole
    known = {_name(k, instance): instance for k, instance in enumerate(series.instances)}
    for item in dataset.PerFrameFunctionalGroupsSequence:
        for source in item.DerivationImageSequence[0].SourceImageSequence:
            # Frames of several segments share one item, which is then already done.
            instance = known.pop(str(source.ReferencedSOPInstanceUID), None)
            if instance is not None:
                source.update(reference_to(instance))


def _name(k: int, instance: Instance) -> str:
    """The UID that slice ``k`` has while the object is made: frames of one multi-frame object need one each."""
    return instance.sop_instance_uid if instance.frame is None else f"2.25.{k + 1}"


def _describe_all(texts: Sequence[str], series: Series, producer: Producer) -> list[SegmentDescription]:
    names = tracked_names(texts)
    return [
        _describe(number, text, (tracking_uid(series, name), name), producer)
        for number, (text, name) in enumerate(zip(texts, names, strict=True), start=1)
    ]


def _describe(number: int, text: str, tracking: tuple[str, str], producer: Producer) -> SegmentDescription:
    codes = SEGMENT_CODES[structure_of(text)]
    item = SegmentDescription(
        segment_number=number,
        segment_label=text,
        segmented_property_category=codes.category,
        segmented_property_type=codes.kind,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=long_string(producer.model_name) or "unknown",
            family=AI_FAMILY,
            version=long_string(producer.model_version) or "unknown",
            source=long_string(producer.model_creator) or None,
            parameters={"bundle_sha256": producer.bundle_sha256, "carina": producer.software_version},
        ),
        tracking_uid=tracking[0],
        tracking_id=tracking[1],
        anatomic_regions=[codes.region] if codes.region else None,
        display_color=CIELabColor(*codes.color_lab),
    )
    if codes.modifiers:
        item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            CodedConcept.from_code(code) for code in codes.modifiers
        ]
    return item
