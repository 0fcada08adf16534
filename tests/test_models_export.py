"""Export: every format gives what the torch network gives; MONAI's own checks and runner take every bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("monai", reason="the train extra is not installed")

from carina.cli.models import FORMATS  # noqa: E402
from carina.errors import BadConfig, ModelFailed  # noqa: E402
from carina.models.bundle import METADATA, SHIPPED, Bundle, find_bundle, load_bundle, write_bundle  # noqa: E402
from carina.models.export import export_onnx  # noqa: E402
from carina.models.formats import Format, bundle_parity, export_bundle  # noqa: E402
from carina.models.monai_config import inference_config  # noqa: E402
from carina.models.networks import build_network  # noqa: E402
from carina.models.verify import METAFORMAT, verify_metadata, verify_network  # noqa: E402
from carina.models.weights import trained_network  # noqa: E402
from carina.models.weights_digest import check_digest  # noqa: E402
from carina.volume import Grid, Volume  # noqa: E402
from carina.volume.files import read_mask, write_volume  # noqa: E402
from tiny_networks import threshold_bundle  # noqa: E402

SHIPPED_NAMES = sorted(folder.name for folder in SHIPPED.iterdir() if folder.is_dir())
NETWORK = {"kind": "segresnet", "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1], "groups": 4}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small SegResNet as training leaves it; its norms are all equal, so the exporter shares them."""
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("tiny")
    export_onnx(build_network(NETWORK), folder / "x.onnx", (32, 32, 16))
    metadata = json.loads((find_bundle("lesion-segresnet").folder / METADATA).read_bytes())
    original = {"patch": [64, 64, 16], "overlap": 0.25}
    changes = {"network": NETWORK, "divisor": 2, "original": original, "crop_to_body": False, "reach": None}
    metadata["carina"] |= changes
    return write_bundle(folder / "tiny", metadata, folder / "x.onnx", card="For research use only.")


def test_the_command_line_knows_every_format() -> None:
    assert tuple(Format) == FORMATS


@pytest.mark.parametrize("form", list(Format))
def test_every_format_gives_what_the_torch_network_gives(form: Format, tiny: Bundle, tmp_path: Path) -> None:
    done = export_bundle(tiny, form, tmp_path / "out")
    assert done.path.exists()
    assert done.against == "torch"
    assert 0 <= max(done.differences.values()) < 1e-4
    with torch.no_grad():
        trained_network(tiny)(torch.zeros(1, 1, 16, 16, 16))
    of_weights = {"monai": {"model.onnx", "model.pt"}, "openvino": {"tiny.bin"}, "onnx": {"tiny.onnx"}}
    of_weights |= {"torchscript": {"tiny.ts"}}
    written = list((tmp_path / "out").rglob("*.sha256"))
    assert {one.stem for one in written} == of_weights.get(form, set()), "Triton's config has the digest in it"
    for one in written:
        check_digest(one.with_suffix(""))


def test_every_weight_is_read_back_by_its_name(tiny: Bundle) -> None:
    torch.manual_seed(5)
    built = build_network(NETWORK).state_dict()
    got = trained_network(tiny).state_dict()
    assert built.keys() == got.keys()
    # Stored as float16 from 1024 elements on.
    assert all(torch.equal(got[k], v.half().float() if v.numel() >= 1024 else v) for k, v in built.items())


def test_a_file_that_gives_something_else_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(tiny.folder, folder)
    state = {key: value.clone() for key, value in trained_network(tiny).state_dict().items()}
    state["conv_final.2.conv.weight"] *= 1.1
    torch.save(state, folder / "models" / "model.pt")
    with pytest.raises(ModelFailed, match=r"onnxruntime differs from the network by .* of its outputs' range"):
        bundle_parity(load_bundle(folder))


def test_a_bundle_without_a_torch_network(tmp_path: Path) -> None:
    bundle = threshold_bundle(tmp_path / "dark")
    done = export_bundle(bundle, Format.OPENVINO, tmp_path)
    assert done.against == "its ONNX file"
    assert max(done.differences.values()) < 1e-5
    with pytest.raises(BadConfig, match=r"names no carina\.network specification|names no carina\.network"):
        export_bundle(bundle, Format.TORCHSCRIPT, tmp_path)


def test_torchscript_carries_the_metadata_as_monai_reads_it(tiny: Bundle, tmp_path: Path) -> None:
    from monai.data import load_net_with_metadata

    path = export_bundle(tiny, Format.TORCHSCRIPT, tmp_path).path
    _, metadata, _ = load_net_with_metadata(str(path))
    assert metadata["carina"]["network"] == NETWORK


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_shipped_bundles_pass_monais_checks(name: str) -> None:
    bundle = find_bundle(name)
    verify_metadata(bundle)
    verify_network(bundle)
    written = json.loads((bundle.folder / "configs" / "inference.json").read_bytes())
    assert written == inference_config(json.loads((bundle.folder / METADATA).read_bytes()))


