"""Numbers that can't be true are refused, whatever their source; unusual chests are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread

from carina.dicom.find import choose_source, find_series
from carina.dicom.read import read_source
from carina.dicom.rules import Rules
from carina.errors import BadSeries
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.volume import Grid
from carina.volume.plausible import check_grid, check_hu

Floats = npt.NDArray[np.float64]


COARSE = Rules(max_pixel_spacing_mm=5.0)


@cache
def chest() -> tuple[Floats, npt.NDArray[np.bool_]]:
    """A coarse chest in HU, and where its lungs are."""
    made = chest_phantom(shape=(40, 96, 96), lesions=3, seed=5)
    return made.volume.hu.astype(np.float64), made.lung.labels > 0


def clipped(values: Floats) -> npt.NDArray[np.int16]:
    return np.clip(np.rint(values), -1024, 32767).astype(np.int16)


def judge(values: Floats) -> None:
    """As a reader does: the voxels clipped, and a sample of what they were."""
    check_hu(clipped(values), "it", origin="series", unclipped=values[::2].ravel())


WRONG: dict[str, tuple[Callable[[Floats], Floats], str]] = {
    "intercept lost": (
        lambda hu: hu + 1024,
        r"values run from .* as if the Rescale Intercept \(often -1024\) were lost",
    ),
    "intercept lost, padding kept": (lambda hu: np.where(hu < -990, -2000, hu + 1024), "of what is not air lies above"),
    "intercept applied twice": (lambda hu: hu - 1024, "lie below -1200 and differ, so are no padding"),
    "slope 0": (lambda hu: hu * 0 - 1024, "nothing lies above -600"),
    "slope 0.1": (lambda hu: (hu + 1024) * 0.1 - 1024, "nothing lies above -600"),
    "slope 0.4": (lambda hu: (hu + 1024) * 0.4 - 1024, "lies between -300 and 300, as soft tissue does"),
    "slope 2": (lambda hu: (hu + 1024) * 2 - 1024, "of what is not air lies above 600"),
    "slope 10": (lambda hu: (hu + 1024) * 10 - 1024, "of what is not air lies above 600"),
    "slope -1": (lambda hu: -hu, "of what is not air lies above 600"),
    "HU halved": (lambda hu: hu / 2, "values run from"),
    "HU doubled": (lambda hu: hu * 2, "lie below -1200 and differ"),
    "signed read as unsigned": (lambda hu: np.where(hu < 0, hu + 65536, hu), "values run from 0 to 32767"),
    "an 8-bit window": (lambda hu: np.clip((hu + 1350) / 1500 * 255, 0, 255), "as in an 8-bit picture"),
    "a network's range": (lambda hu: np.clip((hu + 1000) / 1400, 0, 1), "as in a mask or after scaling for a network"),
    "a mask": (lambda hu: np.where(hu < -400, 1.0, 0.0), "values run from 0 to 1, as in a mask"),
    "soft tissue window": (lambda hu: np.clip(hu, -160, 240), "values run from -160 to 240; a chest CT"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_values_that_are_no_hu_are_refused(kind: str) -> None:
    change, words = WRONG[kind]
    with pytest.raises(BadSeries, match=words) as caught:
        judge(change(chest()[0]))
    assert caught.value.code == "series.no-hu" and "correct Rescale Slope and Intercept" in caught.value.message


def metal(hu: Floats) -> Floats:
    hu = hu.copy()
    hu[10:14, 40:46, 40:46] = 30000
    return hu


def white_lungs(hu: Floats) -> Floats:
    return np.where(chest()[1], 20.0, hu)


def lungs_only(outside: float) -> Callable[[Floats], Floats]:
    return lambda hu: np.where(chest()[1], hu, outside)


def crop_to_lungs(hu: Floats) -> Floats:
    z, y, x = (slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(chest()[1]))
    return hu[z, y, x]


RIGHT: dict[str, Callable[[Floats], Floats]] = {
    "as it is": lambda hu: hu,
    "metal": metal,
    "padding -2000": lambda hu: np.where(hu < -990, -2000.0, hu),
    "padding -3024": lambda hu: np.where(hu < -990, -3024.0, hu),
    "padding -32768": lambda hu: np.where(hu < -990, -32768.0, hu),
    "padding 0": lambda hu: np.where(hu < -990, 0.0, hu),
    "both lungs white": white_lungs,
    "lungs only, -1000 outside": lungs_only(-1000.0),
    "lungs only, -1024 outside": lungs_only(-1024.0),
    "lungs only, 0 outside": lungs_only(0.0),
    "cropped to the lungs": crop_to_lungs,
    "contrast": lambda hu: np.where(hu > 30, hu + 300, hu),
    "steps of 4": lambda hu: np.rint(hu / 4) * 4,
    "a lung window": lambda hu: np.clip(hu, -1350, 150),
    "badly calibrated": lambda hu: hu * 0.95 - 30,
    "upside down": lambda hu: hu[::-1, ::-1],
}


@pytest.mark.parametrize("kind", RIGHT)
def test_unusual_chests_are_taken(kind: str) -> None:
    judge(RIGHT[kind](chest()[0]))


@settings(max_examples=40, deadline=None)
@given(
    gain=st.floats(0.92, 1.08),
    shift=st.floats(-40, 40),
    noise=st.floats(0, 80),
    padding=st.sampled_from([None, -1024.0, -2000.0, -2048.0, -3024.0, -3071.0, -32768.0]),
    seed=st.integers(0, 2**16),
)
def test_a_scanner_may_be_off_and_noisy(
    gain: float, shift: float, noise: float, padding: float | None, seed: int
) -> None:
    hu = chest()[0] * gain + shift + np.random.default_rng(seed).normal(0, noise, chest()[0].shape)
    if padding is not None:
        hu[:, :8] = padding
    judge(hu)


@settings(max_examples=40, deadline=None)
@given(slope=st.one_of(st.floats(-20, -0.2), st.floats(0.01, 0.4), st.floats(2, 50)), seed=st.integers(0, 2**16))
def test_no_wrong_slope_is_taken(slope: float, seed: int) -> None:
    noisy = chest()[0] + np.random.default_rng(seed).normal(0, 15, chest()[0].shape)
    with pytest.raises(BadSeries, match="a chest CT in HU has air near -1000"):
        judge((noisy + 1024) * slope - 1024)


@settings(max_examples=25, deadline=None)
@given(shift=st.one_of(st.integers(450, 9000), st.integers(-9000, -900)))
def test_no_wrong_intercept_is_taken(shift: int) -> None:
    noisy = chest()[0] + np.random.default_rng(1).normal(0, 15, chest()[0].shape)
    with pytest.raises(BadSeries, match="a chest CT in HU has air near -1000"):
        judge(noisy + shift)


def test_what_is_rare_is_found_in_every_voxel() -> None:
    """The sample may miss the only air there is; then all voxels are asked before a volume is refused."""
    hu = np.full((512, 64, 64), 40, np.int16)
    hu[1, 1, :40] = -1000
    check_hu(hu, "it", origin="file")
    hu[1, 1, :40] = -500
    with pytest.raises(BadSeries, match="it: values run from -500 to 40"):
        check_hu(hu, "it", origin="file")


def test_of_few_voxels_nothing_is_said() -> None:
    check_hu(np.zeros((9, 64, 64), np.int16), "it", origin="series")
    check_hu(np.zeros((64, 10, 63), np.int16), "it", origin="series")
    check_hu(np.full((2, 2, 2), -700, np.int16), "it", origin="file")
    with pytest.raises(BadSeries, match="values run from -200 to -200"):
        check_hu(np.full((2, 2, 2), -200, np.int16), "it", origin="file")
    with pytest.raises(BadSeries, match="values run from 0 to 0"):
        check_hu(np.zeros((64, 10, 64), np.int16), "it", origin="series")


def grid(spacing_mm: tuple[float, float, float], shape: tuple[int, int, int] = (100, 512, 512)) -> Grid:
    return Grid(shape=shape, spacing_mm=spacing_mm, origin_mm=(0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("spacing_mm", "words"),
    [
        ((0.0025, 0.0007, 0.0007), r"voxels of 0.0025 x 0.0007 x 0.0007 mm \(z, y, x\), expected 0.05 to 30 mm"),
        ((0.25, 0.07, 0.07), "a field of view of 25 x 35.84 x 35.84 mm"),
        ((2500, 700, 700), "voxels of 2500 x 700 x 700 mm"),
        ((2.5, 7.0, 7.0), "a field of view of 250 x 3584 x 3584 mm"),
        ((29.0, 0.7, 0.7), "a field of view of 2900 x 358.4 x 358.4 mm"),
        ((0.0, 0.7, 0.7), "voxels of 0 x"),
        ((float("nan"), 0.7, 0.7), "voxels of nan x"),
        ((float("inf"), 0.7, 0.7), "voxels of inf x"),
    ],
)
def test_impossible_sizes_are_refused(spacing_mm: tuple[float, float, float], words: str) -> None:
    for origin, cure in (("series", "correct Pixel Spacing"), ("file", "correct the header")):
        with pytest.raises(BadSeries, match=words) as caught:
            check_grid(grid(spacing_mm), "it", origin=origin)  # type: ignore[arg-type]
        assert caught.value.code == f"{origin}.spacing" and cure in caught.value.message


@pytest.mark.parametrize(
    ("spacing_mm", "shape"),
    [
        ((2.5, 0.7, 0.7), (133, 512, 512)),
        ((0.25, 0.1, 0.1), (1200, 2048, 2048)),
        ((20.0, 0.7, 0.7), (12, 512, 512)),
        ((3.27, 1.37, 1.37), (700, 512, 512)),
        ((0.7, 2.0, 0.7), (512, 200, 512)),
        ((2.5, 0.7, 0.8), (4, 6, 8)),
        ((4.0, 4.17, 4.17), (79, 64, 64)),
    ],
)
def test_unusual_sizes_are_taken(spacing_mm: tuple[float, float, float], shape: tuple[int, int, int]) -> None:
    check_grid(grid(spacing_mm, shape), "it", origin="file")


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("hu-offset-dicom", "series.no-hu", "as if the Rescale Intercept"),
        ("pixel-spacing-implausible", "series.spacing", "0.0019 x 0.0019 mm"),
    ],
)
def test_numbers_of_a_series_that_can_not_be_true(data: Path, fault: str, code: str, words: str) -> None:
    with pytest.raises(BadSeries, match=words) as caught:
        read_source(choose_source(find_series(data / "faults" / fault)))
    assert caught.value.code == code


def test_an_intercept_applied_twice_is_seen_in_dicom(tmp_path: Path) -> None:
    """The voxels alone would not tell: what lies below -1024 is clipped."""
    made = chest_phantom(shape=(40, 192, 192), lesions=0, seed=5)
    for file in write_ct_series(made.volume, tmp_path):
        dataset = dcmread(file)
        dataset.RescaleIntercept = float(dataset.RescaleIntercept) - 1024
        dataset.save_as(file)
    with pytest.raises(BadSeries, match="lie below -1200 and differ, so are no padding"):
        read_source(choose_source(find_series(tmp_path)))


@pytest.mark.parametrize(
    ("wrong", "slope", "intercept"),
    [((7,), 1, 0), ((0,), 1, 0), ((39,), 1, 0), (range(20), 1, 0), ((5, 6), 2, -1024), ((7,), 1, -2048)],
)
def test_a_rescale_that_is_wrong_in_some_slices_only_is_seen(
    tmp_path: Path, wrong: Sequence[int], slope: float, intercept: float
) -> None:
    files = write_ct_series(chest_phantom(shape=(40, 96, 96), lesions=0, seed=5).volume, tmp_path)
    for k in wrong:
        dataset = dcmread(files[k])
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        dataset.save_as(files[k])
    with pytest.raises(BadSeries, match=r"soft tissue leaps by -?[0-9]+ HU from .* correct them"):
        read_source(choose_source(find_series(tmp_path, COARSE), COARSE))


def test_a_rescale_of_each_slice_own_is_right_where_the_values_are(tmp_path: Path) -> None:
    made = chest_phantom(shape=(40, 96, 96), lesions=0, seed=5)
    for k, file in enumerate(write_ct_series(made.volume, tmp_path)):
        dataset = dcmread(file)
        stored = dataset.pixel_array.astype(np.int32) + int(dataset.RescaleIntercept) + 1024 + 3 * k
        dataset.PixelData, dataset.PixelRepresentation = stored.astype("<i2").tobytes(), 1
        dataset.RescaleIntercept = -1024 - 3 * k
        dataset.save_as(file)
    read = read_source(choose_source(find_series(tmp_path, COARSE), COARSE))
    assert np.array_equal(read.hu, made.volume.hu)
