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
    QualitativeEvaluation,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from carina.dicom import codes as c
from carina.dicom.geometry import plan_volume
from carina.dicom.objects import Producer, joined, long_string, long_text, references, stamp, tracking_uid
from carina.dicom.objects_header import nameless_study, patient_and_study
from carina.dicom.seg_check import segment_volumes_ml
from carina.dicom.series import Series
from carina.dicom.uids import derived_uid
from carina.measure.findings import Classification, RatioFindings, RegionFindings, in_class_order
from carina.measure.table import all_warnings

SERIES_NUMBER = 9301

SIDES = {"left": c.LEFT, "right": c.RIGHT}

THIRD_CODES = {"upper": c.SUPERIOR, "middle": c.INTERMEDIATE, "lower": c.INFERIOR}

LESIONS = frozenset({c.Structure.LESION, c.Structure.GROUND_GLASS, c.Structure.CONSOLIDATION})

SAME_VOLUME, ABOUT_THE_SAME_VOLUME = 1e-4, 0.02
"""By which share a segment's own volume may differ from what was measured; the second where slices were resampled."""

Segments = dict[c.Structure, tuple[Dataset, int]]


@dataclass(frozen=True, kw_only=True)
class Makers:
    """Who made what is measured: the lung mask, the lesion mask and, where there is one, the classification."""

    lung: Producer
    lesion: Producer
    classifier: Producer | None = None

    @property
    def masks(self) -> Producer:
        """The producer of what both masks are needed for."""
        return joined((self.lesion, self.lung))

    @property
    def everything(self) -> Producer:
        """The producer of the whole report."""
        return joined([one for one in (self.lesion, self.lung, self.classifier) if one is not None])


@dataclass(frozen=True, kw_only=True)
class _Report:
    """What every group of a report needs: its source, its makers, and which segment shows which structure."""

    series: Series
    makers: Makers
    segments: Segments

    def group(
        self,
        identifier: str,
        values: list[Measurement],
        *,
        concept: tuple[Code | None, FindingSite],
        maker: Producer,
        structure: c.Structure | None = None,
        judgement: Code | None = None,
    ) -> Any:
        """A volumetric group (TID 1411) where ``structure`` has a segment, else one without an outline (TID 1501).

        ``concept`` is the finding and its site. The finding is None where nothing was found or nothing is said to be:
        readers take a group that has one as that it is there. ``judgement`` says that something was looked for, and
        whether it was found.
        """
        finding, site = concept
        common = {
            "tracking_identifier": self._tracking(identifier, structure),
            "finding_type": finding,
            "finding_sites": [site],
            "measurements": values,
            "qualitative_evaluations": [QualitativeEvaluation(c.FINDINGS_SUMMARY, judgement)] if judgement else None,
        }
        if structure is None or structure not in self.segments:
            return MeasurementsAndQualitativeEvaluations(algorithm_id=_algorithm(maker), **common)
        seg, number = self.segments[structure]
        return VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=ReferencedSegment(
                sop_class_uid=seg.SOPClassUID,
                sop_instance_uid=seg.SOPInstanceUID,
                segment_number=number,
                source_series=SourceSeriesForSegmentation(referenced_series_instance_uid=self.series.uid),
            ),
            algorithm_id=_segment_algorithm(seg, number, maker),
            **common,
        )

    def _tracking(self, identifier: str, structure: c.Structure | None) -> TrackingIdentifier:
        """The segment's own where a group refers to one, so that both are known to be of the same thing."""
        item = Dataset() if structure is None or structure not in self.segments else _item(*self.segments[structure])
        name = str(item.get("TrackingID", "")) or identifier
        uid = str(item.get("TrackingUID", "")) or tracking_uid(self.series, name)
        return TrackingIdentifier(uid=uid, identifier=name)