def test_metadata_that_break_a_rule_are_refused(tiny: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(tiny.folder, folder)
    metadata = json.loads((folder / METADATA).read_bytes())
    del metadata["authors"]
    (folder / METADATA).write_text(json.dumps(metadata))
    with pytest.raises(BadConfig, match="'authors' is a required property"):
        verify_metadata(load_bundle(folder))
    own = tmp_path / "schema.json"
    own.write_text(json.dumps({**METAFORMAT, "required": ["version"]}))
    verify_metadata(load_bundle(folder), own)
    own.write_text("{")
    with pytest.raises(BadConfig, match=r"schema\.json: no JSON schema can be read"):
        verify_metadata(load_bundle(folder), own)


def test_a_network_that_is_not_what_the_metadata_say_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(tiny.folder, folder)
    metadata = json.loads((folder / METADATA).read_bytes())
    metadata["network_data_format"]["outputs"]["pred"]["num_channels"] = 3
    (folder / METADATA).write_text(json.dumps(metadata))
    with pytest.raises(BadConfig, match="output channel number `2` doesn't match: `3`"):
        verify_network(load_bundle(folder))


def test_code_in_a_strange_configuration_is_not_run_unless_trusted(tiny: Bundle, tmp_path: Path) -> None:
    folder, trap = tmp_path / "tiny", tmp_path / "ran"
    shutil.copytree(tiny.folder, folder)
    file = folder / "configs" / "inference.json"
    config = json.loads(file.read_bytes())
    loading = f"__import__('carina.models.weights', fromlist=['x']).load_network({str(tiny.folder)!r})"
    config["network_def"] = f"$open({str(trap)!r}, 'w') and {loading}"
    file.write_text(json.dumps(config))
    with pytest.raises(BadConfig, match="MONAI would run the code in it, so it was not opened"):
        verify_network(load_bundle(folder))
    assert not trap.exists()
    verify_network(load_bundle(folder), trust=True)
    assert trap.exists()


def chest_file(folder: Path) -> Path:
    """A body with two dark boxes, on the networks' grid."""
    hu = np.full((16, 64, 96), 40, dtype=np.int16)
    hu[:, 12:52, 10:40] = hu[:, 12:52, 56:86] = -850
    grid = Grid(shape=hu.shape, spacing_mm=(5.0, 0.8, 0.8), origin_mm=(0.0, 0.0, 0.0))
    write_volume(Volume(hu=hu, grid=grid, uid="1.2"), folder / "ct.nii.gz")
    return folder / "ct.nii.gz"


def test_monai_bundle_run_as_a_program(tiny: Bundle, tmp_path: Path) -> None:
    output = tmp_path / "mask.nii.gz"
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    files: list[Any] = ["--input", chest_file(tmp_path), "--output", output]
    subprocess.run([*command, *map(str, files)], cwd=tiny.folder, check=True, capture_output=True)
    assert read_mask(output).grid.shape == (16, 64, 96)


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_monai_runs_the_shipped_bundles(name: str, tmp_path: Path) -> None:
    from monai.bundle import run

    bundle = find_bundle(name)
    image = chest_file(tmp_path)
    keys = {"input": str(image), "output": str(tmp_path / "out.nii.gz")}
    if bundle.carina.task == "covid":
        labels = np.zeros((16, 64, 96), np.int16)
        labels[2:14, 12:52, 10:86] = 1
        grid = Grid(shape=labels.shape, spacing_mm=(5.0, 0.8, 0.8), origin_mm=(0.0, 0.0, 0.0))
        write_volume(Volume(hu=labels, grid=grid, uid="1.2"), tmp_path / "lung.nii.gz")
        keys |= {"output": str(tmp_path / "out.json"), "lung": str(tmp_path / "lung.nii.gz")}
    run(config_file=str(bundle.folder / "configs" / "inference.json"), bundle_root=str(bundle.folder), **keys)
    if bundle.carina.task == "covid":
        found = json.loads((tmp_path / "out.json").read_text())
        assert found["made_by"] == bundle.made_by
        assert sum(found["probabilities"].values()) == pytest.approx(1)
    else:
        assert read_mask(tmp_path / "out.nii.gz").grid.shape == (16, 64, 96)


def test_the_command_line_checks_exports_and_lists(tiny: Bundle, tmp_path: Path) -> None:
    from carina.cli.models import models

    checked = CliRunner().invoke(models, ["check", str(tiny.folder)], catch_exceptions=False)
    assert "metadata   ok, by MONAI's verify_metadata with the documented mandatory keys" in checked.output
    assert "network    ok" in checked.output
    assert "parity     ok, onnxruntime" in checked.output
    arguments = ["export", str(tiny.folder), "--format", "onnx", "--out", str(tmp_path)]
    exported = CliRunner().invoke(models, arguments, catch_exceptions=False)
    assert f"{tmp_path / 'tiny.onnx'}: onnxruntime" in exported.output
    listed = CliRunner().invoke(models, ["list"], catch_exceptions=False)
    assert all(name in listed.output for name in SHIPPED_NAMES)
