"""Import: whoever holds the original weights gets the original results, and what can't be taken is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("monai", reason="the train extra is not installed")

import foreign_packages as fp
from carina.config import Plan, Precision, RuntimeSettings, load_settings
from carina.errors import BadConfig, ModelFailed
from carina.infer.classify import classify
from carina.infer.runtime import open_runtime
from carina.infer.segment import segment
from carina.models.architecture import network_spec
from carina.models.bundle import Bundle, Covid, Lung, load_bundle
from carina.models.foreign import read_package
from carina.models.importing import import_model
from carina.models.recognise import recognised
from carina.models.weights import load_weights, read_checkpoint, trained_network
from carina.volume import Mask, Volume
from carina.volume.files import write_mask, write_volume
from tiny_networks import threshold_bundle

F32 = RuntimeSettings(precision=Precision.F32, threads=2)


def inferer(patch: list[int], overlap: float) -> dict[str, Any]:
    return fp.step("SlidingWindowInferer", roi_size=patch, sw_batch_size=2, overlap=overlap)


def monai_scores(network: torch.nn.Module, steps: Any, patch: list[int], overlap: float, file: Path) -> np.ndarray:
    """MONAI's own inference: its transforms, its sliding window, its network. Scores ``(classes, x, y, z)``."""
    from monai.inferers import sliding_window_inference

    image = fp.monai_steps(steps)({"image": str(file)})["image"].as_tensor()[None].float()
    with torch.no_grad():
        return np.asarray(sliding_window_inference(image, patch, 2, network, overlap=overlap)[0])


def same_mask(volume: Volume, bundle: Bundle, scores: np.ndarray) -> None:
    """Equal to the class of the larger score wherever the scores are not equal but for rounding."""
    got = segment(volume, bundle, open_runtime(bundle, F32), Plan.ORIGINAL).labels
    # LPS (z, y, x) to RAS (x, y, z): x and y turned round.
    turned = got.transpose(2, 1, 0)[::-1, ::-1]
    margin = scores[1] - scores[0]
    assert 0.02 < (margin > 0).mean() < 0.98
    clear = np.abs(margin) > 1e-4 * np.ptp(margin)
    assert clear.mean() > 0.99
    assert np.array_equal(turned[clear], margin[clear] > 0)


