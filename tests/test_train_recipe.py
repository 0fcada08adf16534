"""Recipes: stages one after the other, each from the one before, resumable, every hash written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the train extra is not installed")

from carina.cases.datalist import write_datalist
from carina.errors import BadConfig
from carina.models.bundle import SHIPPED, Bundle, load_bundle
from carina.train.recipe import load_recipe, recipes, train_recipe
from carina.train.settings import TrainSettings
from carina.train.training import How, train
from data_lists import good_list

TWO = """task = "lesion"

[settings]
name = "tiny"
network = { kind = "segresnet", classes = 2, init_filters = 8, blocks_down = [1, 1], blocks_up = [1], groups = 8 }
source = "synthetic"
window_hu = [-1000.0, 500.0]
patches = [{ shape = [16, 16, 16], batch = 1 }]
window = [32, 32, 16]
steps = 1
validate_every = 1
tensorboard = false

[[stages]]
stage = "first"
seed = 1

[[stages]]
stage = "second"
seed = 2
rate = 1e-4
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    listed = good_list(tmp_path_factory.mktemp("data"), lesions=False)
    write_datalist(listed, listed.file)
    return listed.file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "two.toml"
    path.write_text(TWO, encoding="utf-8")
    return path


def test_every_bundle_that_ships_has_a_recipe_and_its_card_names_the_recipes_hash() -> None:
    by_name = {load_recipe(name).stages[-1][1].name: load_recipe(name) for name in recipes()}
    for folder in (one for one in SHIPPED.iterdir() if one.is_dir()):
        bundle, recipe = load_bundle(folder), by_name[folder.name]
        assert recipe.sha256 in bundle.card.read_text(encoding="utf-8"), folder.name
        assert bundle.carina.network == recipe.stages[-1][1].network


def test_recipes_that_ship_begin_with_random_weights_or_a_bundle_that_ships_so_that_commands_make_each_again() -> None:
    started = {name: load_recipe(name).stages[0][1].init for name in recipes()}
    first_looks = {"lung-first-look": "", "lesion-first-look": "lung-first-look"}
    assert started == {"covid": "", "lesion": "", "lung": "", **first_looks}
    assert load_recipe("lesion-first-look").starts_from == load_bundle(SHIPPED / "lung-first-look").sha256


def test_the_lesion_networks_way_goes_from_group_norms_to_constants_once() -> None:
    norms = [settings.network.get("norm", "group") for _, settings in load_recipe("lesion").stages]
    assert norms == ["group"] * 7 + ["constant"] * 4


def test_each_stage_starts_from_the_one_before_and_the_card_tells_the_way(
    data: Path, file: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(str(file))
    bundle = train_recipe(recipe, data, tmp_path / "out")
    first = load_bundle(tmp_path / "out" / "1-first" / "bundle" / "tiny")
    record = json.loads((tmp_path / "out" / "recipe.json").read_text(encoding="utf-8"))
    assert record["recipe"] == recipe.sha256
    assert record["stages"] == [
        {"stage": "first", "started_from": "random, seed 1", "made": first.sha256},
        {"stage": "second", "started_from": first.sha256, "made": bundle.sha256},
    ]
    card = bundle.card.read_text(encoding="utf-8")
    assert recipe.sha256 in card
    assert first.sha256 in card


def test_what_is_finished_is_not_trained_again(
    data: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(file))
    trained: list[Path] = []

    def broken(list_file: Path, settings: TrainSettings, out: Path, how: How | None = None) -> Bundle | None:
        trained.append(out)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(list_file, settings, out, how)

    monkeypatch.setattr("carina.train.recipe.train", broken)
    with pytest.raises(KeyboardInterrupt):
        train_recipe(recipe, data, tmp_path / "out")
    monkeypatch.setattr("carina.train.recipe.train", train)
    before = (tmp_path / "out" / "1-first" / "bundle" / "tiny" / "models" / "model.onnx").stat().st_mtime_ns
    train_recipe(recipe, data, tmp_path / "out")
    assert (tmp_path / "out" / "1-first" / "bundle" / "tiny" / "models" / "model.onnx").stat().st_mtime_ns == before

    file.write_text(TWO.replace("1e-4", "2e-4"), encoding="utf-8")
    with pytest.raises(BadConfig, match="was begun with another recipe"):
        train_recipe(load_recipe(str(file)), data, tmp_path / "out")


def test_a_start_with_another_hash_is_refused(data: Path, file: Path, tmp_path: Path) -> None:
    started = TWO.replace("seed = 1", 'seed = 1\ninit = "lesion-segresnet"')
    file.write_text(f"starts_from = '{64 * chr(48)}'\n{started}", encoding="utf-8")
    words = r"starts from lesion-segresnet with hash 000000000000, the one here has \w{12}"
    with pytest.raises(BadConfig, match=words):
        train_recipe(load_recipe(str(file)), data, tmp_path / "out")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('task = "lesion"', 'task = "liver"', "task is 'liver', expected one of"),
        ("[settings]", "[setting]", r"unknown: setting; a recipe has task, starts_from"),
        ('stage = "second"', "", "a stage is called None"),
        ("rate = 1e-4", "rate = -1.0", r"rate -1\.0 must be above 0"),
        ("rate = 1e-4", "speed = 1", "stage second: speed unknown"),
    ],
)
def test_what_is_wrong_is_named(file: Path, old: str, new: str, words: str) -> None:
    file.write_text(TWO.replace(old, new), encoding="utf-8")
    with pytest.raises(BadConfig, match=words):
        load_recipe(str(file))


def test_an_unknown_recipe_is_told_the_known_ones() -> None:
    with pytest.raises(
        BadConfig, match="called 'liver'; known: covid, lesion, lesion-first-look, lung, lung-first-look, or a file"
    ):
        load_recipe("liver")
