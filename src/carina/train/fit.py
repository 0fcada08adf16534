"""The training loop: steps, averaged weights, validation, checkpoints; a resumed run ends where a whole one does."""

from __future__ import annotations

import copy
import ctypes
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from carina.errors import BadConfig
from carina.train.checkpoint import (
    BEST,
    CHECKPOINT,
    TrainingState,
    load_checkpoint,
    random_apart,
    read_checkpoint_file,
    save_checkpoint,
    write_atomically,
)
from carina.train.examples import ExampleSource, to_tensors
from carina.train.guide import Guided, published
from carina.train.logs import LogRow, Logs, TrainingProgress
from carina.train.objective import loss_function, optimiser_of, rate_at
from carina.train.settings import Arithmetic, Loss, TrainSettings
from carina.train.team import Team
from carina.train.validation import Score, autocast, memory_format, metric_name, score

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Options of glibc's mallopt(3)."""

SETTLING = 7919
"""Added to the seed for the examples that the statistics of norms are taken over."""

Watch = Callable[[TrainingProgress], None]


def end_as_interrupted(_: int) -> None:
    """Let a loader's process end quietly where SIGTERM is sent to the whole group, as it does at Ctrl-C.

    The training itself gets the signal too, and ends by it; of one that a signal killed torch tells it as an error.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _silent(_: TrainingProgress) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class FitContext:
    """What surrounds a fit: the training list's number of cases, the processes that share it, who is told.

    ``start`` are the weights that the training began with, needed where ``keep_start`` is above 0.
    """

    cases: int = 1
    start: Mapping[str, Tensor] = field(default_factory=dict)
    team: Team = field(default_factory=Team)
    watch: Watch = _silent


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Weights after ``step`` steps, chosen by ``metric`` (None: no validation), with each case's figure."""

    weights: dict[str, Tensor]
    step: int
    metric: float | None = None
    cases: dict[str, float] = field(default_factory=dict)


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """This process's part of the batch of each step.

    Step ``s`` draws its kind of patch with the generator ``[seed, s]``, example ``i`` of the whole team's batch with
    ``[seed, s, i]``: nothing else matters, neither workers nor interruptions.
    """

    def __init__(self, source: ExampleSource, settings: TrainSettings, steps: range, team: Team) -> None:
        self.source, self.settings, self.steps, self.team = source, settings, steps, team

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of step ``steps[index]``, as `to_tensors` gives them."""
        step, seed, kinds = self.steps[index], self.settings.seed, self.settings.patches
        shares = np.array([kind.share for kind in kinds])
        kind = kinds[int(np.random.default_rng([seed, step]).choice(len(kinds), p=shares / shares.sum()))]
        first = self.team.rank * kind.batch
        drawn = [
            self.source.draw(np.random.default_rng([seed, step, i]), kind.shape[::-1])
            for i in range(first, first + kind.batch)
        ]
        return to_tensors(drawn)


def fresh_inputs(source: ExampleSource, settings: TrainSettings, device: torch.device) -> Iterator[Tensor]:
    """Inputs of ``settings.settle`` batches that no step is shown, the same ones every time: for norms' statistics."""
    fresh = msgspec.structs.replace(settings, seed=settings.seed + SETTLING)
    batches = Batches(source, fresh, range(settings.settle), Team(device=device))
    for index in range(len(batches)):
        yield batches[index][0].to(device)


def steps_of(settings: TrainSettings, cases: int, processes: int = 1) -> tuple[int, int]:
    """Steps of the whole training and of one epoch over ``cases`` training cases."""
    epoch = max(1, math.ceil(cases * settings.per_case / (settings.patches[0].batch * processes)))
    return settings.steps or settings.epochs * epoch, epoch


def fit(
    network: nn.Module,
    source: ExampleSource,
    settings: TrainSettings,
    out: Path,
    context: FitContext | None = None,
) -> Fitted:
    """Train ``network`` on ``source``; resume from ``out/checkpoint.pt`` if it is there.

    Writes ``log.csv``, ``curves.png``, ``checkpoint.pt`` and, chosen by the metric, ``best.pt`` into ``out``.

    Raises:
        BadConfig: the loss is no number any more, or a checkpoint does not fit.
    """
    context = context or FitContext()
    team = context.team
    out.mkdir(parents=True, exist_ok=True)
    with _computing(settings, team), random_apart(settings.seed + team.rank, team.device):
        loop = _Loop(network, source, settings, out, context)
        loop.run(*steps_of(settings, context.cases, team.size), context.watch)
        return loop.fitted()


