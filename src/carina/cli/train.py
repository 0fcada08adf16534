"""``carina train``: train a network from a data list, list the presets, publish what was trained."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carina.cli.node import CONFIG, node_settings
from carina.cli.places import PATH, out_option
from carina.cli.terminal import say
from carina.errors import BadConfig

if TYPE_CHECKING:
    from carina.train.logs import TrainingProgress
    from carina.train.settings import TrainSettings

OPTIONS = (
    click.option("--data", type=PATH, help="Data list (JSON)."),
    out_option("Folder for checkpoints, logs and the bundle; the same command resumes in it.", required=False),
    click.option("--preset", default="", help="Start from this preset (default: starter)."),
    click.option("--settings", "file", type=PATH, help="Start from this settings file (TOML)."),
    click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change one key: augment.flip=0.2."),
    click.option("--folds", type=int, help="Pool the list and split it in this many parts, patient by patient ..."),
    click.option("--fold", type=int, help="... and validate on this part, from 0."),
    click.option("--init", help="Fine-tune from this bundle, a name or a folder."),
    click.option("--notes", type=PATH, help="Markdown to put into the card."),
    click.option("--version", default="0.1.0", show_default=True, help="Version of the bundle."),
    CONFIG,
    click.option("--show", is_flag=True, help="Print the settings as TOML and stop."),
    click.option("--check", is_flag=True, help="Check the data, list every problem and stop."),
    click.option("--quiet", is_flag=True, help="No progress display."),
)


@dataclass(frozen=True, kw_only=True)
class Given:
    """The options of a training, by their names."""

    data: Path | None
    out: Path | None
    preset: str
    file: Path | None
    changes: tuple[str, ...]
    folds: int | None
    fold: int | None
    init: str | None
    notes: Path | None
    version: str
    config: Path | None
    show: bool
    check: bool
    quiet: bool

    def all_changes(self) -> list[str]:
        """``--set`` and the options that stand for a key."""
        short = {"folds": self.folds, "fold": self.fold, "init": self.init}
        return [*self.changes, *(f"{key}={value}" for key, value in short.items() if value is not None)]


def _training(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(OPTIONS):
        function = option(function)
    return function


@click.group()
def train() -> None:
    """Train the lung, lesion or COVID-19 network. For research use only. Not for diagnosis.

    Needs the extra `train` (torch, MONAI). On several GPUs:
    torchrun --nproc-per-node N -m carina.cli.main train lung ...
    """


@train.command()
@_training
def lung(**given: Any) -> None:
    """Train a network that finds the lungs."""
    _run("lung", Given(**given))


@train.command()
@_training
def lesion(**given: Any) -> None:
    """Train a network that finds lesions."""
    _run("lesion", Given(**given))


@train.command()
@_training
def covid(**given: Any) -> None:
    """Train a network that classifies scans."""
    _run("covid", Given(**given))


@train.command()
def presets() -> None:
    """List the presets of each task, and the recipes."""
    from carina.train import configure
    from carina.train.recipe import load_recipe, recipes

    for name in configure.presets():
        task, _, preset = name.partition("-")
        say(f"{task:7} {preset:16} {configure.about(name)}")
    for name in recipes():
        say(f"recipe  {name:16} {len(load_recipe(name).stages)} stages: carina train recipe {name}")


@train.command()
@click.argument("name")
@click.option("--data", type=PATH, required=True, help="Data list (JSON).")
@out_option("Folder for the stages and their bundles; the same command resumes in it.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change one key of every stage: steps=10.")
@click.option("--notes", type=PATH, help="Markdown to put into the last stage's card.")
@click.option("--version", default="0.1.0", show_default=True, help="Version of the bundles.")
@CONFIG
@click.option("--quiet", is_flag=True, help="No progress display.")
def recipe(name: str, data: Path, out: Path, changes: tuple[str, ...], **given: Any) -> None:
    """Train by the recipe NAME (lung, lesion, covid, or a file): every stage, each from the one before."""
    from carina.train.recipe import load_recipe, train_recipe
    from carina.train.team import join_team
    from carina.train.training import How

    wanted = load_recipe(name, changes)
    folders = node_settings(given["config"]).models.folders
    warnings.filterwarnings("ignore", module=r"torch|monai")
    first = wanted.stages[0][1]
    with join_team(first, os.environ) as team, _display(quiet=given["quiet"] or not team.leads) as watch:
        notes = _text(given["notes"])
        how = How(team=team, watch=watch, tell=_tell, folders=folders, version=given["version"], notes=notes)
        bundle = train_recipe(wanted, data, out, how)
    _told(bundle.folder)


@train.command()
@click.argument("folder", type=PATH)
@click.option("--notes", type=PATH, help="Markdown to put into the card.")
@click.option("--version", default="0.1.0", show_default=True, help="Version of the bundle.")
def publish(folder: Path, notes: Path | None, version: str) -> None:
    """Publish what a training in FOLDER has reached so far as FOLDER/bundle/NAME."""
    from carina.train.training import How, publish_folder

    _told(publish_folder(folder, How(version=version, notes=_text(notes))).folder)


def _run(task: str, given: Given) -> None:
    from carina.cases.purpose import Task
    from carina.train.configure import load_train_settings, to_toml

    settings = load_train_settings(Task(task), preset=given.preset, file=given.file, changes=given.all_changes())
    if given.show:
        say(*to_toml(settings).splitlines())
        return
    if given.data is None or (given.out is None and not given.check):
        raise click.UsageError("Give --data LIST.json and --out FOLDER; --show prints the settings.")
    if given.check or given.out is None:
        _check(given.data, settings)
    else:
        _train(given.data, given.out, settings, given)


def _check(data: Path, settings: TrainSettings) -> None:
    from carina.train.training import checked, open_data

    report = checked(open_data(data, settings), settings)
    for warning in report.warnings:
        say(f"warning: {warning}")
    say(f"{data}: can be trained on; the cache takes about {report.cache_mb:.0f} MB.")


def _train(data: Path, out: Path, settings: TrainSettings, given: Given) -> None:
    from carina.train.team import join_team
    from carina.train.training import How, train

    folders = node_settings(given.config).models.folders
    warnings.filterwarnings("ignore", module=r"torch|monai")
    with join_team(settings, os.environ) as team, _display(quiet=given.quiet or not team.leads) as watch:
        how = How(team=team, watch=watch, tell=_tell, folders=folders, version=given.version, notes=_text(given.notes))
        bundle = train(data, settings, out, how)
    if bundle:
        _told(bundle.folder)


def _tell(words: str) -> None:
    say(words, err=True)


def _told(folder: Path) -> None:
    import carina

    say(f"bundle: {folder}; its card: {folder / 'docs' / 'README.md'}", carina.RESEARCH_ONLY)


def _text(file: Path | None) -> str:
    try:
        return file.read_text(encoding="utf-8") if file else ""
    except OSError as error:
        raise BadConfig("train.notes", f"{file}: can't be read ({error.strerror}).") from error


@contextmanager
def _display(*, quiet: bool) -> Iterator[Callable[[TrainingProgress], None]]:
    """A line on the error stream that shows steps, loss, metric and time left; plain lines where nobody looks."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if quiet:
        yield lambda _: None
    elif not console.is_terminal:
        yield _line
    else:
        text = "{task.completed}/{task.total} {task.fields[words]}"
        with Bars(TextColumn("training"), BarColumn(24), TextColumn(text), console=console) as bars:
            task = bars.add_task("training", total=None, words="")

            def show(at: TrainingProgress) -> None:
                bars.update(task, total=at.steps, completed=at.step, words=_words(at))

            yield show


def _line(at: TrainingProgress) -> None:
    """About twenty lines in all."""
    if at.step == at.steps or at.step % max(1, at.steps // 20) == 0:
        say(f"step {at.step}/{at.steps} {_words(at)}", err=True)


def _words(at: TrainingProgress) -> str:
    words = "" if at.loss is None else f"loss {at.loss:.4f} "
    if at.metric is not None and at.best is not None:
        words += f"{at.metric_name} {at.metric:.4f} (best {at.best:.4f}) "
    minutes, seconds = divmod(int(at.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{words}{hours}:{minutes:02}:{seconds:02} left"
