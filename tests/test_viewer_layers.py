"""What the volume viewer is sent: the CT and the marks in place, whole and a quarter, read by another reader."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from carina.errors import BadConfig
from carina.report.overlay import layout
from carina.service.viewer.layers import coarse_steps, layer_of
from carina.service.viewer.opened import OpenedRun
from carina.service.viewer.scene import chosen_voxel, outside_words, shown_planes
from carina.service.viewer.solid import AIRWAY_FULL, AROUND_LUNGS_HU, RIM_MM, solid_layer
from carina.volume import Grid
from carina.volume.header import triple
from viewer_runs import POSES, posed, write_run
from waiting import wait_until

RAS = np.array([-1.0, -1.0, 1.0])


@pytest.fixture(scope="module", params=[*POSES, "oblique"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OpenedRun:
    phantom = posed(request.param)
    finer = replace(phantom.volume.grid, spacing_mm=triple(np.array(phantom.volume.grid.spacing_mm) / 4))
    moved = {name: replace(getattr(phantom, name), grid=finer) for name in ("volume", "lung", "lesion")}
    return OpenedRun(write_run(replace(phantom, **moved), tmp_path_factory.mktemp("layers") / "run"))


def received(opened: OpenedRun, size: str, name: str, folder: Path, *, compress: bool) -> nibabel.Nifti1Image:
    file = folder / f"{name}.nii{'.gz' if compress else ''}"
    file.write_bytes(b"".join(layer_of(opened, size, name).parts(compress=compress)))
    return nibabel.load(file)


def test_the_whole_ct_is_every_voxel_in_its_place(opened: OpenedRun, tmp_path: Path) -> None:
    image = received(opened, "full", "ct", tmp_path, compress=False)
    volume = opened.whole.volume
    assert (volume.hu == np.asarray(image.dataobj).T).all()
    for index in ((0, 0, 0), (5, 60, 7), tuple(count - 1 for count in volume.grid.shape)):
        place = (image.affine @ [*index[::-1], 1])[:3] * RAS
        assert place == pytest.approx(volume.grid.points_mm(index), abs=1e-3)


@pytest.mark.parametrize("size", ["full", "quarter"])
def test_marks_tell_lung_and_lesion_and_where_both_are(opened: OpenedRun, size: str, tmp_path: Path) -> None:
    image = received(opened, size, "marks", tmp_path, compress=True)
    marks = np.asarray(image.dataobj)
    images = opened.whole
    assert images.lung and images.lesion
    assert set(np.unique(marks)) == {0, 1, 3}, "every lesion of the phantom lies in its lungs"
    voxel_ml = abs(np.linalg.det(image.affine)) / 1000
    lesion_ml = float((marks >= 2).sum()) * voxel_ml
    assert lesion_ml == pytest.approx(images.lesion.volume_ml(), rel=0.2 if size == "quarter" else 1e-6)
    assert float((marks > 0).sum()) * voxel_ml == pytest.approx(images.lung.volume_ml(), rel=0.05)
    for mask, least, within_mm in ((images.lung, 1, 0.4), (images.lesion, 2, 2.0 if size == "quarter" else 0.01)):
        place = (image.affine @ [*np.argwhere(marks >= least).mean(axis=0), 1])[:3] * RAS
        assert np.linalg.norm(place - mask.grid.points_mm(np.argwhere(mask.labels).mean(axis=0))) < within_mm


def test_the_quarter_is_small_and_has_the_mean_of_what_it_stands_for(opened: OpenedRun, tmp_path: Path) -> None:
    quarter, volume = received(opened, "quarter", "ct", tmp_path, compress=True), opened.whole.volume
    steps = coarse_steps(volume.grid)
    assert quarter.shape[::-1] == tuple(count // step for count, step in zip(volume.grid.shape, steps, strict=True))
    block = tuple(slice(3 * step, 4 * step) for step in steps)
    assert float(quarter.dataobj[3, 3, 3]) == pytest.approx(volume.hu[block].mean(), abs=0.51)


@pytest.mark.parametrize(("size", "name"), [("half", "ct"), ("full", "heart"), ("quarter", "lung")])
def test_what_is_no_layer_is_refused(opened: OpenedRun, size: str, name: str) -> None:
    with pytest.raises(BadConfig, match="expected quarter or full, and ct or marks"):
        layer_of(opened, size, name)


def test_what_3d_shows_of_the_lungs_lies_where_it_is_on_one_grid(opened: OpenedRun, tmp_path: Path) -> None:
    images = opened.whole
    assert images.lung and images.lesion
    hu, marks = (solid_layer(opened, name) for name in ("lungs", "marks"))
    assert hu.grid == marks.grid
    file = tmp_path / "marks.nii.gz"
    file.write_bytes(b"".join(marks.parts(compress=True)))
    lesions = np.argwhere(np.asarray(nibabel.load(file).dataobj) >= 2)
    place = (nibabel.load(file).affine @ [*lesions.mean(axis=0), 1])[:3] * RAS
    at = images.lesion.grid.points_mm(np.argwhere(images.lesion.labels).mean(axis=0))
    assert np.linalg.norm(place - at) < 1.0
    inside = hu.array != AROUND_LUNGS_HU
    assert not inside[marks.array == 0].any() and (hu.array[inside] > -300).any(), "vessels, and no ribs"
    deep = distance_transform_edt(marks.array > 0, sampling=marks.grid.spacing_mm) > 2 * RIM_MM
    assert inside[deep].all()
    found = images.volume.grid.indices(hu.grid.points_mm(np.argwhere(inside)))
    z, y, x = np.clip(np.rint(found).astype(int), 0, np.array(images.volume.grid.shape) - 1).T
    assert np.corrcoef(images.volume.hu[z, y, x], hu.array[inside])[0, 1] > 0.8


def test_airways_are_on_the_same_grid_and_are_made_once(tmp_path: Path) -> None:
    opened = OpenedRun(write_run(posed("prone", (60, 128, 128)), tmp_path / "run"))
    airways = solid_layer(opened, "airways")
    assert airways is solid_layer(opened, "airways")
    assert airways.grid == solid_layer(opened, "lungs").grid
    places = airways.grid.points_mm(np.argwhere(airways.array > AIRWAY_FULL / 2))
    assert places[:, 2].max() > 140 and places[:, 0].min() < -40 and places[:, 0].max() > 40
    with pytest.raises(BadConfig, match="solid/heart: expected airways, lungs, marks"):
        solid_layer(opened, "heart")


def test_what_is_long_in_the_making_holds_up_no_other(opened: OpenedRun) -> None:
    started, ended = threading.Event(), threading.Event()

    def long() -> bool:
        started.set()
        return ended.wait(60)

    thread = threading.Thread(target=lambda: opened.once("long", long))
    thread.start()
    wait_until(started.is_set)
    assert opened.once("short", lambda: 1) == 1
    assert thread.is_alive()
    ended.set()
    thread.join()
    assert opened.once("long", lambda: False)


def test_the_first_look_is_at_the_largest_lesion_and_the_crosshair_lies_in_it(opened: OpenedRun) -> None:
    at = chosen_voxel(opened, {})
    assert opened.whole.lesion and opened.whole.lesion.labels[at]
    assert at == opened.lesions[0].index
    other = chosen_voxel(opened, {"at": "lesion-1", "axial": "3"})
    axis = layout(opened.images.volume.grid, "axial").normal
    assert other == tuple(3 if k == axis else at[k] for k in range(3))
    assert outside_words(opened, {"at": "lesion-1", "axial": "3"}) == ""
    said, deepest = outside_words(opened, {"at": "999,1,2"}), opened.images.volume.grid.shape[0] - 1
    assert said.startswith("There is no voxel 999,1,2 in this scan of")
    assert said.endswith(f"the nearest, {deepest},1,2, is shown.")


@settings(max_examples=80)
@given(st.data())
def test_the_next_slice_lies_to_the_feet_to_the_back_and_to_the_left(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    z, y, x = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    shape = (int(rng.integers(2, 9)), int(rng.integers(2, 9)), int(rng.integers(2, 9)))
    grid = Grid(
        shape=shape, spacing_mm=(2.0, 1.0, 1.5), origin_mm=(0.0, 0.0, 0.0), axes=(triple(z), triple(y), triple(x))
    )
    at = (0, 1, 1)
    for plane in shown_planes(grid, at):
        assert 0 < plane.across < 100 and 0 < plane.down < 100
        normal = grid.shape.index(plane.count) if grid.shape.count(plane.count) == 1 else None
        if normal is not None:
            way = np.array(grid.axes[normal]) * plane.step
            onwards = {"axial": -way[2], "coronal": way[1], "sagittal": way[0]}[plane.name]
            assert onwards >= 0
