"""Settings of a training: presets, files, single keys, what is refused; and a whole training by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("monai", reason="the train extra is not installed")

from click.testing import CliRunner

import carina
from carina.cases.datalist import DataList, ListedCase, write_datalist
from carina.cases.purpose import Targets, Task
from carina.cli.main import carina as command
from carina.errors import BadConfig
from carina.models.bundle import Bundle, Lesion, load_bundle
from carina.models.lung_rules import Border
from carina.models.networks import build_network
from carina.models.validation import Validation
from carina.train import checkpoint, configure, training
from carina.train.cards import Facts, carina_object, metadata
from carina.train.publish import publish
from carina.train.settings import Arithmetic, Patch, TrainSettings
from carina.volume import Grid, Mask, Volume
from carina.volume.files import write_mask, write_volume

PUBLISHED = {
    "lung-card": (1e-4, 1250, "dice", (224, 224, 32)),
    "lesion-card": (1e-3, 2000, "dice-ce-squared", (224, 224, 32)),
    "lesion-e1260-lr1e-4": (1e-4, 1260, "dice-ce-squared", (224, 224, 32)),
    "lesion-e1260-lr2e-4": (2e-4, 1260, "dice-ce-squared", (224, 224, 32)),
    "lesion-gpu8-lr1e-3": (1e-3, 2000, "dice-ce-squared", (224, 224, 32)),
    "covid-default": (1e-4, 200, "cross-entropy", (192, 192, 64)),
    "covid-naturecomm": (1e-4, 200, "cross-entropy", (192, 192, 64)),
}
PARAMETERS = {"lung": 27.09e6, "lesion": 1.18e6, "covid": 11.25e6}


def load(name: str, *changes: str) -> TrainSettings:
    task, _, preset = name.partition("-")
    return configure.load_train_settings(Task(task), preset=preset, changes=changes)


@pytest.mark.parametrize("name", configure.presets())
def test_every_preset_comes_back_from_its_toml(name: str, tmp_path: Path) -> None:
    settings = load(name)
    file = tmp_path / "settings.toml"
    file.write_text(configure.to_toml(settings))
    assert configure.load_train_settings(settings.task, file=file) == configure.load_saved(file) == settings
    assert configure.differing_settings(settings, configure.load_saved(file)) == []
    assert configure.about(name).endswith(".")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_variants(name: str) -> None:
    settings = load(name)
    rate, epochs, loss, shape = PUBLISHED[name]
    assert (settings.rate, settings.epochs, settings.loss, settings.patches[0].shape) == (rate, epochs, loss, shape)
    assert settings.source is Targets.LABELS and settings.optimiser == "adam" and settings.schedule == "constant"
    with torch.device("meta"):
        network = build_network(settings.network)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(PARAMETERS[name.split("-")[0]], rel=0.005)


def test_every_task_has_a_starter_and_a_smoke_preset_and_published_ones() -> None:
    for task in Task:
        assert {f"{task}-starter", f"{task}-smoke"} < set(configure.presets(task))
    assert set(PUBLISHED) < set(configure.presets())
    assert load("covid-naturecomm").order == "naturecomm" and load("covid-default").order == "default"


def test_keys_change_one_by_one_and_keep_their_kind() -> None:
    settings = load(
        "lesion-starter",
        "augment.flip=0.2",
        "patches.0.batch=3",
        "leave_out=['a']",
        "arithmetic=bf16",
        "network.groups=4",
    )
    assert settings.augment.flip == 0.2 and settings.patches == (Patch(shape=(128, 128, 16), batch=3),)
    assert settings.leave_out == ("a",) and settings.arithmetic is Arithmetic.BF16
    assert settings.network == {**load("lesion-starter").network, "groups": 4}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("augment.flop=1", r"augment\.flop unknown; known are: flip, rotate, "),
        ("patches.0.size=[1]", r"patches\.0\.size unknown; known are: shape, batch, share"),
        ("foo=2", "foo unknown; known are: task, name, network, patches"),
        ("hard_weight=0", "hard_weight 0.0 must be above 0"),
        ("lesion_weight=-1", "lesion_weight -1.0 must be at least 0"),
        ("rate=fast", r"Expected `float`, got `str` - at `\$\.rate`"),
        ("loss=focal", r"Invalid enum value 'focal' - at `\$\.loss`"),
        ("patches.7.batch=1", r"patches\.7\.batch leads nowhere; entries are counted from 0"),
        ("rate", "expected KEY=VALUE, such as augment.flip=0.2"),
        ("window=[224, 224, 30]", "window 224x224x30: segresnet needs sides divisible by 8, 8, 8"),
        ("patches.0.shape=[100, 128, 16]", "patch 100x128x16: segresnet needs sides divisible by 8, 8, 8"),
        ("epochs=3", r"exactly one of steps \(1000\) and epochs \(3\) must be above 0"),
        ("spacing_mm=none", "spacing_mm none must be three lengths above 0"),
        ("fold=5", "fold 5 of folds 0"),
        ("name=a/b", "name 'a/b' must be letters, digits"),
        ("task=lung", "is for the task lung, not lesion"),
    ],
)
def test_what_is_wrong_is_named(change: str, words: str) -> None:
    changes = [change, "folds=4"] if change.startswith("fold=") else [change]
    with pytest.raises(BadConfig, match=words.replace("folds 0", "folds 4")):
        load("lesion-starter", *changes)


def test_ah_net_needs_sides_of_32_and_every_problem_is_told_at_once() -> None:
    with pytest.raises(
        BadConfig, match=r"rate -1\.0 must be above 0; patch 128x128x16: ahnet .* divisible by 32, 32, 32; window"
    ):
        load("lung-starter", "rate=-1.0", "patches.0.shape=[128,128,16]", "window_overlap=2")


def test_an_unknown_preset_is_told_the_known_ones() -> None:
    with pytest.raises(BadConfig, match="No preset of lung is called 'best'; known are: card, smoke, starter"):
        load("lung-best")


def test_a_file_may_start_from_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('like = "card"\nname = "mine"\naugment.flip = 0.3\n')
    settings = configure.load_train_settings(Task.LESION, file=file)
    assert (settings.name, settings.epochs, settings.augment.flip, settings.augment.rot90) == ("mine", 2000, 0.3, 0.1)
    file.write_text("rate = \n")
    with pytest.raises(BadConfig, match=r"mine\.toml: no valid TOML"):
        configure.load_train_settings(Task.LESION, file=file)
    with pytest.raises(BadConfig, match=r"absent\.toml: can't be read"):
        configure.load_train_settings(Task.LESION, file=tmp_path / "absent.toml")


def test_differences_are_named_and_where_it_runs_does_not_matter() -> None:
    old = load("lesion-starter")
    assert configure.differing_settings(old, load("lesion-starter", "threads=8", "workers=4", "device=cpu")) == []
    assert configure.differing_settings(old, load("lesion-starter", "rate=1e-3", "patches.0.batch=4")) == [
        "patches.0.batch: 2, now 4",
        "rate: 0.002, now 0.001",
    ]


def test_the_command_line_lists_and_shows(tmp_path: Path) -> None:
    listed = CliRunner().invoke(command, ["train", "presets"]).output
    assert "lesion  e1260-lr2e-4" in listed and "naturecomm" in listed
    shown = CliRunner().invoke(command, ["train", "covid", "--preset", "default", "--folds", "5", "--show"]).output
    assert 'spacing_mm = "none"' in shown and "folds = 5" in shown and "shape = [192, 192, 64]" in shown
    lacking = CliRunner().invoke(command, ["train", "lung"])
    assert lacking.exit_code == 2 and "Give --data LIST.json and --out FOLDER" in lacking.output


TINY = (
    "network={kind='segresnet', init_filters=2, groups=1, blocks_down=[1,1], blocks_up=[1]}",
    "patches=[{shape=[16,16,8], batch=2}]",
    "window=[32,32,8]",
    "window_overlap=0.0",
    "augment={}",
    "epochs=2",
    "validate_every=1",
    "average=0.5",
    "spacing_mm=[2.0,2.0,4.0]",
    "rate=0.02",
    "log_every=1",
    "workers=0",
    "threads=1",
    "crop_to_body=false",
)


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data list of chests with one bright lesion each."""
    folder = tmp_path_factory.mktemp("data")
    grid = Grid(shape=(12, 40, 40), spacing_mm=(4.0, 2.0, 2.0), origin_mm=(0.0, 0.0, 0.0))
    items = []
    for number in range(4):
        rng = np.random.default_rng(number)
        hu = rng.normal(-850, 20, grid.shape)
        labels = np.zeros(grid.shape, dtype=np.uint8)
        z, y, x = rng.integers(2, 6), *rng.integers(5, 20, 2)
        labels[z : z + 5, y : y + 14, x : x + 14] = 1
        hu[labels > 0] += 800
        hu[:, :3] = 400
        write_volume(Volume(hu=hu.astype(np.int16), grid=grid, uid=f"case-{number}"), folder / f"case-{number}.nii.gz")
        write_mask(
            Mask(labels=labels, grid=grid, names={1: "lesion"}, uid=f"case-{number}"),
            folder / f"case-{number}-lesion.nii.gz",
        )
        items.append(
            ListedCase(image=f"case-{number}.nii.gz", label_image=f"case-{number}-lesion.nii.gz", patient=f"p{number}")
        )
    write_datalist(
        DataList(file=folder / "list.json", training=tuple(items[:3]), validation=(items[3],)), folder / "list.json"
    )
    return folder / "list.json"


