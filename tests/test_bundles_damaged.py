"""Bundles that are damaged: told by the check, and by a job before it computes anything."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from carina.api.study import RunSettings, run
from carina.config import Settings, load_settings
from carina.errors import BadConfig
from carina.models.bundle import METADATA, SHIPPED, WEIGHTS, find_bundle
from carina.models.damaged import damaged_bundles
from carina.models.weights_digest import digest_file
from carina.pipeline.run import Event
from carina.service.check_bundles import bundle_remarks
from carina.service.networks import network_troubles
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series

NAME = "covid-densenet"


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 20)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no metadata": (lambda folder: (folder / METADATA).unlink(), r"metadata\.json: can't be read"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), r"model\.onnx: can't be read"),
    "metadata cut": (lambda folder: _cut(folder / METADATA), r"metadata\.json: no valid JSON"),
    "metadata of another": (
        lambda folder: (folder / METADATA).write_text(json.dumps({})),
        r"metadata\.json: .*missing",
    ),
    "empty": (_empty, r"metadata\.json: can't be read"),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of bundles with one of the name of a network that ships."""
    shutil.copytree(SHIPPED / NAME, tmp_path / "models" / NAME)
    return tmp_path / "models"


def settings_of(place: Path) -> Settings:
    file = place.parent / "carina.toml"
    file.write_text(f'node.folder = "{place.parent}/node"\nmodels.folders = ["{place}"]\n')
    return load_settings(file, {})


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_no_bundle_is_a_line_of_the_check(place: Path, damage: str) -> None:
    harm, words = DAMAGE[damage]
    shutil.copytree(place / NAME, place / "own")
    harm(place / "own")
    (place / ".hidden").mkdir()
    (place / "README").touch()
    assert list(damaged_bundles([place])) == ["own"]
    (remark,) = bundle_remarks(settings_of(place))
    assert re.match(rf"models\.folders: own can't be used: {place}/own/.*{words}", remark)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_bundle_is_not_passed_over_for_the_one_that_ships(place: Path, damage: str) -> None:
    harm, words = DAMAGE[damage]
    harm(place / NAME)
    (place.parent / "linked").mkdir()
    (place.parent / "linked" / NAME).symlink_to(place / NAME)
    for folder in (place, place.parent / "linked"):
        with pytest.raises(BadConfig, match=words):
            find_bundle(NAME, [folder])


def test_a_folder_of_models_that_is_away_has_no_other_stand_in_for_what_may_be_in_it(place: Path) -> None:
    """A share that is not mounted: with the name that ships, another's weights would run and nobody would see it."""
    settings = settings_of(place)
    now = datetime(2026, 7, 1, tzinfo=UTC)
    assert not network_troubles(settings, now)
    place.rename(place.with_name("away"))
    with pytest.raises(
        BadConfig, match=rf"{place}: is no folder that is there, and '{NAME}' may be in it: make or mount"
    ):
        find_bundle(NAME, settings.models.folders)
    assert sorted(network_troubles(settings, now)) == ["models.covid", "models.lesion", "models.lung"]


def test_a_folder_of_models_that_is_not_there_is_a_line_of_the_check(tmp_path: Path) -> None:
    (remark,) = bundle_remarks(settings_of(tmp_path / "nowhere"))
    assert remark.startswith(f"models.folders: '{tmp_path}/nowhere' is no folder that is there; make it first")


@pytest.mark.parametrize("damage", ["cut", "a changed byte"])
def test_weights_that_can_not_be_used_are_told_before_anything_is_computed(
    place: Path, tmp_path: Path, damage: str
) -> None:
    weights = place / NAME / WEIGHTS
    if damage == "cut":
        _cut(weights)
        digest_file(weights).unlink()
    else:
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
    settings = settings_of(place)
    told = {"cut": "the weights can't be loaded", "a changed byte": r"its bytes were changed \(SHA-256 "}
    said = rf"{NAME}/models/model\.onnx: {told[damage]}"
    write_ct_series(chest_phantom(shape=(36, 200, 200), lesions=0).volume, tmp_path / "ct")
    begun: list[Event] = []
    with pytest.raises(BadConfig, match=said):
        run(tmp_path / "ct", tmp_path / "run", RunSettings(settings=settings, progress=begun.append))
    assert not begun and not (tmp_path / "run").exists()


def test_a_network_that_monai_can_not_build_is_told_in_our_words(place: Path) -> None:
    pytest.importorskip("monai", reason="the train extra is not installed")
    from carina.models.verify import verify_network

    (place / NAME / "models" / "model.pt").write_bytes(b"no checkpoint")
    with pytest.raises(BadConfig, match=r"model\.pt: (can't be read|holds)") as error:
        verify_network(find_bundle(NAME, [place]))
    assert "_mode_" not in error.value.message
