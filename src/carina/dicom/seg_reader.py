"""A mask that a reader corrected, as a DICOM Segmentation with the reader as its maker."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydicom import Dataset

from carina.dicom.codes import MODIFYING
from carina.dicom.instances import code_item
from carina.dicom.objects import Producer, long_string
from carina.dicom.seg import segmentation
from carina.dicom.seg_check import check_geometry
from carina.dicom.series import Series
from carina.volume.volume import Mask

AFTER_CORRECTION = 10
"""What the series number of a corrected mask lies above that of a network's."""

_NOT_IN_A_NAME = re.compile(r"[\\=\x00-\x1f\x7f]+")
_FAMILY_FIRST = re.compile(r"\s*[,^]\s*")
_LONGEST_PN = 64
_MOST_PARTS = 5


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """The Segmentation that a correction takes the place of."""

    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str


@dataclass(frozen=True, kw_only=True)
class Correction:
    """Who corrected what: ``reader`` finished it, ``painters`` are those whose strokes are in it.

    ``is_from_network`` says that something of the network's mask is still in it: the segments are then
    ``SEMIAUTOMATIC`` and keep the network's name, else ``MANUAL``.
    """

    reader: str
    painters: tuple[str, ...] = ()
    earlier: Earlier | None
    is_from_network: bool


def reader_segmentation(
    mask: Mask, series: Series, producer: Producer, correction: Correction, texts: list[str] | None = None
) -> Dataset:
    """The corrected mask on the source's slices, its geometry read back and compared; for research use only.

    ``producer`` is the network whose mask was corrected. The object has UIDs of its own, which depend on mask, reader
    painters and what it replaces; that object stands in Referenced Series Sequence beside the source, and in Derivation
    Description. Raises as ``segmentation`` and ``check_geometry``.
    """
    earlier = correction.earlier
    people = "\n".join((correction.reader, *correction.painters))
    kept = "in part" if correction.is_from_network else "anew"
    facts = f"{producer.settings} corrected {kept} by {people} from {earlier.sop_instance_uid if earlier else ''}"
    dataset = segmentation(mask, series, replace(producer, settings=facts), texts)
    dataset.ContentCreatorName = person_name(correction.reader)
    dataset.SeriesNumber = int(dataset.SeriesNumber) + AFTER_CORRECTION
    named = ", ".join(str(item.SegmentLabel) for item in dataset.SegmentSequence)
    dataset.ContentDescription = long_string(f"{named} corrected by a reader")
    dataset.SeriesDescription = long_string(f"RESEARCH ONLY - {named} corrected")
    for item in dataset.SegmentSequence:
        if correction.is_from_network:
            item.SegmentAlgorithmType = "SEMIAUTOMATIC"
        else:
            item.SegmentAlgorithmType = "MANUAL"
            del item.SegmentAlgorithmName
            del item.SegmentationAlgorithmIdentificationSequence
    if earlier is not None:
        _refer(dataset, earlier)
    if correction.painters:
        dataset.ContributingEquipmentSequence = [_painted(producer, correction.painters)]
    check_geometry(dataset, mask, series)
    return dataset


def _painted(producer: Producer, painters: Sequence[str]) -> Dataset:
    """Who painted, as the operators of what modified the mask (PS3.3 C.12.1): Content Creator's Name holds one person.

    Names that are the same as a value of PN stand once.
    """
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item(MODIFYING)]
    item.Manufacturer = producer.manufacturer
    item.OperatorsName = list(dict.fromkeys(map(person_name, painters)))
    item.ContributionDescription = "Strokes of the corrected mask"
    return item


def earlier_of(dataset: Dataset) -> Earlier:
    """What a correction of an object refers to."""
    return Earlier(
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_uid=str(dataset.SeriesInstanceUID),
    )


def _refer(dataset: Dataset, earlier: Earlier) -> None:
    dataset.DerivationDescription = f"Corrected by a reader; replaces {earlier.sop_instance_uid}"
    instance = Dataset()
    instance.ReferencedSOPClassUID = earlier.sop_class_uid
    instance.ReferencedSOPInstanceUID = earlier.sop_instance_uid
    series = Dataset()
    series.SeriesInstanceUID = earlier.series_uid
    series.ReferencedInstanceSequence = [instance]
    dataset.ReferencedSeriesSequence.append(series)


def person_name(reader: str) -> str:
    """A name as people write it as a value of PN (PS3.5 6.2).

    ``Family, Given`` and ``Family^Given`` are taken at their word, of at most five components; in any other name the
    last word is the family name.
    """
    name = " ".join(_NOT_IN_A_NAME.sub(" ", reader).split()).strip(" ,^")
    parts = [part for part in _FAMILY_FIRST.split(name) if part][:_MOST_PARTS]
    if len(parts) > 1:
        return "^".join(parts)[:_LONGEST_PN]
    *given, family = name.split() or ["unknown"]
    return f"{family}^{' '.join(given)}"[:_LONGEST_PN]
