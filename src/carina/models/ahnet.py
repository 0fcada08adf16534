"""AH-Net: a ResNet-50 whose convolutions see one slice at a time, and a decoder that mixes slices.

After Liu and others, "3D anisotropic hybrid network", MICCAI 2018, without pyramid pooling and with trilinear
upsampling. At full width the state dict has the names and shapes of MONAI's ``AHNet(psp_block_num=0,
upsample_mode="trilinear")``, so its weights load strictly and give the same outputs. Axis order: ``(n, 1, x, y, z)``.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from carina.errors import ModelFailed

DIVISOR = 32
"""Every side is halved five times and doubled back; another side gives maps that don't fit together."""

FLAT = (3, 3, 1)
HALF_FLAT = (2, 2, 1)
HALF_DEEP = (1, 1, 2)


def _conv(inputs: int, outputs: int, kernel: int | tuple[int, int, int] = 1, **keys: Any) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, kernel, bias=False, **keys)


class Bottleneck(nn.Module):
    """A residual block of 1x1x1, 3x3x1 and 1x1x1 convolutions; the first of a stage may halve every side.

    In-plane halving is a stride, halving across slices a maximum of two.
    """

    def __init__(self, inputs: int, planes: int, *, first: bool, halve: bool) -> None:
        super().__init__()
        outputs = 4 * planes
        self.conv1 = _conv(inputs, planes)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = _conv(planes, planes, FLAT, stride=HALF_FLAT if halve else 1, padding=(1, 1, 0))
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3 = _conv(planes, outputs)
        self.bn3 = nn.BatchNorm3d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool3d(HALF_DEEP) if halve else nn.Identity()
        self.downsample = (
            nn.Sequential(
                _conv(inputs, outputs, stride=HALF_FLAT if halve else 1),
                nn.MaxPool3d(HALF_DEEP) if halve else nn.Identity(),
                nn.BatchNorm3d(outputs),
            )
            if first
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, inputs, x, y, z)`` to ``(n, 4 planes, ...)``, each side halved where the block halves."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.pool(self.bn3(self.conv3(out)))
        return self.relu(out + self.downsample(x))


class DenseLayer(nn.Module):
    """Adds ``growth`` feature maps: a 3x3x1 convolution plus a 1x1x3 one that mixes neighbouring slices."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm3d(inputs)
        self.conv1 = _conv(inputs, 4 * growth)
        self.bn2 = nn.BatchNorm3d(4 * growth)
        self.conv2 = _conv(4 * growth, growth, FLAT, padding=(1, 1, 0))
        self.bn3 = nn.BatchNorm3d(growth)
        self.conv3 = _conv(growth, growth, (1, 1, 3), padding=(0, 0, 1))
        self.bn4 = nn.BatchNorm3d(growth)
        self.conv4 = _conv(growth, growth)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Append the new maps to the input's."""
        out = self.conv1(self.relu(self.bn1(x)))
        flat = self.conv2(self.relu(self.bn2(out)))
        deep = self.conv3(self.relu(self.bn3(flat)))
        return torch.cat([x, self.conv4(self.relu(self.bn4(flat + deep)))], dim=1)


def _stage(inputs: int, planes: int, blocks: int, *, halve: bool) -> nn.Sequential:
    """A stage of the encoder."""
    first = Bottleneck(inputs, planes, first=True, halve=halve)
    rest = (Bottleneck(4 * planes, planes, first=False, halve=False) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def _dense(inputs: int, growth: int, layers: int = 3) -> nn.Sequential:
    """A dense block of the decoder."""
    named = ((f"denselayer{i + 1}", DenseLayer(inputs + i * growth, growth)) for i in range(layers))
    return nn.Sequential(OrderedDict(named))


def _project(inputs: int, outputs: int, kernel: tuple[int, int, int] = (1, 1, 1)) -> nn.Sequential:
    """Norm, ReLU, convolution."""
    padding = tuple(k // 2 for k in kernel)
    parts = OrderedDict[str, nn.Module](
        norm=nn.BatchNorm3d(inputs),
        relu=nn.ReLU(inplace=True),
        conv=_conv(inputs, outputs, kernel, padding=padding),
    )
    return nn.Sequential(parts)


class AHNet(nn.Module):
    """AH-Net with ``classes`` outputs; ``width`` scales every channel count (1.0: 27.09 million parameters).

    ``align_corners`` is how maps are doubled. True, as published, stretches them corner to corner, so that what was
    found moves against the image by up to a voxel, depending on its place in the window; False keeps it in place.
    """

    def __init__(self, *, classes: int = 2, width: float = 1.0, align_corners: bool = True) -> None:
        super().__init__()

        def up(inputs: int, outputs: int, kernel: tuple[int, int, int] = (1, 1, 1)) -> nn.Sequential:
            projected = _project(inputs, outputs, kernel)
            projected.add_module("up", nn.Upsample(scale_factor=2, mode="trilinear", align_corners=align_corners))
            return projected

        base = max(8, round(64 * width))
        growth = max(8, round(20 * width))
        self.conv1 = _conv(1, base, (7, 7, 3), stride=HALF_FLAT, padding=(3, 3, 1))
        self.pool1 = nn.MaxPool3d(HALF_DEEP)
        self.bn0 = nn.BatchNorm3d(base)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(3, stride=2, padding=1)
        self.layer1 = _stage(base, base, 3, halve=False)
        self.layer2 = _stage(4 * base, 2 * base, 4, halve=True)
        self.layer3 = _stage(8 * base, 4 * base, 6, halve=True)
        self.layer4 = _stage(16 * base, 8 * base, 3, halve=True)
        added = 3 * growth
        self.up0 = up(32 * base, 16 * base)
        self.dense0 = _dense(16 * base, growth)
        self.up1 = up(16 * base + added, 8 * base)
        self.dense1 = _dense(8 * base, growth)
        self.up2 = up(8 * base + added, 4 * base)
        self.dense2 = _dense(4 * base, growth)
        self.trans1 = _project(4 * base + added, base)
        self.dense3 = _dense(base, growth)
        self.up3 = up(base + added, base)
        self.dense4 = _dense(base, growth)
        self.final = up(base + added, classes, FLAT)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes, x, y, z)`` for ``(n, 1, x, y, z)``.

        Raises:
            ModelFailed: not one channel, or a side that is not a multiple of 32.
        """
        if not torch.jit.is_tracing() and not torch.compiler.is_compiling():
            _check(x)
        early = self.relu(self.bn0(self.pool1(self.conv1(x))))
        pooled = self.maxpool(early)
        one = self.layer1(pooled)
        two = self.layer2(one)
        three = self.layer3(two)
        out = self.dense0(self.up0(self.layer4(three)) + three)
        out = self.dense1(self.up1(out) + two)
        out = self.dense2(self.up2(out) + one)
        out = self.dense3(self.trans1(out) + pooled)
        out = self.dense4(self.up3(out) + early)
        logits: Tensor = self.final(out)
        return logits


def _check(x: Tensor) -> None:
    shape = tuple(x.shape)
    if len(shape) != 5 or shape[1] != 1 or any(side < DIVISOR or side % DIVISOR for side in shape[2:]):
        raise ModelFailed(
            "ahnet.shape",
            f"AH-Net got {shape}; it takes (n, 1, x, y, z) with each side a multiple of {DIVISOR}. Pad it.",
        )