LESION = {"name": "SegResNet", "args": {"init_filters": 8, "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1]}}


@pytest.fixture(scope="module")
def lesion(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module, dict[str, Any]]:
    network = fp.lesion_network()
    config = {"pre_transforms": fp.segmentation_steps(-1000, 500), "inferer": inferer([48, 48, 16], 0.6)}
    folder = tmp_path_factory.mktemp("ngc") / "clara_pt_covid19_ct_lesion_segmentation_v1"
    return fp.write_mmar(folder, network, LESION, config), network, config


def test_a_lesion_mmar_gives_monais_masks_and_is_used_by_name(
    lesion: tuple[Path, torch.nn.Module, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from carina.cli.models import models
    from carina.operators.networks import Networks

    folder, network, config = lesion
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    command = ["import", str(folder), "--name", "their-lesion", "--no-trial"]
    result = CliRunner().invoke(models, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert 'models.lesion = "their-lesion"' in result.output
    settings = load_settings(None, {"XDG_DATA_HOME": str(tmp_path), "CARINA_MODELS_LESION": "their-lesion"})
    bundle = Networks(settings).bundle("lesion")
    assert bundle.folder == (tmp_path / "carina" / "models" / "their-lesion").resolve()
    assert not [left for left in bundle.folder.parent.iterdir() if left.name != "their-lesion"]
    restored = trained_network(bundle).state_dict()
    assert all(torch.equal(restored[key], value) for key, value in network.state_dict().items())
    card = bundle.card.read_text()
    assert "For research use only" in card
    assert "as published" in card

    volume = fp.noise_volume((20, 72, 64))
    write_volume(volume, tmp_path / "ct.nii.gz")
    steps = config["pre_transforms"]
    same_mask(volume, bundle, monai_scores(network, steps, [48, 48, 16], 0.6, tmp_path / "ct.nii.gz"))


@pytest.mark.slow
def test_a_lung_mmar_gives_monais_masks(tmp_path: Path) -> None:
    network = fp.lung_network()
    model = {"name": "AHNet", "args": {"psp_block_num": 0, "upsample_mode": "trilinear", "out_channels": 2}}
    steps = fp.segmentation_steps(-1500, 500)
    config = {"pre_transforms": steps, "inferer": inferer([64, 64, 32], 0.25)}
    folder = fp.write_mmar(tmp_path / "clara_pt_covid19_ct_lung_segmentation", network, model, config, wrap="")
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"components": None}))
    bundle = import_model(folder, tmp_path / "models", card=card).bundle
    assert bundle.carina.network == {"kind": "ahnet", "classes": 2, "width": 1.0}
    assert isinstance(bundle.carina, Lung)
    assert (bundle.carina.divisor, bundle.carina.restore) == (32, "nearest")
    volume = fp.noise_volume((36, 72, 64))
    write_volume(volume, tmp_path / "ct.nii.gz")
    same_mask(volume, bundle, monai_scores(network, steps, [64, 64, 32], 0.25, tmp_path / "ct.nii.gz"))


def test_a_classifier_in_a_monai_bundle_gives_monais_probabilities(tmp_path: Path) -> None:
    network = fp.covid_network()
    both = ["image", "lung"]
    steps = [
        fp.step("LoadImaged", keys=both),
        fp.step("EnsureChannelFirstd", keys=both),
        fp.step("Orientationd", keys=both, axcodes="RAS"),
        fp.step("CropForegroundd", keys=["image"], source_key="lung", margin=3),
        fp.step("Resized", keys=["image"], spatial_size=[64, 64, 32], mode="trilinear"),
        fp.step("ScaleIntensityRanged", keys="image", a_min=-1000, a_max=500, b_min=0, b_max=1, clip=True),
    ]
    flat = [{"_target_": one["name"], **one["args"]} for one in steps]
    flat[4]["spatial_size"] = "@size"
    folder = write_bundle_of(
        tmp_path / "their-covid",
        network,
        {
            "size": [64, 64, 32],
            "network_def": {"_target_": "monai.networks.nets.DenseNet121", "spatial_dims": 3, "in_channels": 1},
            "preprocessing": {"_target_": "Compose", "transforms": flat},
        },
        channels={"0": "no", "1": "yes"},
    )
    bundle = import_model(folder, tmp_path / "models").bundle
    spec = bundle.carina
    assert isinstance(spec, Covid)
    assert (spec.task, spec.size, spec.margin_voxels, spec.order) == ("covid", (64, 64, 32), 3, "naturecomm")
    assert spec.labels == {0: "no", 1: "yes"}

    volume = fp.noise_volume((40, 90, 80))
    labels = np.zeros(volume.grid.shape, np.uint8)
    labels[6:33, 12:70, 9:61] = 1
    lung = Mask(labels=labels, grid=volume.grid, names={1: "lung"}, uid=volume.uid)
    write_volume(volume, tmp_path / "ct.nii.gz")
    write_mask(lung, tmp_path / "lung.nii.gz")
    files = {"image": str(tmp_path / "ct.nii.gz"), "lung": str(tmp_path / "lung.nii.gz")}
    image = fp.monai_steps(steps)(files)["image"]
    with torch.no_grad():
        expected = torch.softmax(network(image.as_tensor()[None].float()), 1)[0].numpy()
    got = classify(volume, lung, bundle, open_runtime(bundle, F32))
    assert got["no"] == pytest.approx(float(expected[0]), abs=1e-4)
    assert got["yes"] == pytest.approx(float(expected[1]), abs=1e-4)


def write_bundle_of(
    folder: Path, network: torch.nn.Module | None, config: dict[str, Any], *, channels: dict[str, str]
) -> Path:
    """A MONAI bundle; its configuration as YAML."""
    import yaml

    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    outputs = {"pred": {"channel_def": channels}}
    metadata = {"version": "0.3.1", "task": "CT", "network_data_format": {"inputs": {}, "outputs": outputs}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (folder / "configs" / "inference.yaml").write_text(yaml.safe_dump(config))
    if network is not None:
        torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


def test_a_monai_bundle_is_read_as_data_and_its_code_is_never_run(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    config = {
        "patch": [96, 96, 32],
        "roi": "@patch",
        "trap": f"$open({str(trap)!r}, 'w')",
        "network_def": {"_target_": "SegResNet", "spatial_dims": "$3", "norm": ["GROUP", {"num_groups": 4}]},
        "network": "$@network_def.to(@trap)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Orientationd", "keys": "image", "axcodes": "LPS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 2.0]},
                {"_target_": "ScaleIntensityRanged", "a_min": -900, "a_max": 300, "b_min": 0, "b_max": 1, "clip": True},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "@roi", "overlap": 0.5, "mode": "gaussian"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "Invertd", "keys": "pred", "nearest_interp": False},
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "KeepLargestConnectedComponentd", "keys": "pred"},
            ],
        },
    }  # fmt: skip
    folder = write_bundle_of(tmp_path / "b", None, config, channels={"0": "background", "1": "opacity"})
    (folder / "models" / "model.pt").write_bytes(b"")
    package = read_package(folder)
    spec = network_spec(fp.lesion_network().state_dict(), package.network, "b")
    carina, notes = recognised(package, spec, {})
    assert (spec["groups"], notes) == (4, ())
    expected = {
        "task": "lesion",
        "orientation": "LPS",
        "spacing_mm": [1.0, 1.0, 2.0],
        "window_hu": [-900.0, 300.0],
        "original": {"patch": [96, 96, 32], "overlap": 0.5, "blending": "gaussian"},
        "restore": "linear",
        "components": {"keep": 1, "min_voxels": 0, "min_share": 0.0},
        "divisor": 8,
    }
    assert {key: carina[key] for key in expected} == expected
    assert not trap.exists()
    config["inferer"] = {"_target_": "SlidingWindowInferer", "roi_size": "$@patch + [1]"}
    (folder / "configs" / "inference.yaml").unlink()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    with pytest.raises(BadConfig, match=r"SlidingWindowInferer.roi_size is '\$@patch \+ \[1\]', which is code"):
        recognised(read_package(folder), spec, {})


