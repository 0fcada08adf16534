"""A result as a new series of one object a slice: what every PACS shows, also where it knows no Segmentation.

A mask or a volume becomes derived CT images (PS3.3 A.3), a painted CT colour secondary captures (A.8.1). Geometry,
frame of reference and references to the source slices are kept in both, so that a viewer scrolls them together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from carina import RESEARCH_ONLY
from carina.dicom.codes import SEGMENTED, SOURCE_OF_PROCESSING, Structure, structure_of
from carina.dicom.geometry import distances_mm, mask_on_source, source_grid_indices, usual_distance_mm
from carina.dicom.objects import Producer, new_object, reference_to, stamp
from carina.dicom.objects_header import KEPT, LOSSY, frame_of_reference_uid
from carina.dicom.series import Instance, Series
from carina.dicom.uids import derived_uid
from carina.dicom.validity import valid_value
from carina.volume.arrays import HU, Labels
from carina.volume.grid import Triple
from carina.volume.volume import Mask, Volume

_LUNG, _LESION, _OTHER = ("lung-slices", 9401), ("lesion-slices", 9402), ("mask-slices", 9403)

MASK_SERIES = {
    Structure.LUNGS: _LUNG,
    Structure.LEFT_LUNG: _LUNG,
    Structure.RIGHT_LUNG: _LUNG,
    Structure.LESION: _LESION,
    Structure.GROUND_GLASS: _LESION,
    Structure.CONSOLIDATION: _LESION,
    Structure.OTHER: _OTHER,
}
"""Stem of the files' names and series number of a mask, by what it shows."""

VOLUME_SERIES_NUMBER = 9404
COLOUR_SERIES_NUMBER = 9501

LUNG_WINDOW = (-600, 1500)
"""Centre and width in HU."""

SIDES_OF_PLANE = ("LR", "PA", "HF")
"""Where x, y and z grow to, and the opposite."""

SAME_SLICE = 0.1
"""A source slice that lies within this part of the distance is the new slice's own."""

DESCRIPTION_LENGTH = 1024
"""Of a text with the VR ST."""

