"""A classifier that is told, while it trains, not only whether there is disease but where.

One bit for a whole chest teaches little: the disease drawn into it is known voxel by voxel. Small heads on maps inside
the network (deep supervision; Lee and others, 2015) have to name the share of each cell that is disease. They are
left out of what is published.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from carina.train.losses import HARD, IGNORED

BLOCKS = ("denseblock2", "denseblock3")
"""The blocks of MONAI's DenseNet that are told: their maps are an eighth and a sixteenth of the input's sides."""

_INNER, _HEADS = "classifier.", "heads."

Told = tuple[Tensor, list[Tensor]]
"""The scan's logits ``(n, 2)``, and of each block the logits ``(n, 1, x, y, z)`` of the share of disease."""


class Guided(nn.Module):
    """A DenseNet with a head beside each of `BLOCKS`; in evaluation, the DenseNet alone."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        features = dict(classifier.features.named_children())
        self.heads = nn.ModuleDict({name: _head(_channels(features, name)) for name in BLOCKS})

    def forward(self, image: Tensor) -> Tensor | Told:
        """Logits of ``image`` ``(n, 1, x, y, z)``; in training with what the heads say."""
        if not self.training:
            logits: Tensor = self.classifier(image)
            return logits
        told, maps = [], image
        for name, layer in self.classifier.features.named_children():
            maps = layer(maps)
            if name in BLOCKS:
                told.append(self.heads[name](maps))
        return self.classifier.class_layers(maps), told


def _head(channels: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm3d(channels), nn.ReLU(), nn.Conv3d(channels, 1, 1))


def _channels(features: Mapping[str, nn.Module], block: str) -> int:
    """The channels of a block's map: those that the next transition's norm takes."""
    norm = next(iter(features[block.replace("denseblock", "transition")].children()))
    return int(norm.num_features)


def published(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The classifier's own weights out of a `Guided` one's; other weights as they are."""
    if not any(name.startswith(_HEADS) for name in weights):
        return weights
    return {name.removeprefix(_INNER): value for name, value in weights.items() if name.startswith(_INNER)}


def places(told: Told, target: Tensor) -> Tensor:
    """Cross entropy of the scans' classes, plus that of the share of disease in each cell of each block's map.

    ``target`` ``(n, x, y, z)`` is 1 where there is disease; what is `losses.IGNORED` counts nowhere.
    """
    logits, maps = told
    disease = (target % HARD == 1).float()
    counted = (target != IGNORED).float()
    loss = functional.cross_entropy(logits.float(), disease.flatten(1).any(dim=1).long())
    for one in maps:
        weight = functional.adaptive_avg_pool3d(counted[:, None], one.shape[2:])
        share = functional.adaptive_avg_pool3d(disease[:, None], one.shape[2:]) / weight.clamp(min=1e-6)
        entropy = functional.binary_cross_entropy_with_logits(one.float(), share.clamp(max=1.0), reduction="none")
        loss = loss + (entropy * weight).sum() / weight.sum().clamp(min=1.0)
    return loss
