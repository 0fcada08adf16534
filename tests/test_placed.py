"""Masks and maps lie on the grid of their CT, whoever made them: asked of all that meets in an operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from carina.api.study import RunSettings, run
from carina.config import Settings
from carina.dicom.find import choose_source, find_series
from carina.dicom.geometry import mask_on_source
from carina.dicom.read import read_source
from carina.dicom.series import Series
from carina.errors import ModelFailed
from carina.operators import MaskPort, SaliencyPort, Scene, VolumePort
from carina.operators.alone import Alone, run_alone
from carina.operators.placed import misplaced
from carina.pipeline import Operator, Setting, ports
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.volume.grid import Grid
from carina.volume.volume import Mask, ScalarMap, Volume
from foreign_definitions import foreign, python, trusting

Y, X = (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)

ELSEWHERE: dict[str, Callable[[Grid], Grid]] = {
    "spacing": lambda grid: replace(grid, spacing_mm=(9.0, 9.0, 9.0)),
    "a little spacing": lambda grid: replace(grid, spacing_mm=(grid.spacing_mm[0], 1.01 * grid.spacing_mm[1], 1.0)),
    "origin": lambda grid: replace(grid, origin_mm=(grid.origin_mm[0], grid.origin_mm[1], grid.origin_mm[2] + 1.0)),
    "mirrored": lambda grid: replace(grid, axes=((0.0, 0.0, -1.0), Y, X)),
    "turned": lambda grid: replace(grid, axes=((0.0, 0.0, 1.0), X, Y)),
    "shape": lambda grid: replace(grid, shape=(grid.shape[0] - 1, *grid.shape[1:])),
}
"""Grids that are not that of the CT."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct")
    write_ct_series(chest_phantom(shape=(36, 200, 200), lesions=0).volume, folder)
    return folder


@pytest.fixture(scope="module")
def series(folder: Path) -> Series:
    source = choose_source(find_series(folder))
    assert isinstance(source, Series)
    return source


@pytest.fixture(scope="module")
def volume(series: Series) -> Volume:
    return read_source(series)


def mask_on(grid: Grid) -> Mask:
    return Mask(labels=np.ones(grid.shape, np.uint8), grid=grid, names={1: "lung"}, uid="1.2")


def map_on(grid: Grid) -> ScalarMap:
    return ScalarMap(values=np.zeros(grid.shape, np.float32), grid=grid, quantity="", unit="", uid="1.2")


def scene_on(grid: Grid) -> Scene:
    volume = Volume(hu=np.zeros(grid.shape, np.int16), grid=grid, uid="1.2")
    return Scene(volume=volume, shown=mask_on(grid), layer="lung", order=1, colours={1: "#000000"})


SHOWN: dict[str, Callable[[Grid], object]] = {
    "mask": mask_on,
    "map": map_on,
    "saliency": lambda grid: SaliencyPort(map=map_on(grid)),
}


@pytest.mark.parametrize("what", list(ELSEWHERE))
@pytest.mark.parametrize("kind", list(SHOWN))
def test_what_lies_elsewhere_than_its_ct_is_seen(volume: Volume, series: Series, kind: str, what: str) -> None:
    there, away = SHOWN[kind](volume.grid), SHOWN[kind](ELSEWHERE[what](volume.grid))
    for beside in (volume, series, mask_on(volume.grid), scene_on(volume.grid)):
        assert misplaced({"/a": beside, "/b": there}) == ""
        words = misplaced({"/a": beside, "/b": away})
        assert words.startswith(f"the {kind} at /b (") and "does not lie on the grid of the " in words
        assert volume.grid.told in words
    if isinstance(away, Mask | SaliencyPort):
        scene = replace(scene_on(volume.grid), shown=away)
        assert misplaced({"/a": scene}).startswith(f"the {kind} at /a (")


def test_what_has_no_grid_and_a_volume_on_another_grid_are_left_alone(volume: Volume) -> None:
    resampled = scene_on(ELSEWHERE["spacing"](volume.grid)).volume
    nothing = SaliencyPort(map=None, not_computed="off")
    values = {"/a": volume, "/b": resampled, "/c": mask_on(resampled.grid), "/d": mask_on(volume.grid)}
    assert misplaced({**values, "/e": nothing, "/f": 7}) == misplaced({"/f": "text"}) == ""


