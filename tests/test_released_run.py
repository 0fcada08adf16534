"""A series that is run whatever the rules say, is that in every step: also what is made of it, and what is resumed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from carina.api.study import RunSettings, run
from carina.config import DeidentifySettings, LimitSettings, Settings
from carina.dicom.find import choose_source, find_series, handed_source
from carina.errors import BadSeries
from carina.operators.alone import Alone, find_operator, run_alone
from carina.operators.networks import Networks
from carina.operators.ports import SourcePort
from carina.pipeline import ports
from carina.pipeline.manifest import State
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from carina.volume.files import write_mask

SETTINGS = Settings(deidentify=DeidentifySettings(key="k" * 40))
DOCUMENTED = Path(__file__).parents[1] / "docs" / "pipelines.md"

BROKEN: dict[str, dict[str, Any]] = {
    "series.few-slices": {"shape": (6, 96, 96), "spacing_mm": (3.0, 1.5, 1.5)},
    "series.spacing": {"shape": (12, 96, 96), "spacing_mm": (12.0, 1.5, 1.5)},
    "series.matrix": {"shape": (12, 48, 48), "spacing_mm": (3.0, 1.5, 1.5)},
}
"""A phantom for each rule of size."""


def definition(folder: Path) -> Path:
    """The definition that the documents give for a pipeline of one's own."""
    texts = re.findall(r"```yaml\n(.*?)```", DOCUMENTED.read_text(encoding="utf-8"), re.DOTALL)
    (text,) = (text for text in texts if "name: without-the-patient" in text)
    file = folder / "without-the-patient.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def written(folder: Path, rule: str) -> str:
    """A series that breaks a rule; gives its UID."""
    phantom = chest_phantom(**BROKEN[rule], lesions=0)
    write_ct_series(phantom.volume, folder)
    (found,) = find_series(folder)
    assert found.error is not None and found.error.code == rule
    return found.uid


@pytest.mark.parametrize("rule", BROKEN)
def test_what_was_chosen_whatever_the_rules_say_is_run_and_resumed_without_its_patient(
    tmp_path: Path, rule: str
) -> None:
    how = RunSettings(settings=SETTINGS, pipeline=definition(tmp_path), uid=written(tmp_path / "ct", rule))
    first = run(tmp_path / "ct", tmp_path / "run", how)
    assert {one.state for one in first.manifest.operators.values()} == {State.DONE}
    assert first.volume.grid.shape == BROKEN[rule]["shape"]
    made = first.deidentified()
    assert made.uid != how.uid
    for file in (first.folder / "volume").iterdir():  # the reader has to run again, on the series as it is stored
        file.unlink()
    assert run(tmp_path / "ct", tmp_path / "run", how).volume.uid == made.uid


def test_a_series_as_large_as_the_settings_allow_is_run_without_its_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = written(tmp_path / "ct", "series.few-slices")
    monkeypatch.setattr(find_series, "__kwdefaults__", {"most_voxels": 1000})
    settings = Settings(deidentify=SETTINGS.deidentify, limits=LimitSettings(voxels=100_000_000))
    how = RunSettings(settings=settings, pipeline=definition(tmp_path), uid=uid)
    assert run(tmp_path / "ct", tmp_path / "run", how).volume.grid.shape == (6, 96, 96)


def test_of_several_series_a_step_reads_the_one_that_fits_or_none(tmp_path: Path) -> None:
    written(tmp_path / "a", "series.few-slices")
    with pytest.raises(BadSeries, match="it has 6 slices, at least 10 expected"):
        choose_source(find_series(tmp_path))
    assert handed_source(find_series(tmp_path))
    thin = chest_phantom(**BROKEN["series.spacing"], lesions=0, seed=2).volume
    write_ct_series(thin, tmp_path / "b")
    with pytest.raises(BadSeries, match="none of 2 series can be used"):
        handed_source(find_series(tmp_path))
    fit = chest_phantom(shape=(12, 96, 96), spacing_mm=(3.0, 1.5, 1.5), lesions=0, seed=3).volume
    write_ct_series(fit, tmp_path / "c", settings=SeriesSettings(study="other"))
    assert handed_source(find_series(tmp_path)).uid == choose_source(find_series(tmp_path)).uid


def test_what_is_wrong_with_a_file_itself_is_no_rule(tmp_path: Path) -> None:
    write_mask(chest_phantom(shape=(12, 96, 96), lesions=0).lung, tmp_path / "lung.nii.gz")
    with pytest.raises(BadSeries, match="8-bit values can't be HU"):
        ports.load_value(SourcePort, [tmp_path / "lung.nii.gz"])


@pytest.mark.parametrize("rule", BROKEN)
def test_an_operator_by_itself_is_given_what_nobody_chose(tmp_path: Path, rule: str) -> None:
    written(tmp_path / "ct", rule)
    asked = Alone(
        operator=find_operator("dicom-reader"),
        inputs={"input": tmp_path / "ct"},
        outputs={"output": tmp_path / "out"},
        variables={},
    )
    with pytest.raises(BadSeries, match="expected") as caught:
        run_alone(asked, (SETTINGS, Networks(SETTINGS)))
    assert caught.value.code == rule
