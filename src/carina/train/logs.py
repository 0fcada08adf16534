"""What a training tells: rows in CSV, TensorBoard and MLflow, curves as a picture, progress for a display."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from carina.errors import BadConfig
from carina.train.settings import TrainSettings
from carina.train.validation import metric_name

LOG = "log.csv"
CURVES = "curves.png"


@dataclass(frozen=True, kw_only=True)
class LogRow:
    """The training after ``step`` steps: mean loss since the row before, learning rate, metric where validated."""

    step: int
    epoch: float
    loss: float
    rate: float
    metric: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """Where a training stands; ``loss`` and ``metric`` are the last ones known, ``best`` is the best metric so far."""

    step: int
    steps: int
    loss: float | None
    metric: float | None
    best: float | None
    metric_name: str
    seconds_left: float


class _Writer(Protocol):
    def row(self, row: LogRow) -> None: ...

    def close(self) -> None: ...


class Logs:
    """Every log of a training; rows after ``step`` steps, left by a run that was killed, are dropped."""

    def __init__(self, out: Path, settings: TrainSettings, step: int) -> None:
        self.out, self.metric = out, metric_name(settings.task)
        self.writers: list[_Writer] = [_Csv(out / LOG, self.metric, step)]
        if settings.tensorboard:
            self.writers.append(_TensorBoard(out / "tensorboard", self.metric, step))
        if settings.mlflow:
            self.writers.append(_Mlflow(out / "mlflow-run.txt", settings, self.metric))

    def row(self, row: LogRow) -> None:
        """Write ``row`` everywhere; draw the curves where there is a metric."""
        for writer in self.writers:
            writer.row(row)
        if row.metric is not None:
            self.draw()

    def draw(self) -> None:
        """Draw the curves anew."""
        draw_curves(self.out / LOG, self.out / CURVES)

    def close(self) -> None:
        """Finish every log."""
        for writer in self.writers:
            writer.close()


class _Csv:
    def __init__(self, path: Path, metric: str, step: int) -> None:
        self.path = path
        header = ["step", "epoch", "loss", "rate", metric, "seconds"]
        kept = [row for row in _rows(path) if int(row[0]) <= step] if path.exists() else []
        part = path.with_suffix(".part")
        with part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *kept])
        part.replace(path)

    def row(self, row: LogRow) -> None:
        metric = "" if row.metric is None else f"{row.metric:.6f}"
        values = (row.step, f"{row.epoch:.3f}", f"{row.loss:.6g}", f"{row.rate:.4g}", metric, f"{row.seconds:.1f}")
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(values)

    def close(self) -> None:
        pass


def _rows(path: Path) -> list[list[str]]:
    """The whole rows below the header; a row cut off by a crash is left out."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.reader(file) if len(row) == 6 and row[0].isdigit()]


class _TensorBoard:
    def __init__(self, folder: Path, metric: str, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise BadConfig(
                "train.tensorboard",
                "tensorboard is not installed: `pip install 'carina-ct[train]'`, or set tensorboard = false.",
            ) from error
        self.metric = metric
        self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def row(self, row: LogRow) -> None:
        for name, value in _scalars(row, self.metric).items():
            self.writer.add_scalar(name, value, row.step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class _Mlflow:
    """One MLflow run for a training, however often it is interrupted; its id is kept in ``file``."""

    def __init__(self, file: Path, settings: TrainSettings, metric: str) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise BadConfig(
                "train.mlflow", "mlflow is not installed: `pip install 'carina-ct[mlflow]'`, or leave mlflow empty."
            ) from error
        self.metric = metric
        try:
            self.client = MlflowClient(tracking_uri=settings.mlflow)
            self.run = file.read_text(encoding="utf-8") if file.is_file() else self._new_run(settings)
        except MlflowException as error:
            raise BadConfig("train.mlflow", f"mlflow = {settings.mlflow!r} can't be used: {error}") from error
        file.write_text(self.run, encoding="utf-8")

    def _new_run(self, settings: TrainSettings) -> str:
        known = self.client.get_experiment_by_name("carina")
        experiment = known.experiment_id if known else self.client.create_experiment("carina")
        run = str(self.client.create_run(experiment, run_name=settings.name).info.run_id)
        for key, value in msgspec.to_builtins(settings).items():
            self.client.log_param(run, key, str(value)[:500])
        return run

    def row(self, row: LogRow) -> None:
        for name, value in _scalars(row, self.metric).items():
            self.client.log_metric(self.run, name, value, step=row.step)

    def close(self) -> None:
        self.client.set_terminated(self.run)


def _scalars(row: LogRow, metric: str) -> dict[str, float]:
    values = {"loss": row.loss, "rate": row.rate}
    return values if row.metric is None else {**values, metric: row.metric}


def draw_curves(log: Path, picture: Path) -> None:
    """Draw loss and metric of the table ``log`` over the steps into the PNG ``picture``."""
    from matplotlib.figure import Figure

    with log.open(newline="", encoding="utf-8") as file:
        metric = next(csv.reader(file))[4]
    rows = _rows(log)
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes: Any = figure.subplots(1, 2)
    axes[0].plot([int(r[0]) for r in rows], [float(r[2]) for r in rows], color="tab:blue")
    measured = [(int(r[0]), float(r[4])) for r in rows if r[4]]
    axes[1].plot([s for s, _ in measured], [v for _, v in measured], color="tab:orange", marker=".")
    axes[1].set_ylim(0, 1)
    for one, name in zip(axes, ("training loss", f"validation {metric}"), strict=True):
        one.set(xlabel="step", title=name)
        one.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)
