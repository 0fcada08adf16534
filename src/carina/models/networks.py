"""The three networks by their specification. torch and MONAI are imported here, when a network is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from carina.errors import BadConfig

if TYPE_CHECKING:
    from torch import nn

LUNG_NETWORK: Mapping[str, Any] = {"kind": "ahnet", "classes": 2, "width": 0.25}
LESION_NETWORK: Mapping[str, Any] = {
    "kind": "segresnet",
    "classes": 2,
    "init_filters": 8,
    "blocks_down": [1, 2, 2, 4],
    "blocks_up": [1, 1, 1],
    "groups": 8,
}
NORMS = ("group", "constant")
"""Of a SegResNet: the published norm, and `constant_norm.ConstantNorm` in its places."""
COVID_NETWORK: Mapping[str, Any] = {"kind": "densenet121", "classes": 2}


def build_network(spec: Mapping[str, Any]) -> nn.Module:
    """Build the network that ``spec["kind"]`` names (3D, one channel in).

    ``ahnet``, ``segresnet`` and ``densenet121`` are the published three; ``ahnet-pyramid`` is MONAI's AH-Net with
    pyramid pooling or other upsampling, as others may have trained it.

    Raises:
        BadConfig: the kind, or a key of it, is unknown.
    """
    keys = dict(spec)
    kind = keys.pop("kind", None)
    builders: dict[str, Callable[..., nn.Module]] = {
        "ahnet": _ahnet,
        "ahnet-pyramid": _ahnet_pyramid,
        "segresnet": _segresnet,
        "densenet121": _densenet121,
    }
    if not isinstance(kind, str) or kind not in builders:
        raise BadConfig("network.unknown", f"No network is called {kind!r}; known are: {', '.join(sorted(builders))}.")
    try:
        return builders[kind](**keys)
    except TypeError as error:
        raise BadConfig("network.keys", f"Network {kind!r} can't be built from {keys}: {error}.") from error


def _ahnet(*, classes: int = 2, width: float = 1.0, align_corners: bool = True) -> nn.Module:
    from carina.models.ahnet import AHNet

    return AHNet(classes=classes, width=width, align_corners=align_corners)


def _ahnet_pyramid(*, classes: int = 2, psp_block_num: int = 4, upsample_mode: str = "transpose") -> nn.Module:
    from monai.networks.nets import AHNet

    net: nn.Module = AHNet(
        spatial_dims=3, in_channels=1, out_channels=classes, psp_block_num=psp_block_num, upsample_mode=upsample_mode
    )
    return net


def _segresnet(
    *,
    classes: int = 2,
    init_filters: int = 8,
    blocks_down: tuple[int, ...] = (1, 2, 2, 4),
    blocks_up: tuple[int, ...] = (1, 1, 1),
    groups: int = 8,
    norm: str = "group",
) -> nn.Module:
    from monai.networks.nets import SegResNet

    if norm not in NORMS:
        raise BadConfig("network.norm", f"Network 'segresnet' has no norm {norm!r}; known are: {', '.join(NORMS)}.")
    net: nn.Module = SegResNet(
        spatial_dims=3,
        init_filters=init_filters,
        in_channels=1,
        out_channels=classes,
        blocks_down=tuple(blocks_down),
        blocks_up=tuple(blocks_up),
        norm=("GROUP", {"num_groups": groups}),
    )
    if norm == "constant":
        from carina.models.constant_norm import replace_group_norms

        replace_group_norms(net)
    return net


def _densenet121(*, classes: int = 2) -> nn.Module:
    from monai.networks.nets import DenseNet121

    net: nn.Module = DenseNet121(spatial_dims=3, in_channels=1, out_channels=classes)
    return net
