"""A recipe: the stages that lead to a network's weights, in one file, and one command that goes through them.

Each stage is a training that starts from the weights of the stage before. What is finished is not done again, what was
interrupted resumes, and ``recipe.json`` in the output says for every stage which weights it began with and which it
made, by their hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from carina.cases.purpose import Task
from carina.errors import BadConfig
from carina.models.bundle import Bundle, load_bundle
from carina.pipeline.json_text import read_json
from carina.toml import read_toml
from carina.train import configure
from carina.train.settings import TrainSettings
from carina.train.training import How, init_bundle, train

RECIPES = Path(__file__).parent / "recipes"
RECORD = "recipe.json"


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe file: settings of all stages, and for each stage its name and what it sets apart from them.

    ``starts_from`` is the hash of the bundle that the first stage's ``init`` must name; empty where that stage starts
    from random weights. ``sha256`` is the file's own.
    """

    file: Path
    sha256: str
    task: Task
    starts_from: str
    stages: tuple[tuple[str, TrainSettings], ...]


class StageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A finished stage: hashes of the bundle it started from (``random, seed N`` at the start) and of what it made."""

    stage: str
    started_from: str
    made: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What ``recipe.json`` says: hashes of the recipe and of the data list, and the stages that are finished."""

    recipe: str
    data: str
    stages: tuple[StageRecord, ...] = ()


def recipes() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(file.stem for file in RECIPES.glob("*.toml"))


def load_recipe(name: str, changes: Sequence[str] = ()) -> Recipe:
    """A recipe that ships, by its name, or a file; ``changes`` (``steps=10``) go on top of every stage.

    Raises:
        BadConfig: there is no such recipe, or a key or value of it is unknown or wrong.
    """
    file = RECIPES / f"{name}.toml" if name in recipes() else Path(name)
    if not file.is_file():
        raise BadConfig("recipe.unknown", f"no recipe is called '{name}'; known: {', '.join(recipes())}, or a file.")
    table = read_toml(file, "recipe").table
    shared, listed = table.get("settings", {}), table.get("stages", [])
    _check_keys(file, table)
    if table.get("task") not in set(Task):
        raise BadConfig("recipe.task", f"{file}: task is {table.get('task')!r}, expected one of {', '.join(Task)}.")
    task = Task(table["task"])
    return Recipe(
        file=file,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        task=task,
        starts_from=str(table.get("starts_from", "")),
        stages=tuple(_stage(task, file, shared, one, changes) for one in listed),
    )


def _check_keys(file: Path, table: dict[str, Any]) -> None:
    shared, listed = table.get("settings", {}), table.get("stages", [])
    unknown = sorted(set(table) - {"task", "starts_from", "settings", "stages"})
    are_tables = isinstance(shared, dict) and all(isinstance(one, dict) for one in listed)
    if unknown or not listed or not are_tables:
        seen = f"unknown: {', '.join(unknown)}; " if unknown else ""
        raise BadConfig(
            "recipe.keys", f"{file}: {seen}a recipe has task, starts_from, a table [settings] and tables [[stages]]."
        )


def _stage(
    task: Task, file: Path, shared: dict[str, Any], own: dict[str, Any], changes: Sequence[str]
) -> tuple[str, TrainSettings]:
    name = own.get("stage")
    if not isinstance(name, str) or not name.replace("-", "").isalnum():
        raise BadConfig("recipe.stage", f"{file}: a stage is called {name!r}; expected stage = 'letters-and-digits'.")
    keys = {key: value for key, value in own.items() if key != "stage"}
    return name, configure.from_table(task, {**shared, **keys}, f"{file}, stage {name}", changes)


def train_recipe(recipe: Recipe, data: Path, out: Path, how: How | None = None) -> Bundle:
    """Go through the stages of a recipe in ``out``, or resume there; gives the last stage's bundle.

    Raises:
        BadConfig: ``out`` holds the stages of another recipe or data list, the first stage's start is another bundle,
            or a stage can't be trained (as ``train``).
        ModelFailed: a published file's outputs differ from its network's.
    """
    how = how or How()
    record = _record(recipe, data, out)
    bundle = _start(recipe, how)
    for number, (name, settings) in enumerate(recipe.stages):
        folder = out / f"{number + 1}-{name}"
        started = bundle.sha256 if bundle else f"random, seed {settings.seed}"
        place = folder / "bundle" / settings.name
        if number < len(record.stages):
            bundle = _finished(record.stages[number], place)
            continue
        if bundle:
            settings = msgspec.structs.replace(settings, init=str(bundle.folder))
        notes = how.notes if number == len(recipe.stages) - 1 else ""
        told = _words(recipe, (*record.stages, StageRecord(stage=name, started_from=started, made="this file")))
        train(data, settings, folder, replace(how, notes=f"{told}\n\n{notes}".strip()))
        how.team.gather(None)
        bundle = load_bundle(place)
        made = StageRecord(stage=name, started_from=started, made=bundle.sha256)
        record = msgspec.structs.replace(record, stages=(*record.stages, made))
        if how.team.leads:
            (out / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    if bundle is None:
        raise BadConfig("recipe.stages", f"{recipe.file}: it has no stage.")
    return bundle


def _start(recipe: Recipe, how: How) -> Bundle | None:
    """The bundle that the first stage starts from, which must be the one that the recipe means."""
    init = recipe.stages[0][1].init
    if not init:
        return None
    bundle = init_bundle(init, how.folders)
    if recipe.starts_from and bundle.sha256 != recipe.starts_from:
        raise BadConfig(
            "recipe.start",
            f"{recipe.file}: its first stage starts from {init} with hash {recipe.starts_from[:12]}, the one here has "
            f"{bundle.sha256[:12]}: give the bundle that the recipe means, or correct starts_from.",
        )
    return bundle


def _record(recipe: Recipe, data: Path, out: Path) -> Record:
    """What is finished in ``out``; nothing where it is new."""
    if not data.is_file():
        raise BadConfig("data.missing", f"{data}: no such data list.")
    wanted = Record(recipe=recipe.sha256, data=hashlib.sha256(data.read_bytes()).hexdigest())
    file = out / RECORD
    if not file.is_file():
        return wanted
    try:
        found = read_json(file.read_bytes(), Record)
    except ValueError as error:
        raise BadConfig(
            "recipe.record", f"{file}: is no record of a recipe ({error}); start anew elsewhere."
        ) from error
    for what, was, now in (("recipe", found.recipe, wanted.recipe), ("data list", found.data, wanted.data)):
        if was != now:
            raise BadConfig(
                "recipe.differs", f"{out}: was begun with another {what} ({was[:12]}, now {now[:12]}): start elsewhere."
            )
    return found


def _finished(record: StageRecord, place: Path) -> Bundle:
    bundle = load_bundle(place)
    if bundle.sha256 != record.made:
        raise BadConfig(
            "recipe.changed",
            f"{place}: its hash is {bundle.sha256[:12]}, {RECORD} says {record.made[:12]}: it was changed since; "
            "remove the folders of this stage and of those after it, and their entries, to train them again.",
        )
    return bundle


def _words(recipe: Recipe, stages: Sequence[StageRecord]) -> str:
    """What the card says of the way here."""
    lines = [f"## Stages\nBy the recipe `{recipe.file.name}` (sha256 {recipe.sha256}); hashes are those of bundles."]
    lines += [f"- {one.stage}: from {one.started_from}, made {one.made}." for one in stages]
    return "\n".join(lines)
