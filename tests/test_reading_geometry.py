"""Where slices lie: orders, steps and units of every kind end in the right volume or the right refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.dicom.geometry import VolumePlan, mask_on_source, plan_volume
from carina.dicom.read import read_source
from carina.dicom.series import Instance, Series
from carina.errors import BadSeries
from reading_slices import (
    AXIAL,
    COLUMNS,
    EVEN,
    PIXEL_MM,
    ROWS,
    assert_linear,
    full_mask,
    refusal,
    series_of,
    write_series,
)

AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


def planned(heights_mm: list[float], beside_mm: float = 0.0) -> VolumePlan:
    """The plan of axial slices at these heights, in this order, each further beside the first."""
    instances = tuple(
        Instance(
            path=Path(f"{k:03d}"), sop_instance_uid=f"1.{k}", sop_class_uid="", position_mm=(beside_mm * k, 0.0, height)
        )
        for k, height in enumerate(heights_mm)
    )
    series = Series(
        uid="1.2",
        study_uid="",
        frame_of_reference_uid="",
        header=None,  # type: ignore[arg-type]
        instances=instances,
        rows=512,
        columns=512,
        pixel_spacing_mm=(0.7, 0.7),
        slice_axes=AXES,
    )
    return plan_volume(series)


def alternating(*steps_mm: float, count: int = 12) -> list[float]:
    """Heights whose steps are these in turn."""
    return [0.0, *np.cumsum([steps_mm[k % len(steps_mm)] for k in range(count - 1)])]


@pytest.mark.parametrize("steps_mm", [(8.5, 7.5), (7.5, 8.5), (2.5, 2.5, 3.0), (1.0, 1.2, 1.25), (5.0, 4.0)])
@pytest.mark.parametrize("count", [10, 12, 31])
def test_uneven_steps_lose_no_slice(tmp_path: Path, steps_mm: tuple[float, ...], count: int) -> None:
    heights = alternating(*steps_mm, count=count)
    write_series(tmp_path, heights)
    series = series_of(tmp_path)
    volume = read_source(series)
    assert volume.grid.shape[0] == count
    assert np.isclose(volume.grid.spacing_mm[0], heights[-1] / (count - 1))
    assert "evened to" in volume.warnings[0]
    assert_linear(volume, within_hu=1.01)
    assert mask_on_source(full_mask(volume), series).all()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0.9, 1.1), min_size=1, max_size=80),
    st.floats(0.3, 9.0),
    st.floats(-2000.0, 2000.0),
)
def test_the_volume_spans_the_slices_whatever_their_steps(parts: list[float], step: float, first: float) -> None:
    heights = first + np.concatenate([[0.0], np.cumsum(np.array(parts) * step)])
    grid = planned(list(heights)).grid
    assert grid.shape[0] == len(heights)
    assert np.isclose(grid.points_mm([grid.shape[0] - 1, 0, 0])[2], heights[-1], atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.integers(6, 60), st.floats(0.5, 8.0), st.floats(0.0, 0.999))
def test_any_slice_missing_inside_is_refused_and_named(count: int, step: float, where: float) -> None:
    gone = 1 + int(where * (count - 2))
    heights = [k * step for k in range(count) if k != gone]
    with pytest.raises(BadSeries, match=f"slices are missing: {2 * step:.2f} mm between {gone - 1:03d} ") as caught:
        planned(heights)
    assert caught.value.code == "series.gap"


def test_slices_missing_at_each_quarter_are_all_named() -> None:
    with pytest.raises(BadSeries, match=r"009 .* and 010 .*, .*018 .* and 019 .*, .*027 .* and 028"):
        planned([2.0 * k for k in range(40) if k not in (10, 20, 30)])


def test_one_slice_far_away_is_refused() -> None:
    with pytest.raises(BadSeries, match=r"250\.00 mm between 019 .* and 020"):
        planned([2.0 * k for k in range(20)] + [288.0])


@pytest.mark.parametrize("jitter_mm", [1e-6, 0.004, 0.009])
def test_rounding_of_positions_is_no_unevenness(jitter_mm: float) -> None:
    rng = np.random.default_rng(3)
    plan = planned(list(np.arange(50) * 1.0 + rng.uniform(-jitter_mm, jitter_mm, 50)), beside_mm=1e-5)
    assert plan.is_even and not plan.is_sheared


def test_negative_zero_is_zero(tmp_path: Path) -> None:
    for name, zero in (("plus", 0.0), ("minus", -0.0)):
        write_series(tmp_path / name, EVEN, orientation=(1.0, zero, zero, zero, 1.0, zero))
    plus, minus = (read_source(series_of(tmp_path / name)) for name in ("plus", "minus"))
    assert plus.grid == minus.grid and np.array_equal(plus.hu, minus.hu)
    assert not any(np.signbit(value) for axis in minus.grid.axes for value in axis)


@pytest.mark.parametrize("scale", [0.993, 1.007])
def test_cosines_that_are_slightly_off_unit_length_place_slices_alike(tmp_path: Path, scale: float) -> None:
    write_series(tmp_path, EVEN, orientation=[scale * cosine for cosine in AXIAL])
    grid = read_source(series_of(tmp_path)).grid
    assert grid.shape == (12, ROWS, COLUMNS) and np.allclose(grid.spacing_mm, (2.5, *PIXEL_MM))
    assert np.allclose(np.linalg.norm(grid.axes, axis=1), 1.0)


@pytest.mark.parametrize(
    ("heights", "spacing", "words"),
    [
        ([0.0025 * k for k in range(12)], PIXEL_MM, r"its slices are 0\.0025 mm apart, expected 0\.05 to 30 mm"),
        ([2500.0 * k for k in range(12)], PIXEL_MM, r"voxels of 2500 x 1\.5 x 2 mm \(z, y, x\), expected 0\.05 to 30"),
        (EVEN, (0.0019, 0.0019), r"voxels of 2\.5 x 0\.0019 x 0\.0019 mm"),
        (EVEN, (700.0, 700.0), r"voxels of 2\.5 x 700 x 700 mm"),
    ],
)
def test_lengths_in_another_unit_are_refused(
    tmp_path: Path, heights: list[float], spacing: tuple[float, float], words: str
) -> None:
    write_series(tmp_path, heights, PixelSpacing=list(spacing))
    error = refusal(tmp_path)
    assert error.code == "series.spacing"
    with pytest.raises(BadSeries, match=words):
        raise error
    assert error.message.count("series 2.25.1001") == 1
