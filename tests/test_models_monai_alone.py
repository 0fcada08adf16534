"""A bundle exported for MONAI runs by MONAI's own command where there is no Carina, and gives Carina's results."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("monai", reason="the train extra is not installed")
pytest.importorskip("ignite", reason="the test extra is not installed")

import foreign_packages as fp  # noqa: E402
from carina.config import Plan, Precision, RuntimeSettings  # noqa: E402
from carina.infer.classify import classify  # noqa: E402
from carina.infer.runtime import open_runtime  # noqa: E402
from carina.infer.segment import segment  # noqa: E402
from carina.models.bundle import Bundle, find_bundle, load_bundle  # noqa: E402
from carina.models.formats import Format, export_bundle  # noqa: E402
from carina.models.monai_native import native_network  # noqa: E402
from carina.models.networks import COVID_NETWORK, LESION_NETWORK, build_network  # noqa: E402
from carina.volume import Mask  # noqa: E402
from carina.volume.files import read_mask, write_mask, write_volume  # noqa: E402
from test_models_export import tiny  # noqa: E402, F401 - a fixture

F32 = RuntimeSettings(precision=Precision.F32, threads=2)


def run_without_carina(folder: Path, scratch: Path, *arguments: str) -> None:
    """MONAI's command in the bundle's folder, with a package in front of ours that can't be imported."""
    stub = scratch / "stub" / "carina"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text('raise ImportError("there is no Carina here")\n')
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(stub.parent)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.slow
def test_a_segmentation_bundle(tiny: Bundle, tmp_path: Path) -> None:  # noqa: F811
    done = export_bundle(tiny, Format.MONAI, tmp_path / "out")
    volume = fp.noise_volume((20, 72, 64))
    write_volume(volume, tmp_path / "ct.nii.gz")
    run_without_carina(done.path, tmp_path, "--image", str(tmp_path / "ct.nii.gz"), "--output_dir", str(tmp_path / "o"))
    got = read_mask(tmp_path / "o" / "ct_mask.nii.gz").labels > 0
    expected = segment(volume, tiny, open_runtime(tiny, F32), Plan.ORIGINAL).labels > 0
    assert 0 < expected.mean() < 1
    assert (got == expected).mean() > 0.999


@pytest.mark.slow
def test_the_lung_bundle_that_ships_for_which_monai_has_no_class(tmp_path: Path) -> None:
    bundle = find_bundle("lung-ahnet")
    assert native_network(bundle.carina.network) is None
    done = export_bundle(bundle, Format.MONAI, tmp_path / "out")
    assert (done.path / "models" / "model.ts").is_file()
    volume = fp.noise_volume((32, 224, 224))
    write_volume(volume, tmp_path / "ct.nii.gz")
    run_without_carina(done.path, tmp_path, "--image", str(tmp_path / "ct.nii.gz"), "--output_dir", str(tmp_path / "o"))
    assert read_mask(tmp_path / "o" / "ct_mask.nii.gz").labels.shape == volume.hu.shape


@pytest.mark.slow
def test_the_classifier_that_ships(tmp_path: Path) -> None:
    bundle = find_bundle("covid-densenet")
    done = export_bundle(bundle, Format.MONAI, tmp_path / "out")
    volume = fp.noise_volume((24, 72, 64))
    labels = np.zeros(volume.hu.shape, np.uint8)
    labels[4:20, 10:60, 8:56] = 1
    lung = Mask(labels=labels, grid=volume.grid, names={1: "lung"}, uid="1.2.3")
    write_volume(volume, tmp_path / "ct.nii.gz")
    write_mask(lung, tmp_path / "lung.nii.gz")
    files = ("--image", str(tmp_path / "ct.nii.gz"), "--lung", str(tmp_path / "lung.nii.gz"))
    run_without_carina(done.path, tmp_path, *files, "--output_dir", str(tmp_path / "o"))
    (row,) = csv.reader((tmp_path / "o" / "predictions.csv").read_text(encoding="utf-8").splitlines())
    expected = classify(volume, lung, bundle, open_runtime(bundle, F32))
    assert [float(value) for value in row[1:]] == pytest.approx(list(expected.values()), abs=0.02)


@pytest.mark.parametrize("spec", [LESION_NETWORK, COVID_NETWORK])
def test_monais_class_takes_the_weights_and_gives_the_same(spec: dict[str, Any]) -> None:
    described: dict[str, Any] = dict(native_network(spec) or {})
    import monai.networks.nets

    network = getattr(monai.networks.nets, described.pop("_target_"))(**described)
    assert network.state_dict().keys() == build_network(spec).state_dict().keys()


def test_the_exported_folder_is_still_a_bundle_of_carinas(tiny: Bundle, tmp_path: Path) -> None:  # noqa: F811
    done = export_bundle(tiny, Format.MONAI, tmp_path / "out")
    again = load_bundle(done.path)
    assert again.carina == tiny.carina
    assert max(done.differences.values()) < 1e-4