def call(*words: str) -> list[str]:
    return ["train", "lesion", "--preset", "card", *(part for change in TINY for part in ("--set", change)), *words]


def lesion_spec(bundle: Bundle) -> Lesion:
    assert isinstance(bundle.carina, Lesion)
    return bundle.carina


def test_a_training_by_the_command_line_ends_in_a_bundle(listed: Path, tmp_path: Path) -> None:
    out, notes = tmp_path / "out", tmp_path / "notes.md"
    notes.write_text("## Weaknesses\n- It is tiny.\n")
    words = call(
        "--data", str(listed), "--out", str(out), "--notes", str(notes), "--version", "0.2.0", "--set", "name=tiny"
    )
    said = CliRunner().invoke(command, words, catch_exceptions=False)
    assert "list.json: no problems; the cache takes about" in said.output
    assert "step 6/6 loss" in said.output and "dice" in said.output and "left" in said.output
    bundle = load_bundle(out / "bundle" / "tiny")
    spec = lesion_spec(bundle)
    found = (bundle.version, spec.task, spec.original.patch, spec.divisor)
    assert found == ("0.2.0", "lesion", (32, 32, 8), 2)
    best = checkpoint.read_checkpoint_file(out / checkpoint.BEST)
    assert bundle.eval_metrics["validation dice"] == pytest.approx(best["metric"], abs=1e-4)
    card = bundle.card.read_text()
    assert carina.RESEARCH_ONLY in card and "3 training and 1 validation cases" in card and "- It is tiny." in card
    assert "rate = 0.02" in card and "| validation Dice, case-3 |" in card and "seed 1" in card
    assert {file.name for file in out.iterdir()} >= {"curves.png", "log.csv", "settings.toml", "tensorboard"}
    assert list((out / "tensorboard").iterdir())

    with pytest.raises(BadConfig, match=r"other settings: rate: 0\.02, now 0\.01\. Resume with its settings\.toml"):
        CliRunner().invoke(command, [*words, "--set", "rate=0.01"], catch_exceptions=False)
    (listed.parent / "other.json").write_text(listed.read_text().replace("p0", "p9"))
    with pytest.raises(BadConfig, match=r"trained on another data list than .*other\.json"):
        training.train(listed.parent / "other.json", configure.load_saved(out / "settings.toml"), out)

    again = CliRunner().invoke(command, ["train", "publish", str(out), "--version", "0.3.0"], catch_exceptions=False)
    assert carina.RESEARCH_ONLY in again.output and load_bundle(out / "bundle" / "tiny").version == "0.3.0"


