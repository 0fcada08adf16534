"""What every object we write has in common: who made it, whose study it joins, what it refers to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from carina import RESEARCH_ONLY
from carina.dicom.objects_header import patient_and_study, said_of
from carina.dicom.series import Instance, Series
from carina.dicom.uids import derived_uid

IMPLEMENTATION_CLASS_UID = UID(derived_uid("implementation", "carina"))

SHORT_NOTICE = "RESEARCH ONLY"

STAMP = "carina "
"""How the Software Versions of every object begin that we write; before Carina's version."""

LO_LENGTH, LT_LENGTH = 64, 10_240


@dataclass(frozen=True, kw_only=True)
class Producer:
    """Who made an object, from what.

    ``bundle_sha256`` is the bundle's hash (several, joined by a space, for an object made from several).
    ``software_version`` is Carina's. ``when`` is the time of the run, the node's local clock. ``settings`` names
    anything else that changes the result (precision, plan): it enters the UIDs.
    """

    model_creator: str
    model_name: str
    model_version: str
    bundle_sha256: str
    software_version: str
    when: datetime
    manufacturer: str = "Carina"
    settings: str = ""

    def uid(self, series: Series, *kind: str) -> str:
        """The UID of what this producer makes of this series; the same facts always give the same one.

        Patient, study and geometry are among them: of a study that was corrected and sent again the results are other
        objects.
        """
        return derived_uid(*kind, *self._facts(), *_identity(series), *said_of(series))

    def _facts(self) -> tuple[str, ...]:
        return tuple(getattr(self, one.name) for one in fields(self) if one.name != "when")


def joined(producers: Sequence[Producer]) -> Producer:
    """One producer for an object that several bundles made; each is named once."""
    own = list(dict.fromkeys(producers))
    return replace(
        own[0],
        model_name=" + ".join(one.model_name for one in own),
        model_version=" + ".join(one.model_version for one in own),
        bundle_sha256=" ".join(one.bundle_sha256 for one in own),
    )


def _identity(series: Series) -> tuple[str, ...]:
    """What tells a series from any other: its UID, and those of its instances with their frames."""
    parts = ((one.sop_instance_uid, str(one.frame or "")) for one in series.instances)
    return series.uid, *(part for pair in parts for part in pair)


def tracking_uid(series: Series, name: str) -> str:
    """The Tracking UID of what is called ``name`` in a series: the same in every object, whoever made it.

    A correction of the source changes none: it is tracked as the same thing.
    """
    return derived_uid("tracking", name, *_identity(series))


def new_object(series: Series, producer: Producer, *, sop_class_uid: str, modality: str) -> Dataset:
    """An object without content in the series' study: patient, study, equipment and dates, ready to be filled."""
    dataset = patient_and_study(series)
    dataset.SOPClassUID = sop_class_uid
    dataset.Modality = modality
    dataset.Manufacturer = long_string(producer.manufacturer)
    return dataset


def stamp(dataset: Dataset, producer: Producer, description: str, told: Sequence[str] = ()) -> None:
    """Say on an object what it is, who made it when, and that it is for research only. Changes it in place.

    ``description`` becomes Series Description behind the short notice; times are those of ``producer.when``. ``told``
    are sentences that an image's comments say behind the notice.
    """
    day, time = producer.when.strftime("%Y%m%d"), producer.when.strftime("%H%M%S")
    dataset.InstanceCreationDate = dataset.ContentDate = dataset.SeriesDate = day
    dataset.InstanceCreationTime = dataset.ContentTime = dataset.SeriesTime = time
    dataset.SeriesDescription = long_string(f"{SHORT_NOTICE} - {description}")
    dataset.Manufacturer = long_string(producer.manufacturer)
    dataset.ManufacturerModelName = long_string(producer.model_name) or "unknown"
    dataset.DeviceSerialNumber = long_string(producer.bundle_sha256.split(" ")[0] or "none")
    dataset.SoftwareVersions = [
        long_string(f"{STAMP}{producer.software_version}"),
        long_string(f"{producer.model_name} {producer.model_version}"),
    ]
    dataset.ContentQualification = "RESEARCH"
    if "PixelData" in dataset:
        dataset.ImageComments = long_text(" ".join((RESEARCH_ONLY, *told)))
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = f"CARINA {producer.software_version}"[:16]
    dataset.file_meta = meta


def is_stamped(software_versions: str) -> bool:
    """Whether an object's Software Versions, joined by backslashes, say that Carina made it."""
    return software_versions.startswith(STAMP)


def references(series: Series) -> list[Dataset]:
    """One reference for each source object, in slice order; a multi-frame object once."""
    items: dict[str, Dataset] = {}
    for instance in series.instances:
        if instance.sop_instance_uid not in items:
            items[instance.sop_instance_uid] = reference_to(instance, with_frame=False)
    return list(items.values())


def reference_to(instance: Instance, *, with_frame: bool = True) -> Dataset:
    """A reference to one source slice (PS3.3 table 10-11), with its frame number in a multi-frame object."""
    item = Dataset()
    item.ReferencedSOPClassUID = instance.sop_class_uid
    item.ReferencedSOPInstanceUID = instance.sop_instance_uid
    if with_frame and instance.frame is not None:
        item.ReferencedFrameNumber = instance.frame
    return item


def long_string(text: str) -> str:
    """The text as a value of LO allows it: 64 characters, no backslash, no control characters."""
    return "".join(c if c.isprintable() and c != "\\" else " " for c in text)[:LO_LENGTH].strip()


def long_text(text: str) -> str:
    """The text as a value of LT allows it: 10,240 characters, none that can't be written or doesn't print."""
    return "".join(c if c.isprintable() else " " for c in text)[:LT_LENGTH].strip()


def save_object(dataset: Dataset, path: Path) -> Path:
    """Write an object as a DICOM file; a half-written one never carries the name."""
    partial = path.with_name(path.name + ".partial")
    try:
        dataset.save_as(partial, enforce_file_format=True)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