Colours = npt.NDArray[np.uint8]
"""A picture, ``(rows, columns, 3)``: red, green, blue."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceSeries(Mapping[str, Dataset]):
    """The objects of one new series by file name, in slice order; each is made when it is asked for, none is kept."""

    stem: str
    uid: str
    count: int
    make: Callable[[int], Dataset]

    def __getitem__(self, name: str) -> Dataset:
        stem, _, number = name.rpartition("-")
        if stem != self.stem or not number.isdecimal() or not 1 <= int(number) <= self.count:
            raise KeyError(name)
        return self.make(int(number) - 1)

    def __iter__(self) -> Iterator[str]:
        return (f"{self.stem}-{k + 1:04d}" for k in range(self.count))

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True, kw_only=True)
class _Slot:
    """Where a new slice lies (centre of its first pixel, LPS), and the source slices that it was made from."""

    position_mm: Triple
    sources: tuple[Instance, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Kind:
    """What the slices of one new series have in common; ``spacing_mm`` is (slice, row, column)."""

    uid: str
    number: int
    description: str
    derivation: str
    code: Code | None
    slots: Sequence[_Slot]
    spacing_mm: Triple
    told: tuple[str, ...] = ()


def mask_slices(mask: Mask, series: Series, producer: Producer) -> SliceSeries:
    """A mask as CT images on the source's own slices; the stored values are its labels, 0 where there is none.

    Raises:
        ModelFailed: the mask's grid is not parallel to the source slices.
    """
    labels = mask_on_source(mask, series)
    names = ", ".join(f"{value} {mask.names[value]}" for value in sorted(mask.names))
    stem, number = MASK_SERIES[structure_of(next(iter(mask.names.values()), ""))]
    kind = _Kind(
        uid=producer.uid(series, "mask series", names, _digest(labels), *mask.told),
        number=number,
        description=f"{', '.join(mask.names.values())} mask",
        derivation=f"Labels by {_made_by(producer)}: 0 none, {names}.",
        code=SEGMENTED,
        slots=[_Slot(position_mm=one.position_mm, sources=(one,)) for one in series.instances],
        spacing_mm=(_slice_step_mm(series), *series.pixel_spacing_mm),
        told=mask.told,
    )
    window = max(mask.names, default=1)

    def make(k: int) -> Dataset:
        dataset = _ct_image(kind, k, series, producer)
        _scale(dataset, unit="US", centre=window / 2, width=window)
        _grey(dataset, labels[k].astype(np.uint16))
        stamp(dataset, producer, kind.description, kind.told)
        return dataset

    return SliceSeries(stem=stem, uid=kind.uid, count=len(labels), make=make)


def volume_slices(volume: Volume, series: Series, producer: Producer) -> SliceSeries:
    """A volume as CT images in HU, on its own slices: where they were resampled, each refers to its neighbours.

    Raises:
        ModelFailed: the volume's grid is not parallel to the source slices.
    """
    kind = _Kind(
        uid=producer.uid(series, "volume series", _digest(volume.hu), repr(volume.grid), *volume.warnings),
        number=VOLUME_SERIES_NUMBER,
        description="CT as it was analysed",
        derivation=f"HU as {_made_by(producer)} read them{''.join(f'; {one}' for one in volume.warnings)}",
        code=None,
        slots=_slots(volume, series),
        spacing_mm=volume.grid.spacing_mm,
    )

    def make(k: int) -> Dataset:
        dataset = _ct_image(kind, k, series, producer)
        _scale(dataset, unit="HU", centre=LUNG_WINDOW[0], width=LUNG_WINDOW[1])
        _grey(dataset, volume.hu[k])
        stamp(dataset, producer, kind.description, kind.told)
        return dataset

    return SliceSeries(stem="volume", uid=kind.uid, count=len(volume.hu), make=make)


def colour_slices(
    picture: Callable[[int], Colours],
    series: Series,
    producer: Producer,
    *,
    description: str,
    digest: str,
    told: tuple[str, ...] = (),
) -> SliceSeries:
    """The source's slices in colour, as ``picture`` paints them: ``(rows, columns, 3)``, no pixel moved.

    ``picture`` burns the research notice in; ``digest`` stands for what is painted on, so that a repeated run gives the
    same UIDs; ``told`` are sentences for each image's comments. One object a slice (Secondary Capture), since a
    multi-frame one is shown as a film by many PACS, and plane and frame of reference in each, although the class asks
    for neither, since viewers read them wherever they stand.
    """
    kind = _Kind(
        uid=producer.uid(series, "colour series", description, digest, *told),
        number=COLOUR_SERIES_NUMBER,
        description=description,
        derivation=f"Painted on the CT by {_made_by(producer)}",
        code=SEGMENTED,
        slots=[_Slot(position_mm=one.position_mm, sources=(one,)) for one in series.instances],
        spacing_mm=(_slice_step_mm(series), *series.pixel_spacing_mm),
        told=told,
    )
    make = partial(_colour_image, picture, kind, series, producer)
    return SliceSeries(stem="overlay", uid=kind.uid, count=len(series.instances), make=make)


def _colour_image(
    picture: Callable[[int], Colours], kind: _Kind, series: Series, producer: Producer, k: int
) -> Dataset:
    dataset = new_object(series, producer, sop_class_uid=SecondaryCaptureImageStorage, modality="CT")
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.ConversionType = "WSD"
    dataset.PatientOrientation = [_side(series.slice_axes[2]), _side(series.slice_axes[1])]
    _describe(dataset, kind, k, series)
    colours = picture(k)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.Rows, dataset.Columns = colours.shape[:2]
    data = colours.tobytes()
    dataset.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))
    stamp(dataset, producer, kind.description, kind.told)
    return dataset


def _ct_image(kind: _Kind, k: int, series: Series, producer: Producer) -> Dataset:
    """A derived CT image (PS3.3 A.3) without pixels."""
    dataset = new_object(series, producer, sop_class_uid=CTImageStorage, modality="CT")
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    dataset.KVP, dataset.AcquisitionNumber, dataset.PatientPosition = None, None, ""
    _keep(dataset, series, KEPT)
    _describe(dataset, kind, k, series)
    return dataset


def _describe(dataset: Dataset, kind: _Kind, k: int, series: Series) -> None:
    """Identity, place, and what the slice was made from and how."""
    dataset.SeriesInstanceUID = kind.uid
    dataset.SeriesNumber = kind.number
    dataset.SOPInstanceUID = derived_uid("slice", kind.uid, str(k))
    dataset.InstanceNumber = k + 1
    dataset.BodyPartExamined = "CHEST"  # what was analysed, whatever the source calls it: an unpaired defined term
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    if valid_value(series.header, "LossyImageCompression") == "01":  # once lossy, always lossy (PS3.3 C.7.6.1.1.5)
        _keep(dataset, series, LOSSY)
    dataset.DerivationDescription = f"{kind.derivation}. {RESEARCH_ONLY}"[:DESCRIPTION_LENGTH]
    if kind.code:
        dataset.DerivationCodeSequence = [code_item(kind.code)]
    _place(dataset, kind, k, series)
    _refer(dataset, kind.slots[k].sources, series)


def _keep(dataset: Dataset, series: Series, keywords: Sequence[str]) -> None:
    """Copy attributes of the source, those whose values are valid."""
    for keyword in keywords:
        value = valid_value(series.header, keyword)
        if value is not None:
            setattr(dataset, keyword, value)


def _place(dataset: Dataset, kind: _Kind, k: int, series: Series) -> None:
    """The image plane (PS3.3 C.7.6.2) in the source's frame of reference."""
    position_mm = kind.slots[k].position_mm
    right, down = series.slice_axes[2], series.slice_axes[1]
    dataset.FrameOfReferenceUID = frame_of_reference_uid(series)
    dataset.PositionReferenceIndicator = ""
    thickness, row, column = _texts(kind.spacing_mm)
    dataset.PixelSpacing = [row, column]
    dataset.SliceThickness = dataset.SpacingBetweenSlices = thickness
    dataset.ImageOrientationPatient = _texts((*right, *down))
    dataset.ImagePositionPatient = _texts(position_mm)
    (dataset.SliceLocation,) = _texts(distances_mm([position_mm], series.slice_axes).tolist())