def test_folds_take_other_patients(listed: Path, tmp_path: Path) -> None:
    held = []
    for fold in (0, 1):
        settings = configure.load_train_settings(
            Task.LESION, preset="card", changes=[*TINY, "folds=2", f"fold={fold}", "tensorboard=false"]
        )
        data = training.open_data(listed, settings)
        held.append({item.patient for item in data.validation})
    assert held[0] | held[1] == {"p0", "p1", "p2", "p3"} and not held[0] & held[1]


def test_bad_data_is_told_before_anything_is_trained(listed: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"training": [{"image": "a.nii.gz"}, {"image": "b.nii.gz"}]}')
    with pytest.raises(BadConfig, match=r"(?s)bad\.json: \d+ problems; nothing was trained.*a\.nii\.gz.*b\.nii\.gz"):
        CliRunner().invoke(
            command, call("--data", str(tmp_path / "bad.json"), "--out", str(tmp_path)), catch_exceptions=False
        )
    assert not (tmp_path / "log.csv").exists()
    said = CliRunner().invoke(command, call("--data", str(listed), "--check"), catch_exceptions=False)
    assert "can be trained on; the cache takes about" in said.output


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """A bundle with random weights, and its network."""
    settings = configure.load_train_settings(Task.LESION, preset="card", changes=[*TINY, "name=start"])
    torch.manual_seed(5)
    network = build_network(settings.network)
    folder = tmp_path_factory.mktemp("start")
    bundle = publish(
        network, settings, Facts(steps=0, data="none"), folder, measure=lambda _: {"dice": np.float64(0.5)}
    )
    return bundle.folder, network