@contextmanager
def _computing(settings: TrainSettings, team: Team) -> Iterator[None]:
    """Threads and determinism as the settings say; afterwards as they were."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.set_num_threads(settings.threads or threads)
    torch.use_deterministic_algorithms(settings.deterministic or strict, warn_only=team.device.type == "cuda")
    torch.backends.cudnn.benchmark = not settings.deterministic
    if team.device.type == "cpu":
        keep_freed_memory()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        torch.backends.cudnn.benchmark = benchmark


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, where its C library is glibc; elsewhere nothing happens.

    glibc gives large blocks back at once, and a training step on a processor then spends a third of its time faulting
    gigabytes of pages in again (benchmarks/training_step.py).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1):
            mallopt(option, value)


class _Loop:
    def __init__(
        self, network: nn.Module, source: ExampleSource, settings: TrainSettings, out: Path, context: FitContext
    ) -> None:
        self.source, self.settings, self.out = source, settings, out
        self.team, self.start = context.team, context.start
        team = context.team
        if settings.loss is Loss.CROSS_ENTROPY_PLACES:
            network = Guided(network)
        self.format = memory_format(network, settings, team.device)
        network = network.to(team.device, memory_format=self.format)
        self.loss = loss_function(settings.loss, hard_weight=settings.hard_weight, lesion_weight=settings.lesion_weight)
        self.state = TrainingState(
            network=network,
            averaged=copy.deepcopy(network).eval() if settings.average else None,
            optimiser=optimiser_of(network, settings),
            scaler=torch.amp.GradScaler(team.device.type, enabled=settings.arithmetic is Arithmetic.F16),
        )
        if (out / CHECKPOINT).is_file():
            load_checkpoint(out / CHECKPOINT, self.state, team)
        self.model = team.wrap(network)
        self.waiting: list[Tensor] = []
        self.last: tuple[float | None, float | None] = (None, None)

    def run(self, steps: int, epoch: int, watch: Watch) -> None:
        """Do the steps that are left."""
        state, settings = self.state, self.settings
        first, start, before = state.step, time.monotonic(), state.seconds
        logs = Logs(self.out, settings, first) if self.team.leads else None
        validate_every = settings.validate_every * (epoch if settings.epochs else 1)
        for inputs, target in self._batches(range(first, steps)):
            rate = rate_at(state.step, steps, settings, processes=self.team.size)
            self._step(inputs, target, rate)
            state.step += 1
            state.seconds = before + time.monotonic() - start
            validates = state.step % validate_every == 0 or state.step == steps
            if validates or state.step % settings.log_every == 0:
                self._log(self._row(rate, epoch, validates=validates), logs)
            if validates or state.step % settings.save_every == 0:
                self._collect()
                save_checkpoint(self.out / CHECKPOINT, state, self.team)
            watch(self._progress(steps, (time.monotonic() - start) / (state.step - first)))
        if logs:
            logs.close()

    @staticmethod
    def _log(row: LogRow, logs: Logs | None) -> None:
        """Every process makes the row, since validation is shared; the team's leader writes it."""
        if logs:
            logs.row(row)

    def fitted(self) -> Fitted:
        """The best weights by the metric; without validation the last ones."""
        if self.state.best is not None and (self.out / BEST).is_file():
            best = read_checkpoint_file(self.out / BEST)
            return Fitted(weights=best["weights"], step=best["step"], metric=best["metric"], cases=best["cases"])
        return Fitted(weights=_weights(self._settled()), step=self.state.step)

    def _batches(self, steps: range) -> DataLoader[tuple[Tensor, Tensor]]:
        workers = self.settings.workers
        more: dict[str, Any] = {"prefetch_factor": 4} if workers else {}
        return DataLoader(
            Batches(self.source, self.settings, steps, self.team),
            batch_size=None,
            num_workers=workers,
            worker_init_fn=end_as_interrupted,
            generator=torch.Generator(),  # else the loader draws from the network's random numbers
            pin_memory=self.team.device.type == "cuda",
            **more,
        )

    def _step(self, inputs: Tensor, target: Tensor, rate: float) -> None:
        state, device = self.state, self.team.device
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        inputs = inputs.to(device, non_blocking=True).contiguous(memory_format=self.format)
        self.model.train()
        with autocast(self.settings, device):
            logits = self.model(inputs)
        value = self.loss(logits, target.to(device, non_blocking=True))
        state.optimiser.zero_grad(set_to_none=True)
        state.scaler.scale(value).backward()
        if self.settings.clip:
            state.scaler.unscale_(state.optimiser)
            nn.utils.clip_grad_norm_(state.network.parameters(), self.settings.clip)
        state.scaler.step(state.optimiser)
        state.scaler.update()
        self.waiting.append(value.detach())
        if state.averaged is not None:
            done = state.step + 1
            _average(state.averaged, state.network, min(self.settings.average, done / (done + 9)))

    def _collect(self) -> None:
        """Take the losses that wait on the device; a GPU is not stopped for each of them."""
        if self.waiting:
            self.state.recent += torch.stack(self.waiting).tolist()
            self.waiting.clear()
        if not all(map(math.isfinite, self.state.recent)):
            raise BadConfig(
                "train.not_finite",
                f"The loss is no number before step {self.state.step}; lower `rate`, set `clip`, or use f32 or bf16. "
                "The last checkpoint is whole.",
            )

    def _row(self, rate: float, epoch: int, *, validates: bool) -> LogRow:
        state = self.state
        self._collect()
        loss = self.team.mean(torch.tensor(state.recent, device=self.team.device).mean())
        state.recent.clear()
        metric = self._validate() if validates else None
        self.last = (loss, self.last[1] if metric is None else metric)
        return LogRow(
            step=state.step, epoch=state.step / epoch, loss=loss, rate=rate, metric=metric, seconds=state.seconds
        )

    def _validate(self) -> float | None:
        """The metric of the weights that would be published; the best so far are kept."""
        candidate, state = self._settled(), self.state
        found: Score | None = score(candidate, self.source, self.settings, self.team)
        if found is None:
            return None
        if state.best is None or found.metric > state.best:
            state.best = found.metric
            if self.team.leads:
                values = {"weights": _weights(candidate), "step": state.step, "metric": found.metric}
                write_atomically(self.out / BEST, {**values, "cases": found.cases})
        return found.metric

    @torch.no_grad()
    def _settled(self) -> nn.Module:
        """The weights to publish; averaged ones with their batch norms' statistics taken anew over fresh examples."""
        if self.state.averaged is None and not self.settings.keep_start:
            self.team.share(self.state.network)
            return self.state.network.eval()
        candidate = copy.deepcopy(self.state.averaged or self.state.network)
        if self.settings.keep_start:
            _blend(candidate, self.start, self.settings.keep_start)
        if self.settings.settle:
            self._settle(candidate)
        self.team.share(candidate)
        return candidate.eval()

    def _settle(self, candidate: nn.Module) -> None:
        """Take the statistics of batch norms anew."""
        norms = [m for m in candidate.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        candidate.train()
        with autocast(self.settings, self.team.device):
            for inputs in fresh_inputs(self.source, self.settings, self.team.device) if norms else ():
                candidate(inputs.contiguous(memory_format=self.format))

    def _progress(self, steps: int, seconds: float) -> TrainingProgress:
        state = self.state
        loss, metric = self.last
        return TrainingProgress(
            step=state.step,
            steps=steps,
            loss=loss,
            metric=metric,
            best=state.best,
            metric_name=metric_name(self.settings.task),
            seconds_left=seconds * (steps - state.step),
        )


def _weights(network: nn.Module) -> dict[str, Tensor]:
    own = published(network.state_dict())
    return {name: value.detach().cpu().contiguous().clone() for name, value in own.items()}


@torch.no_grad()
def _blend(network: nn.Module, start: Mapping[str, Tensor], keep: float) -> None:
    """Take ``keep`` of each number from the weights of the start, the rest from ``network``, in place."""
    for name, value in published(network.state_dict()).items():
        if value.is_floating_point():
            value.lerp_(start[name].to(value), keep)


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, keep: float) -> None:
    old = [v for v in averaged.state_dict().values() if v.is_floating_point()]
    new = [v for v in network.state_dict().values() if v.is_floating_point()]
    torch._foreach_lerp_(old, new, 1 - keep)
