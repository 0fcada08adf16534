"""Several things under one Series Instance UID: each becomes a volume of its own, none is dropped or mixed in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import cos, sin
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.dicom.acquisitions import acquisitions
from carina.dicom.assemble import _by_plane, _same_plane
from carina.dicom.find import choose_source, find_series
from carina.dicom.headers import APART, SliceHeader
from carina.dicom.read import read_source
from carina.dicom.series import Series
from carina.errors import BadSeries
from reading_slices import ANY, EVEN, SERIES_UID, assert_linear, ct_slice, refusal, save, write_series

AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
BETWEEN = [height + 1.25 for height in EVEN]
"""Heights halfway between those of ``EVEN``."""


def parts_of(folder: Path) -> dict[str, int]:
    """The names of the parts that were found and their slices; each is read and right."""
    found = find_series(folder, ANY)
    names = [(one.uid, one.part) for one in found]
    assert len(set(names)) == len(names)
    assert sum(len(one.files) for one in found) == found.inventory.files
    for one in found:
        assert one.source is not None, one.reason
        assert_linear(read_source(one.source), within_hu=1.51)
    return {one.part: one.slices for one in found}


@pytest.mark.parametrize("heights", [EVEN, BETWEEN, EVEN[:8], BETWEEN[3:]])
@pytest.mark.parametrize(
    ("keyword", "values"),
    [("AcquisitionNumber", (1, 2)), ("ConvolutionKernel", ("B30f", "B70f")), ("TemporalPositionIdentifier", (1, 2))],
)
def test_acquisitions_at_the_same_places_or_between_each_other(
    tmp_path: Path, heights: list[float], keyword: str, values: tuple[Any, Any]
) -> None:
    changes: dict[str, Any] = {keyword: values[1], "SOPInstanceUID": ""}
    write_series(tmp_path / "a", EVEN, **{keyword: values[0]})
    write_series(tmp_path / "b", heights, **changes)
    assert parts_of(tmp_path) == {f"{keyword} {values[0]}": 12, f"{keyword} {values[1]}": len(heights)}


def test_two_acquisitions_with_two_kernels_each(tmp_path: Path) -> None:
    for number in (1, 2):
        for kernel in ("B30f", "B70f"):
            changes: dict[str, Any] = {"AcquisitionNumber": number, "ConvolutionKernel": kernel, "SOPInstanceUID": ""}
            write_series(tmp_path / f"{number}{kernel}", EVEN, **changes)
    assert parts_of(tmp_path) == {
        f"AcquisitionNumber {number}, ConvolutionKernel {kernel}": 12
        for number in (1, 2)
        for kernel in ("B30f", "B70f")
    }


def test_acquisitions_that_only_their_times_tell_apart(tmp_path: Path) -> None:
    for number, time in enumerate(("120000", "120500")):
        for k, height in enumerate(EVEN):
            changes: dict[str, Any] = {
                "AcquisitionDate": "20200101",
                "AcquisitionTime": f"{int(time) + k}",
                "InstanceNumber": None,
            }
            slice_ = ct_slice((-20.0, -10.0, 100.0 + height), 50 * number + k, **changes)
            save(_changed(slice_, number), tmp_path / f"{number}-{k}")
    assert parts_of(tmp_path) == {"pass 1 of 2": 12, "pass 2 of 2": 12}


def test_acquisitions_that_only_their_instance_numbers_tell_apart(tmp_path: Path) -> None:
    for number in (0, 1):
        for k, height in enumerate(EVEN):
            slice_ = ct_slice((-20.0, -10.0, 100.0 + height), 100 * number + k + 1)
            save(_changed(slice_, number), tmp_path / f"{number}-{k}")
    assert parts_of(tmp_path) == {"instances from 1 on": 12, "instances from 101 on": 12}


def _changed(dataset: Any, value: int) -> Any:
    """The slice with a last pixel of its own, so that it is no copy."""
    data = bytearray(dataset.PixelData)
    data[-2] ^= value
    dataset.PixelData = bytes(data)
    return dataset


def test_acquisitions_in_different_frames_of_reference(tmp_path: Path) -> None:
    for frame in ("2.25.71", "2.25.72"):
        for k, height in enumerate(EVEN):
            changes: dict[str, Any] = {"FrameOfReferenceUID": frame, "InstanceNumber": k, "SOPInstanceUID": ""}
            slice_ = ct_slice((-20.0, -10.0, 100.0 + height), k + 1, **changes)
            save(_changed(slice_, int(frame[-1]) - 1), tmp_path / f"{frame}-{k}")
    assert parts_of(tmp_path) == {"frame of reference 1": 12, "frame of reference 2": 12}


def test_step_and_shoot_is_one_volume(tmp_path: Path) -> None:
    for k, height in enumerate(EVEN):
        save(ct_slice((-20.0, -10.0, 100.0 + height), k + 1, AcquisitionNumber=1 + k // 4), tmp_path / f"{k}")
    assert parts_of(tmp_path) == {"": 12}


def test_a_reconstruction_that_overlaps_is_one_volume(tmp_path: Path) -> None:
    write_series(tmp_path, [1.25 * k for k in range(24)], SliceThickness=2.5)
    assert parts_of(tmp_path) == {"": 24}


def test_slices_of_one_place_over_time_make_no_volume(tmp_path: Path) -> None:
    for k in range(12):
        save(_changed(ct_slice((-20.0, -10.0, 100.0), k + 1, AcquisitionNumber=k), k), tmp_path / f"{k}")
    assert refusal(tmp_path).code == "series.duplicate"


def test_a_series_of_two_patients_is_two_whatever_their_files_are_called(tmp_path: Path) -> None:
    for folder, patients in (("one", ("A", "B")), ("other", ("B", "A"))):
        for patient in patients:
            place = tmp_path / folder / f"{patients.index(patient)}"
            write_series(place, EVEN if patient == "A" else EVEN[:8], PatientID=patient, SOPInstanceUID="")
    one, other = parts_of(tmp_path / "one"), parts_of(tmp_path / "other")
    assert one == other and sorted(one) == ["patient 1 of 2", "patient 2 of 2"]
    with pytest.raises(BadSeries, match=r"series 2\.25\.1001 is that of several patients") as caught:
        choose_source(find_series(tmp_path / "one", ANY), ANY, uid=SERIES_UID)
    assert caught.value.code == "series.ambiguous"


@pytest.mark.parametrize("slices", [[0.0], [0.0, 30.0, 32.5], [0.0, 2.5, 40.0, 41.0, 90.0]])
@pytest.mark.parametrize("uid", ["", SERIES_UID])
def test_another_patients_slices_that_are_no_volume_are_told_beside_what_is_read(
    tmp_path: Path, slices: Sequence[float], uid: str
) -> None:
    write_series(tmp_path / "a", EVEN, PatientID="A")
    write_series(tmp_path / "b", slices, PatientID="B", SOPInstanceUID="")
    source = choose_source(find_series(tmp_path, ANY), ANY, uid=uid)
    assert isinstance(source, Series) and len(source.instances) == len(EVEN)
    count = rf"12 of the {12 + len(slices)} files under its UID"
    assert re.search(rf"\(patient . of 2\) is read, {count}; there also is series .*of 2", source.warnings[-1])


def test_a_series_uid_in_two_studies_is_two_series(tmp_path: Path) -> None:
    write_series(tmp_path / "a", EVEN)
    write_series(tmp_path / "b", EVEN, StudyInstanceUID="2.25.3")
    assert parts_of(tmp_path) == {"study 1 of 2": 12, "study 2 of 2": 12}


def test_an_anonymiser_that_names_each_slice_anew_parts_nothing(tmp_path: Path) -> None:
    for k, height in enumerate(EVEN):
        save(ct_slice((-20.0, -10.0, 100.0 + height), k + 1, PatientID=f"ANON{k}"), tmp_path / f"{k}")
    assert parts_of(tmp_path) == {"": 12}
    assert "Slices name 12 different patients" in find_series(tmp_path, ANY)[0].warnings[0]


def test_a_uid_of_two_acquisitions_gives_the_better_and_tells_of_the_other(tmp_path: Path) -> None:
    write_series(tmp_path / "a", EVEN, AcquisitionNumber=1)
    write_series(tmp_path / "b", EVEN, AcquisitionNumber=2, ConvolutionKernel="BONE", SOPInstanceUID="")
    source = choose_source(find_series(tmp_path, ANY), ANY, uid=SERIES_UID)
    assert isinstance(source, Series)
    assert source.header.ConvolutionKernel == "STANDARD"
    assert source.warnings[-1].endswith(
        "is read, 12 of the 24 files under its UID; there also is series 2.25.1001 (AcquisitionNumber 2)."
    )


def header(height: float, **facts: Any) -> SliceHeader:
    """A slice's facts, as far as telling acquisitions apart needs them."""
    names = SliceHeader.__slots__
    common: dict[str, Any] = dict.fromkeys(names, "") | {"position_mm": (0.0, 0.0, height), "instance_number": None}
    return SliceHeader(**{**common, "apart": ("",) * len(APART), **facts})


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30),
    st.booleans(),
)
def test_no_slice_is_lost_or_told_twice(slices: list[tuple[int, int, int]], is_timed: bool) -> None:  # noqa: FBT001
    group = tuple(
        header(
            2.5 * height, apart=(str(number), str(kind), *[""] * (len(APART) - 2)), acquired=str(k) if is_timed else ""
        )
        for k, (height, number, kind) in enumerate(slices)
    )
    parts = acquisitions(group, AXES)
    assert sorted(map(id, (one for _, part in parts for one in part))) == sorted(map(id, group))
    assert len({name for name, _ in parts}) == len(parts)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=40))
def test_planes_are_parted_as_if_each_were_compared_with_each(turns: list[float]) -> None:
    group = tuple(
        header(
            float(k), orientation=(cos(turn), sin(turn), 0.0, -sin(turn), cos(turn), 0.0), pixel_spacing_mm=(1.0, 1.0)
        )
        for k, turn in enumerate(turns)
    )
    planes: list[list[SliceHeader]] = []
    for one in group:
        own = next((plane for plane in planes if _same_plane(plane[0], one)), None)
        if own is None:
            planes.append(own := [])
        own.append(one)
    assert sorted(map(len, _by_plane(group))) == sorted(map(len, planes))
