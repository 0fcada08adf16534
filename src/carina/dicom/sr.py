"""The measurements as a TID 1500 report that refers to the segments (PS3.16 TID 1500, 1411, 1501)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from carina.dicom import codes as c
from carina.dicom.objects import Producer, long_string, references, stamp
from carina.dicom.objects_header import nameless_study, patient_and_study
from carina.dicom.series import Series
from carina.dicom.uids import derived_uid
from carina.measure.findings import Classification, RatioFindings, RegionFindings

SERIES_NUMBER = 9301

SIDES = {"left": c.LEFT, "right": c.RIGHT}

THIRD_CODES = {"upper": c.SUPERIOR, "middle": c.INTERMEDIATE, "lower": c.INFERIOR}


Segments = dict[c.Structure, tuple[Dataset, int]]


@dataclass(frozen=True, kw_only=True)
class _Report:
    """What every group of a report needs: its source, its maker, and which segment shows which structure."""

    series: Series
    producer: Producer
    segments: Segments

    def group(
        self,
        identifier: str,
        values: list[Measurement],
        *,
        finding: Code,
        site: FindingSite,
        structure: c.Structure | None = None,
    ) -> Any:
        """A volumetric group (TID 1411) where ``structure`` has a segment, else one without an outline (TID 1501)."""
        common = {
            "tracking_identifier": TrackingIdentifier(
                uid=self.producer.uid(self.series, "finding", identifier), identifier=identifier
            ),
            "finding_type": finding,
            "finding_sites": [site],
            "measurements": values,
        }
        if structure is None or structure not in self.segments:
            return MeasurementsAndQualitativeEvaluations(algorithm_id=_algorithm(self.producer), **common)
        seg, number = self.segments[structure]
        return VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=ReferencedSegment(
                sop_class_uid=seg.SOPClassUID,
                sop_instance_uid=seg.SOPInstanceUID,
                segment_number=number,
                source_series=SourceSeriesForSegmentation(referenced_series_instance_uid=self.series.uid),
            ),
            algorithm_id=_segment_algorithm(seg, number, self.producer),
            **common,
        )


def measurements(
    ratio: RatioFindings,
    classification: Classification | None,
    series: Series,
    producer: Producer,
    segs: Sequence[Dataset] = (),
) -> Dataset:
    """A Comprehensive 3D SR: each region's volumes, ratio and mean HU, the lesions, the class probabilities.

    ``segs`` are the Segmentation objects of the run: a region with a segment of its own becomes a volumetric group
    that refers to it, any other a group without an outline. Volumes are in ``cm3`` (1 cm3 is 1 ml). Nothing found
    gives a lesion group with volume 0. Ratio, lesion volume in a region, lesion count and probabilities have private
    codes (scheme 99CARINA), there being none in the standard.
    """
    report = _Report(series=series, producer=producer, segments=_segments(segs))
    groups = [_region(region, report) for region in ratio.regions]
    groups.append(_lesions(ratio, report))
    probabilities = sorted(classification.probabilities.items()) if classification else []
    if probabilities:
        groups.append(_classes(probabilities, report))
    content = MeasurementReport(
        observation_context=_observer(producer),
        procedure_reported=codes.LN.CTChestReport,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    facts = [str(seg.SOPInstanceUID) for seg in segs] + [repr(ratio.regions), repr(probabilities)]
    dataset: Dataset = Comprehensive3DSR(
        evidence=_evidence(series, segs),
        content=content[0],
        series_instance_uid=producer.uid(series, "sr series", *facts),
        series_number=SERIES_NUMBER,
        sop_instance_uid=producer.uid(series, "sr", *facts),
        instance_number=1,
        manufacturer=long_string(producer.manufacturer),
        is_complete=True,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )
    dataset.update(patient_and_study(series))
    stamp(dataset, producer, "Lung and lesion measurements")
    _name_scheme(dataset)
    return dataset


def _segments(segs: Sequence[Dataset]) -> Segments:
    """Which object and segment number shows a structure; the structure follows from the segment's label."""
    found: Segments = {}
    for seg in segs:
        for item in seg.SegmentSequence:
            found.setdefault(c.structure_of(str(item.SegmentLabel)), (seg, int(item.SegmentNumber)))
    return found


