"""A series that was corrected and sent again under its own UIDs: what is made of it anew are other objects."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from carina.dicom.find import find_series, handed_source
from carina.dicom.geometry import plan_volume
from carina.dicom.instances import Colours, colour_slices, mask_slices, volume_slices
from carina.dicom.pdf import encapsulated_pdf
from carina.dicom.seg import segmentation
from carina.dicom.seg_reader import Correction, reader_segmentation
from carina.dicom.series import Series
from carina.dicom.sr import measurements
from carina.testing.dicom import write_ct_series
from carina.volume import Grid, Mask, Volume
from dicom_objects_samples import CLASSIFIER, MAKERS, PRODUCER, SHAPE, make_mask, make_ratio, make_series

LATER = datetime(2027, 6, 7, 8, 9, 10)
NOBODY_EARLIER = Correction(reader="Roe", earlier=None, is_from_network=True)

Made = tuple[Dataset, ...]


def mask_of(series: Series, *, empty: bool = False) -> Mask:
    return replace(make_mask(series, empty=empty), grid=plan_volume(series).grid)


def at(series: Series, when: datetime) -> Made:
    """A Segmentation and the measurements that refer to it."""
    producer = replace(PRODUCER, when=when)
    seg = segmentation(mask_of(series), series, producer)
    makers = replace(MAKERS, lung=producer, classifier=replace(CLASSIFIER, when=when))
    return seg, measurements(make_ratio(10.0), None, series, makers, [seg])


def volume_of(series: Series) -> Volume:
    return Volume(hu=np.zeros(SHAPE, np.int16), grid=mask_of(series).grid, uid=series.uid)


def black(k: int) -> Colours:
    return np.zeros((*SHAPE[1:], 3), np.uint8)


def pdf_of(series: Series, when: datetime) -> Dataset:
    return encapsulated_pdf(b"%PDF-", series, replace(PRODUCER, when=when), "Change since earlier scans", digest="d")


OBJECTS: dict[str, Callable[[Series, datetime], Made]] = {
    "Segmentation": lambda one, when: at(one, when)[:1],
    "label map": lambda one, when: (segmentation(mask_of(one), one, replace(PRODUCER, when=when), kind="LABELMAP"),),
    "nothing found": lambda one, when: (segmentation(mask_of(one, empty=True), one, replace(PRODUCER, when=when)),),
    "correction": lambda one, when: (
        reader_segmentation(mask_of(one), one, replace(PRODUCER, when=when), NOBODY_EARLIER),
    ),
    "slices of a mask": lambda one, when: tuple(mask_slices(mask_of(one), one, replace(PRODUCER, when=when)).values()),
    "slices of a volume": lambda one, when: tuple(
        volume_slices(volume_of(one), one, replace(PRODUCER, when=when)).values()
    ),
    "colour series": lambda one, when: tuple(
        colour_slices(black, one, replace(PRODUCER, when=when), description="CT", digest="d").values()
    ),
    "report": lambda one, when: (pdf_of(one, when),),
    "measurements": lambda one, when: at(one, when)[1:],
}

SERIES = make_series()


def moved(series: Series, *by_mm: float, slices: slice = slice(None)) -> Series:
    places = list(series.instances)
    places[slices] = [
        replace(one, position_mm=tuple(np.add(one.position_mm, by_mm).tolist())) for one in places[slices]
    ]
    return replace(series, instances=tuple(places))


def turned(series: Series, degrees: float) -> Series:
    """About the patient's long axis, each slice where it was."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return replace(series, slice_axes=((0.0, 0.0, 1.0), (-sine, cosine, 0.0), (cosine, sine, 0.0)))


def stretched(series: Series, step_mm: float) -> Series:
    x, y, z = series.instances[0].position_mm
    places = tuple(replace(one, position_mm=(x, y, z + k * step_mm)) for k, one in enumerate(series.instances))
    return replace(series, instances=places)


def acquired(series: Series, keyword: str, value: object) -> Series:
    header = copy.deepcopy(series.header)
    setattr(header, keyword, value)
    return replace(series, header=header)


CORRECTED: dict[str, Series] = {
    "another frame of reference": replace(SERIES, frame_of_reference_uid="1.2.3.6"),
    "no frame of reference": replace(SERIES, frame_of_reference_uid=""),
    "100 mm to the left": moved(SERIES, 100.0, 0.0, 0.0),
    "100 mm to the back": moved(SERIES, 0.0, 100.0, 0.0),
    "100 mm upwards": moved(SERIES, 0.0, 0.0, 100.0),
    "a hundredth of a mm": moved(SERIES, 0.0, 0.0, 0.01),
    "one slice of the middle": moved(SERIES, 0.0, 0.0, 0.01, slices=slice(6, 7)),
    "turned": turned(SERIES, 5.0),
    "hardly turned": turned(SERIES, 1e-4),
    "rows and columns the other way": make_series(flipped=True),
    "another distance of slices": stretched(SERIES, 2.6),
    "another distance of rows": replace(SERIES, pixel_spacing_mm=(0.76, 0.7)),
    "another distance of columns": replace(SERIES, pixel_spacing_mm=(0.75, 0.71)),
    "another voltage": acquired(SERIES, "KVP", "100"),
    "another kernel": acquired(SERIES, "ConvolutionKernel", "B70f"),
    "the patient the other way": acquired(SERIES, "PatientPosition", "FFS"),
    "once lossy": acquired(SERIES, "LossyImageCompression", "01"),
}