@pytest.mark.parametrize("what", list(ELSEWHERE))
def test_no_mask_from_elsewhere_comes_onto_the_slices(volume: Volume, series: Series, what: str) -> None:
    with pytest.raises(ModelFailed, match=r"^the mask.*(does not lie on the grid of its series' volume|is turned)"):
        mask_on_source(mask_on(ELSEWHERE[what](volume.grid)), series)
    assert mask_on_source(mask_on(volume.grid), series).all()


def mark(volume: VolumePort, *, what: str = "") -> MaskPort:
    """Mark everything."""
    return mask_on(ELSEWHERE[what](volume.grid) if what else volume.grid)


MARK = Operator(
    name="marker",
    images=("others/mark",),
    function=mark,
    inputs={"/input": "volume"},
    outputs={"/output": ""},
    variables={"WHAT": Setting(parameter="what")},
    package="markers 1.2",
)

WRITE = """
- name: seg
  container: {image: carina/dicom-seg-writer}
  input: [{from: mark, path: /input}, {path: /dcm}]
  output: [{path: /output, name: dicom}]
"""

MARKED = """api-version: 0.4.0
name: marked
operators:
- {name: reader, container: {image: carina/dicom-reader}, input: [{path: /input}], output: [{path: /output}]}
- name: mark
  container: {image: others/mark, variables: {WHAT: "ELSEWHERE"}}
  input: [{from: reader, path: /input}]
  output: [{path: /output}]
"""


@pytest.mark.parametrize("what", ["", *ELSEWHERE])
def test_an_operator_of_others_that_marks_elsewhere_fails_by_its_name(folder: Path, tmp_path: Path, what: str) -> None:
    file = tmp_path / "marked.yaml"
    file.write_text(MARKED.replace("ELSEWHERE", what) + WRITE)
    how = RunSettings(settings=Settings(), pipeline=file, operators=[MARK])
    if not what:
        assert run(folder, tmp_path / "run", how).manifest.operators["seg"].outputs["/output"]
        return
    words = r"^operator 'mark' \(marker of markers 1\.2\) gave what can't be used: the mask at output /output \("
    with pytest.raises(ModelFailed, match=words) as raised:
        run(folder, tmp_path / "run", how)
    assert raised.value.code == "operator.grid" and not list((tmp_path / "run").rglob("*.dcm"))


SHRUNK = """
import sys
from pathlib import Path
for file in Path(sys.argv[1]).iterdir():
    data = file.read_bytes()
    if file.suffix == '.mhd':
        data = b'\\n'.join(b'ElementSpacing = 3 3 3' if b'Spacing' in one else one for one in data.split(b'\\n'))
    (Path(sys.argv[2]) / file.name).write_bytes(data)
"""


def test_files_of_a_program_that_lie_elsewhere_fail_where_they_are_read(folder: Path, tmp_path: Path) -> None:
    shrink = foreign("shrink", python(SHRUNK, "/input", "/output"), "[{from: mark, path: /input}]")
    file = tmp_path / "marked.yaml"
    file.write_text(MARKED.replace("ELSEWHERE", "") + shrink + WRITE.replace("from: mark", "from: shrink"))
    how = RunSettings(settings=Settings(operators=trusting(file)), pipeline=file, operators=[MARK])
    words = r"^operator 'seg' can't use what 'shrink' gave: the mask at input /input \(.*the series at input /dcm \("
    with pytest.raises(ModelFailed, match=words):
        run(folder, tmp_path / "run", how)
    assert not list((tmp_path / "run").rglob("*.dcm"))


def test_an_operator_by_itself_is_asked_too(volume: Volume, tmp_path: Path) -> None:
    ports.save_value(VolumePort, volume, tmp_path / "in")
    alone = Alone(
        operator=MARK,
        inputs={"input": tmp_path / "in"},
        outputs={"output": tmp_path / "out"},
        variables={"WHAT": "shape"},
    )
    with pytest.raises(ModelFailed, match="gave what can't be used: the mask at output /output"):
        run_alone(alone, ())