def measurements(
    ratio: RatioFindings,
    classification: Classification | None,
    series: Series,
    makers: Makers,
    segs: Sequence[Dataset] = (),
) -> Dataset:
    """A Comprehensive 3D SR: each region's volumes, ratio and mean HU, the lesions, the class probabilities.

    ``segs`` are the Segmentation objects of the run: a region with a segment of its own, of the volume that was
    measured, becomes a volumetric group that refers to it, any other a group without an outline (``unlike_segments``
    tells which). Each number names the bundle that it comes from: the lungs' volume and HU the lung mask's, lesion
    volumes the lesion mask's, their ratio both, probabilities the classifier. Volumes are in ``cm3`` (1 cm3 is 1 ml).
    A group names a finding only of what was found: nothing marked gives a lesion group with volume 0 and without one,
    and probabilities are none at any value. Ratio, lesion volume in a region, lesion count and probabilities have
    private codes (scheme 99CARINA), there being none in the standard. Warnings, why there is no probability, and what
    probabilities can't tell are comments at the end.
    """
    report = _Report(series=series, makers=makers, segments=_segments(ratio, series, segs)[0])
    groups = [_region(region, report) for region in ratio.regions]
    groups.append(_lesions(ratio, report))
    probabilities = list(in_class_order(classification.probabilities).items()) if classification else []
    limits = classification.limits if classification else ()
    if probabilities:
        groups.append(_classes(probabilities, report))
    producer = makers.everything
    content = MeasurementReport(
        observation_context=_observer(producer),
        procedure_reported=codes.LN.CTChestReport,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    content[0].ContentSequence.extend(_comments((*all_warnings(ratio, classification), *limits)))
    facts = [*(str(seg.SOPInstanceUID) for seg in segs), content[0].to_json()]
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


def _comments(told: Sequence[str]) -> list[TextContentItem]:
    """A sentence each; the template of the report may be extended (PS3.16 TID 1500)."""
    contains = RelationshipTypeValues.CONTAINS
    return [TextContentItem(name=codes.DCM.Comment, value=long_text(one), relationship_type=contains) for one in told]


def unlike_segments(ratio: RatioFindings, series: Series, segs: Sequence[Dataset]) -> tuple[str, ...]:
    """A sentence for each segment whose volume is not the one that was measured; the report does not refer to it."""
    return _segments(ratio, series, segs)[1]


def _segments(ratio: RatioFindings, series: Series, segs: Sequence[Dataset]) -> tuple[Segments, tuple[str, ...]]:
    """Which object and segment number shows a structure, and what is said of those that show another volume.

    The structure follows from the segment's label.
    """
    plan = plan_volume(series)
    share = SAME_VOLUME if plan.is_even and not plan.is_sheared else ABOUT_THE_SAME_VOLUME
    measured_ml = _measured_ml(ratio, segs)
    found: Segments = {}
    said = []
    for seg in segs:
        volumes_ml = segment_volumes_ml(seg)
        for item in seg.SegmentSequence:
            number, structure = int(item.SegmentNumber), c.structure_of(str(item.SegmentLabel))
            expected_ml, own_ml = measured_ml.get(structure.value), volumes_ml[number]
            if expected_ml is None:
                continue
            if abs(own_ml - expected_ml) <= share * max(own_ml, expected_ml):
                found.setdefault(structure, (seg, number))
            else:
                said.append(
                    f"The segment '{item.SegmentLabel}' holds {own_ml:.2f} ml, measured were {expected_ml:.2f} ml: the "
                    "measurements don't refer to it. Write the Segmentation from the masks that were measured."
                )
    return found, tuple(said)


def _measured_ml(ratio: RatioFindings, segs: Sequence[Dataset]) -> dict[str, float]:
    """What was measured, by structure. Lesions of several kinds are measured together, so no segment shows all."""
    measured_ml = {region.region: region.lung_ml for region in ratio.regions}
    shown = {c.structure_of(str(item.SegmentLabel)) for seg in segs for item in seg.SegmentSequence}
    if len(shown & LESIONS) == 1:
        measured_ml |= dict.fromkeys(LESIONS, ratio.regions[0].lesion_ml)
    return measured_ml


def _region(region: RegionFindings, report: _Report) -> Any:
    makers = report.makers
    values = [
        _measure(c.VOLUME, region.lung_ml, c.ML),
        _measure(c.LESION_VOLUME, region.lesion_ml, c.ML, maker=makers.lesion),
        _measure(c.LESION_RATIO, region.ratio_percent, c.PERCENT, maker=makers.masks),
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
    finding = c.LUNG if region.lung_ml else None
    return report.group(region.region, values, concept=(finding, site), maker=makers.lung, structure=structure)


def _lesions(ratio: RatioFindings, report: _Report) -> Any:
    structure = next((structure for structure in report.segments if structure in LESIONS), c.Structure.LESION)
    whole = ratio.regions[0]
    values = [
        _measure(c.VOLUME, whole.lesion_ml, c.ML),
        _measure(c.LESION_COUNT, float(ratio.lesion_count), c.NO_UNITS),
    ]
    if whole.lesion_mean_hu is not None:
        values.append(_measure(c.ATTENUATION, whole.lesion_mean_hu, c.HOUNSFIELD, derivation=c.MEAN))
    finding = c.SEGMENT_CODES[structure].kind if whole.lesion_ml else None
    judgement = (c.WITH_FINDINGS if finding else c.WITHOUT_FINDINGS) if whole.lung_ml else None
    return report.group(
        structure.value,
        values,
        concept=(finding, FindingSite(anatomic_location=c.LUNG)),
        maker=report.makers.lesion,
        structure=structure,
        judgement=judgement,
    )


def _classes(probabilities: Sequence[tuple[str, float]], report: _Report) -> Any:
    """Without a finding, however high one is: nobody decided from which probability on a disease is found."""
    values = [_measure(c.probability_code(name), value, c.NO_UNITS) for name, value in probabilities]
    maker = report.makers.classifier or report.makers.everything
    concept = (None, FindingSite(anatomic_location=c.LUNG))
    return report.group("classification", values, concept=concept, maker=maker)


def _measure(
    name: Code, value: float, unit: Code, *, derivation: Code | None = None, maker: Producer | None = None
) -> Measurement:
    """One number; ``maker`` where it is not the one of the whole group."""
    return Measurement(
        name=name,
        value=round(float(value), 6),
        unit=unit,
        derivation=derivation,
        algorithm_id=None if maker is None else _algorithm(maker),
    )


def _algorithm(producer: Producer) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        name=producer.model_name or "unknown",
        version=producer.model_version or "unknown",
        parameters=[f"bundle_sha256={producer.bundle_sha256}", f"carina={producer.software_version}"],
        family=c.AI_FAMILY,
        manufacturer=producer.model_creator or producer.manufacturer,
    )


def _item(seg: Dataset, number: int) -> Dataset:
    """What a Segmentation says of one of its segments."""
    items: list[Dataset] = list(seg.SegmentSequence)
    return next(item for item in items if item.SegmentNumber == number)


def _segment_algorithm(seg: Dataset, number: int, producer: Producer) -> AlgorithmIdentification:
    """The algorithm that made the segment, as the segment itself names it."""
    item = _item(seg, number)
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