def uids(made: Made) -> list[str]:
    return [str(dataset[keyword].value) for dataset in made for keyword in ("SOPInstanceUID", "SeriesInstanceUID")]


@pytest.mark.parametrize("kind", OBJECTS)
def test_what_was_corrected_and_sent_again_gives_other_objects(kind: str) -> None:
    seen = dict.fromkeys(uids(OBJECTS[kind](SERIES, LATER)), "as it was")
    for name, series in CORRECTED.items():
        made = dict.fromkeys(uids(OBJECTS[kind](series, LATER)), name)
        assert not made.keys() & seen.keys(), f"{name}: has UIDs of {seen[next(iter(made.keys() & seen.keys()))]}"
        seen |= made


@pytest.mark.parametrize("kind", OBJECTS)
def test_what_is_sent_again_as_it_was_gives_the_same_objects(kind: str) -> None:
    again = replace(moved(SERIES, -0.0, 0.0, 0.0), header=copy.deepcopy(SERIES.header))
    elsewhere = replace(again, instances=tuple(replace(one, path=Path("/else") / one.path) for one in again.instances))
    assert uids(OBJECTS[kind](elsewhere, LATER)) == uids(OBJECTS[kind](SERIES, PRODUCER.when))


@pytest.mark.parametrize("other", [replace(SERIES, rows=64), replace(SERIES, columns=64)], ids=["rows", "columns"])
def test_another_matrix_gives_other_uids(other: Series) -> None:
    assert PRODUCER.uid(other, "seg") != PRODUCER.uid(SERIES, "seg")


def test_frames_of_one_object_that_lie_elsewhere_give_other_uids() -> None:
    whole = make_series(frames=True)
    assert PRODUCER.uid(moved(whole, 0.0, 0.0, 100.0), "seg") != PRODUCER.uid(whole, "seg")


def test_zeros_of_either_sign_and_the_last_bits_of_what_is_computed_are_no_correction() -> None:
    noise = np.nextafter(1.0, 0.0).item()
    axes = ((0.0, -0.0, noise), (0.0, noise, -1e-17), (1.0, 0.0, -0.0))
    assert PRODUCER.uid(replace(SERIES, slice_axes=axes), "seg") == PRODUCER.uid(SERIES, "seg")


def test_segments_and_measurements_stay_tracked_as_the_same_things_when_the_source_was_corrected() -> None:
    def tracked(series: Series) -> tuple[list[str], list[str]]:
        seg, report = at(series, LATER)
        said = [str(item.UID) for item in items(report) if "UID" in item]
        return [str(item.TrackingUID) for item in seg.SegmentSequence], said

    segments, groups = tracked(SERIES)
    assert set(segments) <= set(groups)
    for name in ("another frame of reference", "100 mm upwards", "turned"):
        assert tracked(CORRECTED[name]) == (segments, groups), name


def items(dataset: Dataset) -> list[Dataset]:
    own = list(dataset.get("ContentSequence", []))
    return own + [deeper for one in own for deeper in items(one)]


def test_a_report_refers_to_the_segmentation_of_the_corrected_source() -> None:
    seg, report = at(CORRECTED["another frame of reference"], LATER)
    assert str(seg.SOPInstanceUID) in str(report)


def from_files(folder: Path, change: Callable[[Dataset], None]) -> Series:
    grid = Grid(
        shape=(6, 64, 64), spacing_mm=(5.0, 1.0, 1.0), origin_mm=(-16.0, -16.0, 0.0), axes=mask_of(SERIES).grid.axes
    )
    volume = Volume(hu=np.full(grid.shape, -900, np.int16), grid=grid, uid="1.2.3.9")
    for file in write_ct_series(volume, folder):
        dataset = dcmread(file)
        change(dataset)
        dataset.save_as(file)
    found = handed_source(find_series(folder))
    assert isinstance(found, Series)
    return found


def nothing(dataset: Dataset) -> None:
    pass


def upwards(dataset: Dataset) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, z + 100]


def another_frame(dataset: Dataset) -> None:
    dataset.FrameOfReferenceUID = "1.2.3.4.5.6"


def swapped(dataset: Dataset) -> None:
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 0.8, 0.6]


def wider(dataset: Dataset) -> None:
    dataset.PixelSpacing = [1.1, 1.1]


def in_other_words(dataset: Dataset) -> None:
    x, y, z = (float(value) for value in dataset.ImagePositionPatient)
    dataset.ImagePositionPatient = [f"{x:.3f}", f"{y:.3f}", f"{z:.3f}"]


@pytest.mark.parametrize("change", [upwards, another_frame, swapped, wider, in_other_words, nothing])
def test_uids_follow_from_the_files_of_a_series(change: Callable[[Dataset], None], tmp_path: Path) -> None:
    first, again = from_files(tmp_path / "a", nothing), from_files(tmp_path / "b", change)
    assert [one.sop_instance_uid for one in first.instances] == [one.sop_instance_uid for one in again.instances]
    is_same = PRODUCER.uid(first, "seg") == PRODUCER.uid(again, "seg")
    assert is_same is (change in (nothing, in_other_words))