def _texts(values: Iterable[float]) -> list[str]:
    """Numbers as decimal strings; no negative zero."""
    return [format_number_as_ds(value + 0.0) for value in values]


def _refer(dataset: Dataset, sources: Sequence[Instance], series: Series) -> None:
    """Name the slices that a new one was made from, once with their purpose and once by their series."""
    dataset.SourceImageSequence = [reference_to(one) for one in sources]
    for item in dataset.SourceImageSequence:
        item.PurposeOfReferenceCodeSequence = [code_item(SOURCE_OF_PROCESSING)]
    group = Dataset()
    group.SeriesInstanceUID = series.uid
    group.ReferencedInstanceSequence = [reference_to(one) for one in sources]
    dataset.ReferencedSeriesSequence = [group]


def _scale(dataset: Dataset, *, unit: str, centre: float, width: float) -> None:
    """Stored values are the values themselves: HU, or labels, which have no unit (PS3.3 C.11.1.1.2)."""
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, unit
    dataset.WindowCenter, dataset.WindowWidth = _texts((centre, width))


def _side(direction: Triple) -> str:
    """The letter of the patient's side that a direction points to (PS3.3 C.7.6.1.1.1)."""
    axis = max(range(3), key=lambda one: abs(direction[one]))
    return SIDES_OF_PLANE[axis][direction[axis] < 0]


def _grey(dataset: Dataset, plane: npt.NDArray[np.uint16] | HU) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(plane.dtype.kind == "i")
    dataset.Rows, dataset.Columns = plane.shape
    dataset.add_new("PixelData", "OW", plane.astype(plane.dtype.newbyteorder("<"), copy=False).tobytes())


def _slots(volume: Volume, series: Series) -> list[_Slot]:
    """Where a volume's slices lie, each with the source slices closer to it than its neighbour is."""
    along = source_grid_indices(series, volume.grid)[:, 0]
    slots = []
    for k in range(volume.grid.shape[0]):
        x, y, z = (float(value) for value in volume.grid.points_mm((k, 0, 0)))
        near = np.abs(along - k)
        chosen = np.flatnonzero(near < SAME_SLICE) if near.min() < SAME_SLICE else np.flatnonzero(near < 1.0)
        slots.append(_Slot(position_mm=(x, y, z), sources=tuple(series.instances[one] for one in chosen)))
    return slots


def _slice_step_mm(series: Series) -> float:
    """The usual distance of neighbouring source slices, 1 mm for one alone."""
    positions = [one.position_mm for one in series.instances]
    return usual_distance_mm(distances_mm(positions, series.slice_axes)) or 1.0


def _made_by(producer: Producer) -> str:
    model = f"{producer.model_name} {producer.model_version} (bundle sha256 {producer.bundle_sha256[:16] or 'none'})"
    return f"{model}, Carina {producer.software_version}"


def code_item(code: Code) -> Dataset:
    """The item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _digest(voxels: Labels | HU) -> str:
    """A hash of voxels, slice by slice."""
    found = hashlib.sha256()
    for plane in voxels:
        found.update(np.ascontiguousarray(plane).data)
    return found.hexdigest()
