"""The training loop: it learns, and it ends in the same place however it is interrupted or shared out."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("monai", reason="the train extra is not installed")

from carina.cases.purpose import Task
from carina.errors import BadConfig
from carina.train import checkpoint
from carina.train.fit import FitContext, Fitted, fit, steps_of
from carina.train.logs import TrainingProgress
from carina.train.losses import HARD, IGNORED
from carina.train.objective import loss_function, rate_at
from carina.train.settings import Arithmetic, Device, Loss, Patch, Schedule, TrainSettings
from carina.train.team import Team, join_team, pick_device  # noqa: F401  the second process takes it from here
from carina.train.validation import _judge, arithmetic_on, autocast, memory_format, score
from waiting import wait_until

SETTINGS = TrainSettings(
    task=Task.LESION,
    name="tiny",
    network={"kind": "segresnet"},
    patches=(Patch(shape=(8, 8, 8), share=0.7), Patch(shape=(16, 8, 8), batch=1, share=0.3)),
    window_hu=(-1000.0, 500.0),
    window=(8, 8, 8),
    rate=2e-2,
    steps=24,
    validate_every=8,
    log_every=3,
    save_every=5,
    average=0.9,
    settle=3,
    device=Device.CPU,
    threads=1,
    tensorboard=False,
)

MASK_LOSSES = [loss for loss in Loss if loss is not Loss.CROSS_ENTROPY_PLACES]
"""Those that take one map of logits; the other's tests are in test_train_guide.py."""


class Bright:
    """Random images whose bright voxels are the foreground; ``pause_s`` makes a training slow enough to kill."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s

    def draw(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(self.pause_s)
        image = rng.random(shape, dtype=np.float32)
        return image, (image > 0.6).astype(np.int64)

    def validation(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        for number in range(3):
            yield f"case-{number}", *self.draw(np.random.default_rng(number), (8, 8, 12))


class Scans(Bright):
    """Bright images are ill."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        ill = rng.random() < 0.5
        return rng.random(shape, dtype=np.float32) * 0.5 + 0.3 * ill, np.asarray(int(ill))


def network(*, norm: bool = True) -> torch.nn.Module:
    """Convolutions, a batch norm, dropout: everything that has a state of its own."""
    torch.manual_seed(3)
    middle = [torch.nn.BatchNorm3d(4), torch.nn.Dropout(0.2)] if norm else []
    return torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), *middle, torch.nn.ReLU(), torch.nn.Conv3d(4, 2, 1))


def changed(**keys: object) -> TrainSettings:
    return msgspec.structs.replace(SETTINGS, **keys)


def curve(out: Path) -> list[list[str]]:
    """The rows of the log without the column of seconds."""
    return [line.split(",")[:-1] for line in (out / "log.csv").read_text().splitlines()]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fitted]:
    out = tmp_path_factory.mktemp("whole")
    return out, fit(network(), Bright(), SETTINGS, out)


def test_it_learns_and_keeps_the_weights_of_the_best_metric(whole: tuple[Path, Fitted]) -> None:
    out, fitted = whole
    rows = [row for row in curve(out)[1:] if row[4]]
    assert [row[0] for row in rows] == ["8", "16", "24"]
    assert curve(out)[0] == ["step", "epoch", "loss", "rate", "dice"]
    best = max(rows, key=lambda row: float(row[4]))
    assert float(best[4]) > 0.8 > float(rows[0][4])
    assert fitted.step == int(best[0]) and fitted.metric == pytest.approx(float(best[4]), abs=1e-6)
    other = network()
    other.load_state_dict(fitted.weights)
    found = score(other, Bright(), SETTINGS, Team())
    assert found and found.metric == fitted.metric and found.cases == fitted.cases
    assert (out / "curves.png").read_bytes()[:4] == b"\x89PNG"


CHILD = """
import sys; from pathlib import Path
sys.path.insert(0, {tests!r})
from test_train_fit import Bright, SETTINGS, fit, network
fit(network(), Bright(0.02), SETTINGS, Path({out!r}))
"""


