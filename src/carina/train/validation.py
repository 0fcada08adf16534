"""The metric that a training reports and chooses its weights by: Dice of whole volumes, or AUC of scans."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from carina.cases.purpose import Task
from carina.errors import BadConfig
from carina.measure.agreement import auc, dice
from carina.train import losses
from carina.train.examples import ExampleSource, to_tensors
from carina.train.settings import Arithmetic, TrainSettings
from carina.train.team import Team

WITHOUT_BF16 = ("DEFAULT", "NO AVX", "AVX2")
"""What torch calls processors on which it computes bf16 in another way: a step takes four to eight times as long."""

AUTOCAST = {Arithmetic.F32: torch.float32, Arithmetic.BF16: torch.bfloat16, Arithmetic.F16: torch.float16}


@dataclass(frozen=True, kw_only=True)
class Score:
    """The metric over the validation cases, and each case's Dice (segmentation) or probability (classification)."""

    metric: float
    cases: dict[str, float] = field(default_factory=dict)


def metric_name(task: Task) -> str:
    """``dice`` or ``auc``."""
    return "auc" if task is Task.COVID else "dice"


def arithmetic_on(device: torch.device, settings: TrainSettings) -> Arithmetic:
    """The arithmetic that the settings ask for; f32 in place of bf16 on a processor that has none."""
    has_none = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in WITHOUT_BF16
    return Arithmetic.F32 if has_none and settings.arithmetic is Arithmetic.BF16 else settings.arithmetic


def autocast(settings: TrainSettings, device: torch.device) -> torch.autocast:
    """The forward pass's arithmetic."""
    dtype = AUTOCAST[arithmetic_on(device, settings)]
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)


def memory_format(network: nn.Module, settings: TrainSettings, device: torch.device) -> torch.memory_format:
    """How the training keeps its arrays: channels last, where that is not slower.

    On a processor torch's group norm in 16 bits takes 30 times as long with channels last: the whole step twice.
    """
    slow = device.type == "cpu" and arithmetic_on(device, settings) is not Arithmetic.F32
    if slow and any(isinstance(module, nn.GroupNorm) for module in network.modules()):
        return torch.contiguous_format
    return torch.channels_last_3d


@torch.inference_mode()
def score(network: nn.Module, source: ExampleSource, settings: TrainSettings, team: Team) -> Score | None:
    """The metric of ``network`` over the source's validation cases, shared out over the team; None without cases.

    Segmentation slides ``settings.window`` over each volume and takes the mean Dice of class 1; classification takes
    the AUC of class 1's probability.

    Raises:
        BadConfig: every validation scan is of one class, so that there is no AUC.
    """
    network.eval()
    mine: dict[str, tuple[float, int]] = {}
    for number, (name, inputs, target) in enumerate(source.validation()):
        if number % team.size == team.rank:
            image, expected = to_tensors([(inputs, target)])
            with autocast(settings, team.device):
                logits = _forward(network, image.to(team.device), settings).float()
            mine[name] = _judge(logits, expected[0].numpy(), settings.task)
    cases = {name: judged for part in team.gather(mine) for name, judged in part.items()}
    if not cases:
        return None
    values = {name: value for name, (value, _) in sorted(cases.items())}
    if settings.task is not Task.COVID:
        return Score(metric=float(np.mean(list(values.values()))), cases=values)
    truth = [cases[name][1] == 1 for name in values]
    if len(set(truth)) < 2:
        raise BadConfig(
            "train.one_class",
            "Every validation scan has the same label, so there is no AUC; list scans of both classes.",
        )
    return Score(metric=auc(list(values.values()), truth).auc, cases=values)


def _forward(network: nn.Module, image: Tensor, settings: TrainSettings) -> Tensor:
    if settings.task is Task.COVID:
        return network(image)
    from monai.inferers import sliding_window_inference

    batch = 1 if image.device.type == "cpu" else 4
    scores: Tensor = sliding_window_inference(image, settings.window, batch, network, overlap=settings.window_overlap)
    return scores


def _judge(logits: Tensor, target: np.ndarray, task: Task) -> tuple[float, int]:
    if task is Task.COVID:
        return float(torch.softmax(logits, dim=1)[0, 1]), int(target)
    counts = target != losses.IGNORED
    found = (logits[0].argmax(dim=0) == 1).cpu().numpy()
    return dice(found & counts, (target % losses.HARD == 1) & counts), 0