def test_what_was_measured_is_in_card_and_metadata(start: tuple[Path, torch.nn.Module]) -> None:
    said = json.loads((start[0] / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert said["eval_metrics"] == {"dice": 0.5}
    assert "| dice | 0.5 |" in (start[0] / "docs" / "README.md").read_text(encoding="utf-8")


def test_a_new_bundle_says_what_its_training_measured_and_no_more() -> None:
    facts = Facts(steps=5, data="none", metric=0.75, cases={"a": 0.7, "b": 0.8}, trained_on=("c", "d", "e"))
    said = metadata(load("lesion-starter"), facts)["carina"]["validation"]
    validation = msgspec.convert(said, Validation)
    assert validation.trained_on == "synthetic disease in 3 chests" and not validation.calibration
    (test,) = validation.tests
    assert (test.count, test.figures[0].value) == (2, 0.75) and "by which the weights were chosen" in test.data
    assert test.figures[0].metrics == ("validation dice",) and validation.trained_cases == ("c", "d", "e")
    untested = metadata(load("lesion-card"), Facts(steps=0, data="none"))["carina"]["validation"]
    assert msgspec.convert(untested, Validation) == Validation(trained_on="chests with labels")


@pytest.mark.parametrize(("slice_mm", "reach_mm"), [(5.0, 2.5), (1.0, 0.5), (30.0, 10.0)])
def test_lung_bundles_settle_borders_within_half_a_slice(slice_mm: float, reach_mm: float) -> None:
    rule = carina_object(load("lung-starter", f"spacing_mm=[0.8,0.8,{slice_mm}]"))["border"]
    assert msgspec.convert(rule, Border) == Border(hu=-400.0, reach_mm=reach_mm)
    assert "border" not in carina_object(load("lesion-starter"))


@pytest.mark.parametrize("by", ["folder", "name"])
def test_a_bundle_gives_its_weights_to_start_from(start: tuple[Path, torch.nn.Module], by: str) -> None:
    folder, expected = start
    network = build_network(configure.load_train_settings(Task.LESION, preset="card", changes=TINY).network)
    training.start_from(network, str(folder) if by == "folder" else "start", [folder.parent])
    for name, value in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


def test_weights_that_do_not_fit_are_named(start: tuple[Path, torch.nn.Module]) -> None:
    wider = build_network(
        {"kind": "segresnet", "init_filters": 4, "groups": 1, "blocks_down": [1, 1], "blocks_up": [1]}
    )
    with pytest.raises(BadConfig, match=r"wrong shape: .*\(2, .*, not \(4, "):
        training.start_from(wider, str(start[0]))
    with pytest.raises(BadConfig, match="No bundle is called 'nobody'"):
        training.start_from(wider, "nobody")


def test_fine_tuning_begins_where_the_bundle_ended(
    listed: Path, start: tuple[Path, torch.nn.Module], tmp_path: Path
) -> None:
    settings = configure.load_train_settings(
        Task.LESION,
        preset="card",
        changes=[*TINY, f"init={start[0]}", "rate=1e-12", "tensorboard=false", "average=0.0"],
    )
    bundle = training.train(listed, settings, tmp_path)
    assert bundle is not None
    trained = checkpoint.read_checkpoint_file(tmp_path / checkpoint.CHECKPOINT)["network"]
    for name, value in start[1].state_dict().items():
        assert torch.allclose(trained[name], value, atol=1e-6)


def test_two_processes_by_the_command_line(listed: Path, tmp_path: Path) -> None:
    program = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "carina.cli.main",
    ]
    words = call("--data", str(listed), "--out", str(tmp_path / "two"), "--set", "epochs=1", "--set", "name=two")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = subprocess.run([*program, *words], capture_output=True, text=True, timeout=500, env=environment)
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("bundle: ") == 1
    assert load_bundle(tmp_path / "two" / "bundle" / "two").eval_metrics["validation dice"] >= 0


def test_mlflow_holds_the_curve_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the mlflow extra is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from carina.train.logs import LogRow, Logs

    uri = (tmp_path / "runs").as_uri()
    settings = msgspec.structs.replace(load("lesion-smoke"), mlflow=uri, tensorboard=False)
    for step in (1, 2):
        logs = Logs(tmp_path, settings, step - 1)
        logs.row(LogRow(step=step, epoch=1.0, loss=1.0 / step, rate=0.1, metric=0.25 * step, seconds=1.0))
        logs.close()
    client = mlflow.MlflowClient(tracking_uri=uri)
    run = (tmp_path / "mlflow-run.txt").read_text()
    assert [m.value for m in client.get_metric_history(run, "loss")] == [1.0, 0.5]
    assert client.get_run(run).data.metrics["dice"] == 0.5
    assert client.get_run(run).data.params["name"] == "lesion-smoke"


def test_an_mlflow_store_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="the mlflow extra is not installed")
    from carina.train.logs import Logs

    settings = msgspec.structs.replace(load("lesion-smoke"), mlflow="nothing://here", tensorboard=False)
    with pytest.raises(BadConfig, match="mlflow = 'nothing://here' can't be used"):
        Logs(tmp_path, settings, 0)


def test_without_mlflow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from carina.train.logs import Logs

    monkeypatch.setitem(sys.modules, "mlflow", None)
    settings = msgspec.structs.replace(load("lesion-smoke"), mlflow="http://nowhere", tensorboard=False)
    with pytest.raises(BadConfig, match=r"mlflow is not installed: `pip install 'carina-ct\[mlflow\]'`"):
        Logs(tmp_path, settings, 0)