def test_everything_that_is_missing_is_listed_at_once(tmp_path: Path) -> None:
    folder = write_bundle_of(tmp_path / "b", None, {}, channels={"1": "lung"})
    (folder / "models" / "model.pt").write_bytes(b"")
    with pytest.raises(BadConfig, match=r"does not say: spacing_mm, window_hu, original. Write them into a file"):
        recognised(read_package(folder), {"kind": "ahnet"}, {})
    folder = write_bundle_of(tmp_path / "c", None, {}, channels={"1": "liver"})
    (folder / "models" / "model.pt").write_bytes(b"")
    with pytest.raises(BadConfig, match="task \\(lung, lesion or covid\\)"):
        recognised(read_package(folder), {"kind": "ahnet"}, {})


def test_a_bare_published_mmar_is_filled_from_the_publication_and_says_so(tmp_path: Path) -> None:
    model = {"path": "monai.networks.nets.AHNet", "args": {"psp_block_num": 0, "upsample_mode": "trilinear"}}
    folder = fp.write_mmar(tmp_path / "clara_pt_covid19_ct_lung_segmentation", None, model, {})
    (folder / "models" / "model.pt").write_bytes(b"")
    carina, notes = recognised(read_package(folder), {"kind": "ahnet"}, {"window_hu": [-1024, 600]})
    assert carina["spacing_mm"] == [0.8, 0.8, 5.0]
    assert carina["original"]["patch"] == [224, 224, 32]
    assert carina["window_hu"] == [-1024, 600]
    assert [note.split(" = ")[0] for note in notes] == [
        "spacing_mm",
        "original",
        "restore",
        "components",
        "orientation",
    ]