def train_and_kill(folder: Path, row: str) -> None:
    """Train in a process of its own, and kill it as soon as its log has a row that starts so."""
    code = CHILD.format(tests=str(Path(__file__).parent), out=str(folder))
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    log = folder / "log.csv"
    wait_until(lambda: log.exists() and f"\n{row}" in log.read_text(), child)
    os.killpg(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "the training ended before it could be killed"


def test_a_killed_training_ends_where_a_whole_one_does(whole: tuple[Path, Fitted], tmp_path: Path) -> None:
    train_and_kill(tmp_path, "12,")
    done = checkpoint.read_checkpoint_file(tmp_path / checkpoint.CHECKPOINT)["step"]
    assert 10 <= done < 24
    with (tmp_path / "log.csv").open("a") as file:
        file.write("23,9.9,lost,1,,1\n24,1")
    fitted = fit(network(), Bright(), SETTINGS, tmp_path)
    out, expected = whole
    assert curve(tmp_path) == curve(out)
    assert fitted.step == expected.step and fitted.cases == expected.cases and same(fitted.weights, expected.weights)
    ended, wanted = (checkpoint.read_checkpoint_file(folder / checkpoint.CHECKPOINT) for folder in (tmp_path, out))
    for name in ("network", "averaged"):
        assert same(ended[name], wanted[name])
    assert ended["processes"][0]["random"]["torch"].equal(wanted["processes"][0]["random"]["torch"])


def test_a_finished_training_is_not_trained_again(whole: tuple[Path, Fitted]) -> None:
    out, expected = whole
    before = curve(out)
    assert same(fit(network(), Bright(), SETTINGS, out).weights, expected.weights)
    assert curve(out) == before


def test_workers_change_nothing(whole: tuple[Path, Fitted], tmp_path: Path) -> None:
    fitted = fit(network(), Bright(), changed(workers=2), tmp_path)
    assert same(fitted.weights, whole[1].weights) and curve(tmp_path) == curve(whole[0])


def test_a_training_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(11)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    fit(network().eval(), Bright(), changed(steps=1, workers=0, deterministic=True), tmp_path)
    torch.manual_seed(11)
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()


def test_bfloat16_learns_too(tmp_path: Path) -> None:
    fitted = fit(network(), Bright(), changed(arithmetic=Arithmetic.BF16, workers=0), tmp_path)
    assert fitted.metric is not None and fitted.metric > 0.75


def test_scans_are_chosen_by_auc(tmp_path: Path) -> None:
    settings = changed(
        task=Task.COVID, loss=Loss.CROSS_ENTROPY, patches=(Patch(shape=(4, 4, 4), batch=8),), workers=0, average=0.0
    )
    net = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten())
    fitted = fit(net, _many_scans(), settings, tmp_path)
    assert curve(tmp_path)[0][4] == "auc"
    assert fitted.metric == 1.0 and set(fitted.cases) == {f"scan-{n}" for n in range(12)}


def _many_scans() -> Scans:
    class Many(Scans):
        def validation(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
            for number in range(12):
                yield f"scan-{number}", *self.draw(np.random.default_rng([5, number]), (4, 4, 4))

    return Many()


def test_scans_of_one_class_have_no_auc(tmp_path: Path) -> None:
    class Healthy(Scans):
        def validation(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
            yield "one", np.zeros((4, 4, 4), dtype=np.float32), np.asarray(0)

    net = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten())
    with pytest.raises(BadConfig, match="same label, so there is no AUC; list scans of both classes"):
        score(net, Healthy(), changed(task=Task.COVID), Team())


def test_without_validation_the_last_weights_are_taken(tmp_path: Path) -> None:
    class Unheld(Bright):
        def validation(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
            return iter(())

    fitted = fit(network(), Unheld(), changed(steps=3, workers=0), tmp_path)
    assert fitted.step == 3 and fitted.metric is None and not (tmp_path / checkpoint.BEST).exists()


def test_a_loss_that_is_no_number_stops_the_training(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"loss is no number before step .*; lower `rate`"):
        fit(network(norm=False), Bright(), changed(rate=1e20, clip=0.0, workers=0, average=0.0), tmp_path)


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / checkpoint.CHECKPOINT).write_bytes(b"no checkpoint")
    with pytest.raises(BadConfig, match=r"checkpoint\.pt: no checkpoint of Carina"):
        fit(network(), Bright(), SETTINGS, tmp_path)


def test_what_is_not_saved_yet_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"checkpoint\.pt: nothing is saved there yet; .* save_every"):
        checkpoint.read_checkpoint_file(tmp_path / checkpoint.CHECKPOINT)