def _region(region: RegionFindings, report: _Report) -> Any:
    values = [
        _measure(c.VOLUME, region.lung_ml, c.ML),
        _measure(c.LESION_VOLUME, region.lesion_ml, c.ML),
        _measure(c.LESION_RATIO, region.ratio_percent, c.PERCENT),
    ]
    if region.lung_mean_hu is not None:
        values.append(_measure(c.ATTENUATION, region.lung_mean_hu, c.HOUNSFIELD, derivation=c.MEAN))
    words = region.region.split()
    site = FindingSite(
        anatomic_location=c.LUNG,
        laterality=next((SIDES[word] for word in words if word in SIDES), None),
        topographical_modifier=next((THIRD_CODES[word] for word in words if word in THIRD_CODES), None),
    )
    structure = next((s for s in c.Structure if s.value == region.region), None)
    return report.group(region.region, values, finding=c.LUNG, site=site, structure=structure)


def _lesions(ratio: RatioFindings, report: _Report) -> Any:
    lesions = (c.Structure.LESION, c.Structure.GROUND_GLASS, c.Structure.CONSOLIDATION)
    structure = next((s for s in lesions if s in report.segments), c.Structure.LESION)
    whole = ratio.regions[0]
    values = [
        _measure(c.VOLUME, whole.lesion_ml, c.ML),
        _measure(c.LESION_COUNT, float(ratio.lesion_count), c.NO_UNITS),
    ]
    if whole.lesion_mean_hu is not None:
        values.append(_measure(c.ATTENUATION, whole.lesion_mean_hu, c.HOUNSFIELD, derivation=c.MEAN))
    kind = c.SEGMENT_CODES[structure].kind
    site = FindingSite(anatomic_location=c.LUNG)
    return report.group(structure.value, values, finding=kind, site=site, structure=structure)


def _classes(probabilities: Sequence[tuple[str, float]], report: _Report) -> Any:
    values = [_measure(c.probability_code(name), value, c.NO_UNITS) for name, value in probabilities]
    return report.group("classification", values, finding=c.COVID_19, site=FindingSite(anatomic_location=c.LUNG))


def _measure(name: Code, value: float, unit: Code, derivation: Code | None = None) -> Measurement:
    return Measurement(name=name, value=round(float(value), 6), unit=unit, derivation=derivation)


def _algorithm(producer: Producer) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        name=producer.model_name or "unknown",
        version=producer.model_version or "unknown",
        parameters=[f"bundle_sha256={producer.bundle_sha256}", f"carina={producer.software_version}"],
        family=c.AI_FAMILY,
        manufacturer=producer.model_creator or producer.manufacturer,
    )


def _segment_algorithm(seg: Dataset, number: int, producer: Producer) -> AlgorithmIdentification:
    """The algorithm that made the segment, as the segment itself names it."""
    item = next(item for item in seg.SegmentSequence if item.SegmentNumber == number)
    if "SegmentationAlgorithmIdentificationSequence" not in item:
        return _algorithm(producer)
    made = item.SegmentationAlgorithmIdentificationSequence[0]
    return AlgorithmIdentification(
        name=str(made.AlgorithmName),
        version=str(made.AlgorithmVersion),
        parameters=[line for line in str(made.get("AlgorithmParameters", "")).split(",") if line] or None,
        family=c.AI_FAMILY,
        manufacturer=str(made.get("AlgorithmSource", "")) or producer.manufacturer,
    )


def _observer(producer: Producer) -> ObservationContext:
    """The software is the observer (TID 1004): no person has looked at these numbers."""
    device = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", producer.manufacturer, producer.software_version),
        name=producer.manufacturer,
        manufacturer_name=producer.manufacturer,
        model_name=long_string(f"{producer.manufacturer} {producer.software_version}"),
    )
    return ObservationContext(
        observer_device_context=ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    )


def _evidence(series: Series, segs: Sequence[Dataset]) -> list[Dataset]:
    """The source objects and the Segmentations as the report's evidence list needs them: identity, no patient."""
    objects = [(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID, series.uid) for item in references(series)]
    objects += [(seg.SOPClassUID, seg.SOPInstanceUID, seg.SeriesInstanceUID) for seg in segs]
    common, found = nameless_study(series), []
    for sop_class_uid, sop_instance_uid, series_uid in objects:
        source = Dataset()
        source.update(common)
        source.SOPClassUID, source.SOPInstanceUID = sop_class_uid, sop_instance_uid
        source.SeriesInstanceUID = series_uid
        found.append(source)
    return found


def _name_scheme(dataset: Dataset) -> None:
    """Say who is responsible for the private codes (PS3.3 C.12.1.1.17)."""
    item = Dataset()
    item.CodingSchemeDesignator = c.PRIVATE_SCHEME
    item.CodingSchemeName = "Codes of the Carina chest CT node"
    item.CodingSchemeResponsibleOrganization = "Carina"
    dataset.CodingSchemeIdentificationSequence = [item]