def test_validation_transforms_may_refer_to_those_of_the_training(tmp_path: Path) -> None:
    folder = fp.write_mmar(tmp_path / "x_lung", None, LESION, {})
    steps = fp.segmentation_steps(-1500, 500)
    referred = [{"ref": one["name"]} for one in steps]
    train = {
        "low": -1400,
        "train": {"model": LESION, "pre_transforms": steps},
        "validate": {"pre_transforms": referred, "inferer": inferer([160, 160, 32], 0.5)},
    }
    steps[4]["args"]["a_min"] = "{low}"
    (folder / "config" / "config_train.json").write_text(json.dumps(train))
    (folder / "models" / "model.pt").write_bytes(b"")
    carina, _ = recognised(read_package(folder), {"kind": "ahnet"}, {})
    assert carina["window_hu"] == [-1400.0, 500.0]
    assert carina["original"]["patch"] == [160, 160, 32]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("down_layers.3.4.conv2.conv.weight"), "missing: down_layers.3.4.conv2.conv.weight"),
        (lambda s: s.update({"fc.weight": torch.zeros(1)}), "not of this network: fc.weight"),
        (
            lambda s: s.update({"conv_final.0.weight": torch.zeros(4)}),
            r"wrong shape: conv_final.0.weight \(4,\), not \(8,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named_by_key(change: Any, words: str) -> None:
    from carina.models.networks import build_network

    state = dict(fp.lesion_network().state_dict())
    spec = network_spec(state, {}, "x")
    change(state)
    with pytest.raises(BadConfig, match=words):
        load_weights(build_network(spec), state, Path("model.pt"))


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"name": "UNet"}, "the description says UNet, the weights belong to SegResNet"),
        ({"name": "SegResNet", "upsample_mode": "deconv"}, "SegResNet with upsample_mode='deconv' is not built here"),
        ({"spatial_dims": 2}, "with spatial_dims=2"),
    ],
)
def test_a_network_that_is_not_built_here_is_refused_by_name(declared: dict[str, Any], words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        network_spec(fp.lesion_network().state_dict(), declared, "x")


def test_an_unknown_state_and_one_without_its_end_are_refused() -> None:
    with pytest.raises(BadConfig, match="no description names the network, the weights belong to none of AHNet"):
        network_spec({"encoder.weight": torch.zeros(1)}, {}, "x")
    state = dict(fp.lesion_network().state_dict())
    del state["conv_final.2.conv.weight"]
    with pytest.raises(BadConfig, match=r"lack conv_final\.2\.conv\.weight, which SegResNet has"):
        network_spec(state, {}, "x")


def test_checkpoints_are_unwrapped_and_objects_are_never_unpickled(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    old = {"module.features.denseblock1.denselayer1.norm1.weight": torch.ones(2)}
    torch.save({"state_dict": {"model": old}, "epoch": 3}, file)
    with pytest.raises(BadConfig, match="holds no state dictionary"):
        read_checkpoint(file)
    torch.save({"state_dict": old, "epoch": 3}, file)
    assert list(read_checkpoint(file)) == ["features.denseblock1.denselayer1.layers.norm1.weight"]
    torch.save({"model": Path("an object")}, file)
    with pytest.raises(BadConfig, match="Carina unpickles no objects"):
        read_checkpoint(file)
    file.write_bytes(b"no checkpoint")
    with pytest.raises(BadConfig, match=r"model\.pt: (can't be read|holds more)"):
        read_checkpoint(file)


def test_of_torchscript_only_the_tensors_are_taken(tmp_path: Path) -> None:
    network = fp.lesion_network()
    torch.jit.trace(network, torch.zeros(1, 1, 16, 16, 8)).save(str(tmp_path / "model.ts"))
    state = read_checkpoint(tmp_path / "model.ts")
    assert state.keys() == network.state_dict().keys()
    assert torch.equal(state["convInit.conv.weight"], network.state_dict()["convInit.conv.weight"])
    (tmp_path / "bad.ts").write_bytes(b"no zip")
    with pytest.raises(BadConfig, match=r"bad\.ts: can't be read as TorchScript"):
        read_checkpoint(tmp_path / "bad.ts")


def onnx_card(folder: Path, **keys: Any) -> Path:
    file = folder / "card.toml"
    lines = {
        "task": '"lung"', "spacing_mm": "[1.0, 1.0, 2.0]", "window_hu": "[-1000, 0]", "labels": '{1 = "lung"}',
        "original": "{patch = [160, 160, 64], overlap = 0.25}", "orientation": '"RAS"', **keys,
    }  # fmt: skip
    table = "\n".join(f"{key} = {value}" for key, value in lines.items())
    file.write_text(f'version = "7.0.0"\nname = "Theirs"\n\n[carina]\n{table}\n')
    return file


def test_an_onnx_file_with_a_card(tmp_path: Path) -> None:
    from carina.evaluate.on_phantom import try_on_phantom

    theirs = threshold_bundle(tmp_path / "made").onnx
    done = import_model(theirs, tmp_path / "models", name="dark", card=onnx_card(tmp_path), trial=try_on_phantom)
    assert (done.bundle.version, done.bundle.title, done.bundle.name) == ("7.0.0", "Theirs", "dark")
    assert done.bundle.onnx.read_bytes() == theirs.read_bytes()
    assert "Dice" in done.trial
    assert max(done.differences.values()) < 1e-5
    again = import_model(done.bundle.folder, tmp_path / "elsewhere", name="copy").bundle
    assert again.carina == done.bundle.carina
    with pytest.raises(BadConfig, match=r"dark is there already; choose another --name"):
        import_model(theirs, tmp_path / "models", name="dark", card=onnx_card(tmp_path))


def test_what_an_onnx_card_gets_wrong_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    theirs = threshold_bundle(tmp_path / "made").onnx
    into = tmp_path / "models"
    with pytest.raises(BadConfig, match=r"this ONNX file does not say: task"):
        import_model(theirs, into, name="x")
    with pytest.raises(BadConfig, match=r"the network gives \(2, 2, .*, expected \(2, 3, .*Correct labels"):
        import_model(theirs, into, name="x", card=onnx_card(tmp_path, labels='{1 = "left", 2 = "right"}'))
    with pytest.raises(BadConfig, match="unknown field `windw`"):
        import_model(theirs, into, name="x", card=onnx_card(tmp_path, windw="[0, 1]"))

    def failing(bundle: Bundle) -> str:
        raise ModelFailed("trial", f"{bundle.name} failed on the phantom")

    with pytest.raises(ModelFailed, match="x failed on the phantom"):
        import_model(theirs, into, name="x", card=onnx_card(tmp_path), trial=failing)
    with pytest.raises(BadConfig, match="can't name a bundle"):
        import_model(theirs, into, name="../x", card=onnx_card(tmp_path))
    assert not list(into.iterdir())


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"is no MONAI bundle .* no Clara Train MMAR .* and no .onnx file"):
        import_model(tmp_path, tmp_path / "models")
    folder = write_bundle_of(tmp_path / "b", None, {}, channels={})
    with pytest.raises(BadConfig, match=r"has no weights; expected one of models/model\.pt"):
        import_model(folder, tmp_path / "models")
    assert load_bundle(threshold_bundle(tmp_path / "ok").folder).name == "ok"