def test_progress_tells_the_time_left(tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    fit(network(), Bright(), changed(steps=6, workers=0), tmp_path, FitContext(watch=seen.append))
    assert [one.step for one in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1].seconds_left == 0 and seen[2].seconds_left > 0
    assert seen[-1].loss is not None and seen[-1].metric == seen[-1].best


def test_epochs_count_items_and_processes() -> None:
    settings = changed(steps=0, epochs=10, per_case=2)
    assert steps_of(settings, 7) == (70, 7)
    assert steps_of(settings, 7, processes=2) == (40, 4)
    assert steps_of(changed(steps=5), 7) == (5, 4)


def test_rates() -> None:
    cosine = changed(rate=1.0, scale_rate=True)
    rates = [rate_at(step, 100, cosine) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == pytest.approx(1.0) and rates[-1] < 0.02
    assert rate_at(50, 100, changed(rate=1e-4, scale_rate=True, schedule=Schedule.CONSTANT), processes=4) == 4e-4
    assert rate_at(50, 100, changed(rate=1e-4, schedule=Schedule.CONSTANT), processes=4) == 1e-4


@pytest.mark.parametrize("loss", MASK_LOSSES)
def test_losses_prefer_the_truth_and_take_hard_voxels(loss: Loss) -> None:
    target = torch.tensor([0, 1, HARD, HARD + 1]).reshape(1, 2, 2, 1)
    right = torch.stack([1.0 - target % 2, 1.0 * (target % 2)], dim=1) * 8
    function = loss_function(loss)
    assert float(function(right, target)) < 0.3 < float(function(-right, target))


def test_classes_above_one_stay_what_they_are() -> None:
    target = torch.tensor([0, 1, 2, 2]).reshape(1, 2, 2, 1)
    right = 8 * torch.nn.functional.one_hot(target, 3).permute(0, 4, 1, 2, 3).float()
    for loss in (Loss.DICE, Loss.DICE_CE_SQUARED, Loss.CROSS_ENTROPY):
        assert float(loss_function(loss)(right, target)) < 0.1


def test_ignored_voxels_are_not_judged() -> None:
    target = np.array([1, 0, IGNORED, IGNORED]).reshape(2, 2, 1)
    found = torch.tensor([1.0, 0, 1, 1]).reshape(1, 2, 2, 1)
    logits = torch.stack([1 - found, found], dim=1)
    assert _judge(logits, target, Task.LESION) == (1.0, 0)


@pytest.mark.parametrize("loss", MASK_LOSSES)
def test_ignored_voxels_teach_nothing(loss: Loss) -> None:
    target = torch.tensor([0, 1, 1, IGNORED]).reshape(1, 2, 2, 1)
    logits = torch.linspace(-1, 1, 8).reshape(1, 2, 2, 2, 1).requires_grad_()
    function = loss_function(loss)
    function(logits, target).backward()
    assert logits.grad is not None
    taught = logits.grad.abs().sum(dim=1)
    assert float(taught[target == IGNORED]) == 0 and bool((taught[target != IGNORED] > 0).all())
    nothing = torch.full_like(target, IGNORED)
    assert bool(torch.isfinite(function(logits, nothing)))


def test_hard_voxels_weigh_what_the_settings_say() -> None:
    target = torch.tensor([0, 1, 0, HARD + 1]).reshape(1, 2, 2, 1)
    wrong = torch.stack([target % 2 + 0.0, 1.0 - target % 2], dim=1)
    wrong[..., :1, :, :] = 1 - wrong[..., :1, :, :]  # the upper row, without a hard voxel, is right
    losses = [float(loss_function(Loss.DICE_CE, hard_weight=weight)(wrong, target)) for weight in (1.0, 2.0, 8.0)]
    assert losses[0] < losses[1] < losses[2]
    assert losses[1] == pytest.approx(float(losses_at(wrong, target, 2.0)))


def losses_at(logits: torch.Tensor, target: torch.Tensor, weight: float) -> float:
    """Cross entropy and Dice, voxel by voxel."""
    chance = torch.softmax(logits, dim=1)[0].double().numpy()
    truth = target.numpy()[0]
    weights = np.where(truth >= HARD, weight, 1.0)
    picked = np.take_along_axis(chance, truth[None] % 2, axis=0)[0]
    overlap = 2 * (chance[1] * (truth % 2)).sum() + 10
    return float(-(np.log(picked) * weights).sum() / weights.sum() + 1 - overlap / (chance[1].sum() + 2 + 10))


def with_capability(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: name)


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_a_processor_without_bf16_computes_in_f32(monkeypatch: pytest.MonkeyPatch, capability: str) -> None:
    with_capability(monkeypatch, capability)
    cpu, bf16 = torch.device("cpu"), changed(arithmetic=Arithmetic.BF16)
    expected = {"AVX2": torch.float32, "AVX512": torch.bfloat16}[capability]
    with autocast(bf16, cpu):
        assert torch.nn.Linear(3, 2)(torch.ones(1, 3)).dtype is expected
    assert arithmetic_on(torch.device("cuda"), bf16) is Arithmetic.BF16
    assert arithmetic_on(cpu, SETTINGS) is Arithmetic.F32


def test_group_norm_in_16_bits_is_not_trained_channels_last_on_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    with_capability(monkeypatch, "AVX512")
    cpu, bf16 = torch.device("cpu"), changed(arithmetic=Arithmetic.BF16)
    grouped, other = torch.nn.Sequential(torch.nn.GroupNorm(2, 4)), network()
    assert memory_format(grouped, bf16, cpu) is torch.contiguous_format
    assert memory_format(grouped, SETTINGS, cpu) is torch.channels_last_3d
    assert memory_format(other, bf16, cpu) is torch.channels_last_3d
    assert memory_format(grouped, bf16, torch.device("cuda")) is torch.channels_last_3d


FAULTS = """
import resource, numpy as np
from carina.train.fit import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(4_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first = faults()
keep_freed_memory()
np.ones(4_000_000)
print(first, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep freed memory")
def test_memory_that_a_step_frees_is_kept_for_the_next() -> None:
    said = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=300)
    given_back, kept = map(int, said.stdout.split())
    assert kept * 20 < given_back


def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(BadConfig, match='arithmetic = "f16" needs a GPU'):
        pick_device(changed(arithmetic=Arithmetic.F16))
    if not torch.cuda.is_available():
        with pytest.raises(BadConfig, match="torch sees no GPU"):
            pick_device(changed(device=Device.CUDA))


PROCESS = """
import os, sys; from pathlib import Path
sys.path.insert(0, {tests!r})
from test_train_fit import Bright, FitContext, TWO, fit, join_team, network
with join_team(TWO, os.environ) as team:
    fit(network(norm=False), Bright(), TWO, Path({out!r}), FitContext(team=team))
"""
TWO = changed(
    patches=(Patch(shape=(8, 8, 8), batch=1),), loss=Loss.CROSS_ENTROPY, steps=12, workers=0, clip=1.0, average=0.5
)


def test_two_processes_train_as_one_with_the_same_batch(tmp_path: Path) -> None:
    alone = msgspec.structs.replace(TWO, patches=(Patch(shape=(8, 8, 8), batch=2),))
    expected = fit(network(norm=False), Bright(), alone, tmp_path / "one")
    script = tmp_path / "two.py"
    script.write_text(PROCESS.format(tests=str(Path(__file__).parent), out=str(tmp_path / "two")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    said = subprocess.run(
        command, capture_output=True, text=True, timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert said.returncode == 0, said.stderr
    best = checkpoint.read_checkpoint_file(tmp_path / "two" / checkpoint.BEST)
    assert best["step"] == expected.step and best["metric"] == pytest.approx(expected.metric, abs=1e-3)
    for name, value in expected.weights.items():
        assert torch.allclose(best["weights"][name], value, atol=1e-5)
    with pytest.raises(BadConfig, match="was written by 2 processes, not 1"):
        fit(network(norm=False), Bright(), TWO, tmp_path / "two")
