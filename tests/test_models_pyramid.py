"""MONAI's default AH-Net, with pyramid pooling and transposed convolutions, comes in as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("monai", reason="the train extra is not installed")

import foreign_packages as fp  # noqa: E402
from carina.errors import BadConfig  # noqa: E402
from carina.models.bundle import Segmentation  # noqa: E402
from carina.models.importing import import_model  # noqa: E402
from carina.volume.files import write_volume  # noqa: E402
from test_models_import import inferer, monai_scores, same_mask  # noqa: E402


@pytest.mark.slow
def test_monais_default_ahnet_with_its_pyramid_gives_monais_masks(tmp_path: Path) -> None:
    network = fp.pyramid_network()
    steps = fp.segmentation_steps(-1500, 500)
    config = {"pre_transforms": steps, "inferer": inferer([128, 128, 32], 0.25)}
    model = {"name": "AHNet", "args": {"out_channels": 2}}
    folder = fp.write_mmar(tmp_path / "clara_pt_ct_lung_segmentation", network, model, config, wrap="")
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"components": None}))
    bundle = import_model(folder, tmp_path / "models", card=card).bundle
    assert bundle.carina.network == {
        "kind": "ahnet-pyramid",
        "classes": 2,
        "psp_block_num": 4,
        "upsample_mode": "transpose",
    }
    assert isinstance(bundle.carina, Segmentation)
    assert bundle.carina.divisors == (128, 128, 32)
    volume = fp.noise_volume((32, 128, 128))
    write_volume(volume, tmp_path / "ct.nii.gz")
    same_mask(volume, bundle, monai_scores(network, steps, [128, 128, 32], 0.25, tmp_path / "ct.nii.gz"))


def test_a_window_that_the_pyramid_cant_take_is_refused_with_what_it_takes(tmp_path: Path) -> None:
    network = fp.pyramid_network()
    config = {"pre_transforms": fp.segmentation_steps(-1500, 500), "inferer": inferer([224, 224, 32], 0.25)}
    folder = fp.write_mmar(tmp_path / "clara_pt_ct_lung_segmentation", network, {"name": "AHNet", "args": {}}, config)
    with pytest.raises(BadConfig, match=r"patch \(224, 224, 32\) must be a multiple of divisor \(128, 128, 32\)"):
        import_model(folder, tmp_path / "models")
