"""The phantom is a chest whose truth can be trusted."""

from __future__ import annotations

from inspect import unwrap

import numpy as np
import pytest
from scipy import ndimage

from carina.synth.phantom import Phantom, PhantomLesion, chest_phantom


@pytest.fixture(scope="module")
def chest() -> Phantom:
    return chest_phantom(shape=(80, 192, 192), lesions=5, seed=4)


def test_truth_is_the_masks_volume(chest: Phantom) -> None:
    voxel_ml = float(np.prod(chest.volume.grid.spacing_mm)) / 1000
    assert chest.truth.lung_ml == pytest.approx(np.count_nonzero(chest.lung.labels) * voxel_ml)
    assert chest.truth.lesion_ml == pytest.approx(np.count_nonzero(chest.lesion.labels) * voxel_ml)
    assert sum(one.lesion_ml for one in chest.truth.lesions) == pytest.approx(chest.truth.lesion_ml)
    assert chest.truth.left_lung_ml + chest.truth.right_lung_ml == pytest.approx(chest.truth.lung_ml)
    assert chest.truth.ratio_percent == pytest.approx(100 * chest.truth.lesion_ml / chest.truth.lung_ml)


def test_sizes_are_those_of_an_adult(chest: Phantom) -> None:
    assert 3000 < chest.truth.lung_ml < 6500
    assert chest.truth.left_lung_ml < chest.truth.right_lung_ml
    assert 10 < chest.truth.lesion_ml < 500


def test_left_is_where_x_grows(chest: Phantom) -> None:
    left, right = (chest.volume.grid.points_mm(np.argwhere(chest.lung.labels == label))[:, 0] for label in (1, 2))
    assert left.min() > 0 > right.max()


def test_hounsfield_units_are_those_of_the_tissue(chest: Phantom) -> None:
    hu, lung, lesion = chest.volume.hu, chest.lung.labels > 0, chest.lesion.labels > 0
    parenchyma = ndimage.binary_erosion(lung & ~lesion, iterations=2)
    assert -890 < np.median(hu[parenchyma]) < -820
    assert -680 < np.median(hu[ndimage.binary_erosion(lesion)]) < -380
    assert np.median(hu[:, :8]) == pytest.approx(-1000, abs=3)
    assert (hu > 500).mean() > 0.002, "no bone"
    grid = chest.volume.grid
    z, y, x = (int(i) for i in np.rint(grid.indices([25.0, -32.0, -28.0])))
    assert 25 < hu[z - 1 : z + 2, y - 2 : y + 3, x - 2 : x + 3].mean() < 75, "no heart"


def test_airways_and_bowel_gas_are_no_lung(chest: Phantom) -> None:
    air = (chest.volume.hu < -900) & (chest.lung.labels == 0)
    labels, _ = ndimage.label(air)
    grid = chest.volume.grid

    def label_at(x: float, y: float, z: float) -> int:
        return int(labels[tuple(int(i) for i in np.rint(grid.indices([x, y, z])))])

    trachea, stomach, outside = label_at(0, 8, 80), label_at(60, -42, -108), int(labels[40, 1, 1])
    assert trachea and stomach and outside
    assert len({trachea, stomach, outside}) == 3


def test_the_trachea_forks(chest: Phantom) -> None:
    grid = chest.volume.grid
    for x in (-19.0, 19.0):
        z, y, column = (int(i) for i in np.rint(grid.indices([x, 16.5, 21.0])))
        near = (slice(z - 1, z + 2), slice(y - 2, y + 3), slice(column - 2, column + 3))
        assert chest.volume.hu[near].min() < -800, f"no main bronchus at x = {x} mm"
        assert not chest.lung.labels[z, y, column]


def test_a_sphere_inside_the_lung_has_the_volume_of_a_sphere() -> None:
    sphere = PhantomLesion(centre_mm=(75.0, 30.0, 10.0), radii_mm=(18.0, 18.0, 18.0))
    chest = chest_phantom(shape=(200, 256, 256), lesions=[sphere], seed=2)
    assert sphere.ellipsoid_ml == pytest.approx(24.43, abs=0.01)
    assert chest.truth.lesion_ml == pytest.approx(sphere.ellipsoid_ml, rel=0.02)
    centre = chest.volume.grid.points_mm(np.argwhere(chest.lesion.labels)).mean(axis=0)
    assert centre == pytest.approx(sphere.centre_mm, abs=0.5)


def test_lesions_lie_in_the_lungs_at_the_pleura(chest: Phantom) -> None:
    lesion, lung = chest.lesion.labels > 0, chest.lung.labels > 0
    assert not (lesion & ~lung).any()
    spacing = chest.volume.grid.spacing_mm
    depth = ndimage.distance_transform_edt(lung, sampling=spacing)
    labels, count = ndimage.label(lesion)
    assert count >= 2
    assert max(ndimage.minimum(depth, labels, range(1, count + 1))) < 15


def test_a_healthy_chest_has_no_lesion() -> None:
    chest = chest_phantom(shape=(24, 64, 64), lesions=0)
    assert chest.lesion.is_empty
    assert chest.truth.lesion_ml == 0
    assert chest.truth.lesions == ()


def test_the_seed_decides_everything() -> None:
    first, again, other = (unwrap(chest_phantom)(shape=(16, 64, 64), seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(first.volume.hu, again.volume.hu)
    assert first.volume.uid == again.volume.uid
    assert first.truth == again.truth
    assert first.volume.uid != other.volume.uid
    assert not np.array_equal(first.lung.labels, other.lung.labels)


def test_truth_hardly_depends_on_the_grid() -> None:
    coarse, fine = (chest_phantom(shape=shape, seed=3).truth for shape in ((64, 128, 128), (128, 256, 256)))
    assert coarse.lung_ml == pytest.approx(fine.lung_ml, rel=0.02)
    assert coarse.lesion_ml == pytest.approx(fine.lesion_ml, rel=0.05)


def test_noise_has_the_strength_asked_for() -> None:
    quiet, loud = (chest_phantom(shape=(24, 96, 96), seed=1, noise_hu=noise).volume.hu for noise in (0.0, 15.0))
    assert (loud.astype(np.int32) - quiet)[:, 5:20, 5:90].std() == pytest.approx(15, rel=0.05)


def test_a_given_spacing_is_kept() -> None:
    chest = chest_phantom(shape=(20, 96, 128), spacing_mm=(8.0, 4.0, 3.0), seed=1)
    assert chest.volume.grid.spacing_mm == (8.0, 4.0, 3.0)
    assert chest.truth.lung_ml > 2000


def test_what_cant_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 64, 64\): a phantom needs at least 2 voxels"):
        chest_phantom(shape=(1, 64, 64))
    small = PhantomLesion(centre_mm=(0, 0, 0), radii_mm=(1, 1, 1))
    with pytest.raises(ValueError, match="255 lesions: a phantom takes at most 254"):
        chest_phantom(shape=(8, 32, 32), lesions=[small] * 255)
