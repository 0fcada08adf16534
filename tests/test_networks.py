"""The networks: ours against MONAI's, and what they refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("monai", reason="the train extra is not installed")

from carina.errors import BadConfig, ModelFailed
from carina.models.ahnet import AHNet
from carina.models.networks import COVID_NETWORK, LESION_NETWORK, LUNG_NETWORK, build_network


def _parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.slow
def test_full_ahnet_equals_monais_with_the_same_weights() -> None:
    from monai.networks.nets import AHNet as Reference

    torch.manual_seed(0)
    reference = Reference(spatial_dims=3, psp_block_num=0, upsample_mode="trilinear", out_channels=2).eval()
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
    ours = AHNet().eval()
    ours.load_state_dict(reference.state_dict(), strict=True)
    inputs = torch.rand(1, 1, 64, 96, 32)
    with torch.no_grad():
        expected, got = reference(inputs), ours(inputs)
    assert _parameters(ours) == _parameters(reference) == pytest.approx(27.09e6, rel=1e-3)
    assert expected.std() > 1e-4
    assert torch.allclose(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 48, 64, 32), (1, 1, 64, 64, 16), (1, 2, 32, 32, 32), (1, 32, 32, 32)])
def test_ahnet_refuses_what_it_cant_take(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelFailed, match="each side a multiple of 32"):
        AHNet(width=0.125)(torch.zeros(shape))


def test_narrow_ahnet_is_small_and_keeps_the_shape() -> None:
    network = build_network(LUNG_NETWORK).eval()
    assert _parameters(network) < 2.5e6
    with torch.no_grad():
        assert network(torch.zeros(2, 1, 32, 64, 32)).shape == (2, 2, 32, 64, 32)


@pytest.mark.parametrize(("keys", "slope"), [({}, 15 / 31), ({"align_corners": False}, 0.5)])
def test_maps_are_stretched_corner_to_corner_or_stay_in_place(keys: dict[str, bool], slope: float) -> None:
    """A ramp over 16 voxels, doubled: in place, every step is half a voxel; stretched, it is less, and places drift."""
    network = build_network({"kind": "ahnet", "width": 0.125, **keys})
    ramp = torch.arange(16.0).reshape(1, 1, 16, 1, 1).expand(1, 1, 16, 2, 2)
    doublings = [module for module in network.modules() if isinstance(module, torch.nn.Upsample)]
    assert len(doublings) == 5
    for doubling in doublings:
        line = doubling(ramp)[0, 0, :, 0, 0]
        assert torch.allclose(line[1:-1].diff(), torch.full((29,), slope), atol=1e-5)


def test_published_sizes() -> None:
    assert _parameters(build_network(LESION_NETWORK)) == pytest.approx(1.18e6, rel=0.01)
    assert _parameters(build_network(COVID_NETWORK)) == pytest.approx(11.25e6, rel=0.01)


def test_an_unknown_network_or_key_is_refused_by_name() -> None:
    with pytest.raises(BadConfig, match="No network is called 'unet'; known are: ahnet, ahnet-pyramid"):
        build_network({"kind": "unet"})
    with pytest.raises(BadConfig, match="depth"):
        build_network({"kind": "ahnet", "depth": 3})
