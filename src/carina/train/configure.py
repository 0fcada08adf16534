"""From a preset, a settings file and single keys to the settings of a training, and back to TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from carina.cases.purpose import Targets, Task
from carina.errors import BadConfig
from carina.models.architecture import divisors
from carina.toml import read_toml
from carina.train.settings import Augment, Loss, Patch, TrainSettings

PRESETS = Path(__file__).parent / "presets"

FREE = frozenset({"device", "threads", "workers", "cache_mb", "cache_rate", "tensorboard", "mlflow"})
"""Keys that may change when a training resumes: they say where it runs and what it tells, not what is learnt."""

NONE = "none"
"""What TOML, which has no null, says for ``spacing_mm`` None."""


def presets(task: Task | None = None) -> list[str]:
    """Names of the presets (``lesion-card``), of one task or of all, sorted."""
    names = sorted(file.stem for file in PRESETS.glob("*.toml"))
    return [name for name in names if task is None or name.startswith(f"{task}-")]


def about(name: str) -> str:
    """What the preset ``name`` says of itself in its first line."""
    with (PRESETS / f"{name}.toml").open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def load_train_settings(
    task: Task, *, preset: str = "", file: Path | None = None, changes: Sequence[str] = ()
) -> TrainSettings:
    """The settings of a training: a preset (``card``) or a file, with ``changes`` (``augment.flip=0.2``) on top.

    A file may say ``like = "card"`` to start from a preset. Without a preset and a file: ``starter``.

    Raises:
        BadConfig: a file can't be read, or a key or value is unknown or wrong; every such key is named.
    """
    if preset and file:
        raise BadConfig("train.settings", 'Give either a preset or a settings file; a file may say like = "PRESET".')
    table = _read(task, file) if file else _preset(task, preset or "starter")
    return from_table(task, table, str(file or f"preset {preset or 'starter'}"), changes)


def from_table(task: Task, table: dict[str, Any], where: str, changes: Sequence[str] = ()) -> TrainSettings:
    """The settings that a table of keys says, with ``changes`` on top; ``where`` it stands is named in messages.

    Raises:
        BadConfig: a key or value is unknown or wrong; every such key is named.
    """
    for change in changes:
        _change(table, change)
    table.setdefault("task", str(task))
    settings = _converted(table, where)
    if settings.task is not task:
        raise BadConfig("train.settings", f"{where} is for the task {settings.task}, not {task}.")
    check_settings(settings)
    return settings


def load_saved(file: Path) -> TrainSettings:
    """The settings that `to_toml` wrote to ``file``.

    Raises:
        BadConfig: as `load_train_settings`.
    """
    return _converted(read_toml(file, "train").table, str(file))


def to_toml(settings: TrainSettings) -> str:
    """The settings as TOML that `load_train_settings` reads back to the same value."""
    import tomli_w

    table = msgspec.to_builtins(settings)
    if table["spacing_mm"] is None:
        table["spacing_mm"] = NONE
    return re.sub(r"\[\n((?: +[^\n\[{]+,\n)+)\]", _one_line, tomli_w.dumps(table))


def _one_line(array: re.Match[str]) -> str:
    return "[" + ", ".join(line.strip().rstrip(",") for line in array[1].splitlines()) + "]"


def differing_settings(old: TrainSettings, new: TrainSettings) -> list[str]:
    """``key: old, now new`` for every key that differs and matters for what is learnt."""
    before, now = (_flat(msgspec.to_builtins(settings)) for settings in (old, new))
    keys = [key for key in {**before, **now} if key.split(".")[0] not in FREE]
    return [f"{key}: {before.get(key)}, now {now.get(key)}" for key in keys if before.get(key) != now.get(key)]


def check_settings(settings: TrainSettings) -> None:
    """Refuse settings that can't be trained with; every problem is named at once.

    Raises:
        BadConfig: something is wrong.
    """
    problems = [words for find in _PROBLEMS for words in find(settings)]
    if problems:
        raise BadConfig("train.settings", f"Settings {settings.name!r}: " + "; ".join(problems) + ".")


def _length_problems(s: TrainSettings) -> Iterator[str]:
    if (s.steps > 0) == (s.epochs > 0):
        yield f"exactly one of steps ({s.steps}) and epochs ({s.epochs}) must be above 0"
    for key in ("validate_every", "log_every", "save_every", "per_case"):
        if getattr(s, key) < 1:
            yield f"{key} {getattr(s, key)} must be at least 1"
    if s.settle < 1 and s.network.get("norm") == "constant":
        yield f"settle {s.settle} must be at least 1: constant norms take their constants over so many batches"
    if s.folds and not (s.folds >= 2 and 0 <= s.fold < s.folds):
        yield f"fold {s.fold} of folds {s.folds}: folds must be at least 2, and fold from 0 to folds - 1"


def _rate_problems(s: TrainSettings) -> Iterator[str]:
    for key in ("average", "keep_start"):
        if not 0 <= getattr(s, key) < 1:
            yield f"{key} {getattr(s, key)} must be at least 0 and below 1"
    if s.lesion_weight < 0 or (s.lesion_weight and s.loss is not Loss.DICE_CE):
        yield f"lesion_weight {s.lesion_weight} must be at least 0, and above 0 with the loss dice-ce only"
    if not 0 <= s.cache_rate <= 1:
        yield f"cache_rate {s.cache_rate} must lie between 0 and 1"
    for key in ("rate", "hard_weight"):
        if getattr(s, key) <= 0:
            yield f"{key} {getattr(s, key)} must be above 0"


def _shape_problems(s: TrainSettings) -> Iterator[str]:
    if not s.patches or any(patch.share <= 0 or patch.batch < 1 for patch in s.patches):
        yield "patches must name one kind or more, each with a share above 0 and a batch of at least 1"
    yield from (words for patch in s.patches for words in _side_problems("patch", patch.shape, s))
    if not 0 <= s.window_overlap <= 0.9:
        yield f"window_overlap {s.window_overlap} must lie between 0 and 0.9"


def _window_problems(s: TrainSettings) -> Iterator[str]:
    """Of the window, and of the grid that a segmentation network's window slides over."""
    if s.task is Task.COVID:
        return
    yield from _side_problems("window", s.window, s)
    if s.spacing_mm is None or min(s.spacing_mm) <= 0:
        yield f"spacing_mm {s.spacing_mm or NONE} must be three lengths above 0: the bundle's grid"


def _side_problems(name: str, shape: tuple[int, int, int], s: TrainSettings) -> Iterator[str]:
    sides, kind = divisors(s.network), s.network.get("kind")
    if min(shape) < 1 or any(side % number for side, number in zip(shape, sides, strict=True)):
        yield f"{name} {'x'.join(map(str, shape))}: {kind} needs sides divisible by {', '.join(map(str, sides))}"


def _task_problems(s: TrainSettings) -> Iterator[str]:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", s.name):
        yield f"name {s.name!r} must be letters, digits, dots, dashes: it names the bundle's folder"
    if not s.window_hu[0] < s.window_hu[1]:
        yield f"window_hu {s.window_hu} must grow"
    if s.order not in ("default", "naturecomm"):
        yield f"order {s.order!r} must be default or naturecomm"
    classifies = s.task is Task.COVID
    if classifies and len({patch.shape for patch in s.patches}) > 1:
        yield "patches of different shapes: the classifier has one input size"
    if classifies != (s.network.get("kind") == "densenet121"):
        yield f"network {s.network.get('kind')} does not suit {s.task}: covid takes densenet121, the others a U-shape"


def _loss_problems(s: TrainSettings) -> Iterator[str]:
    classifies = s.task is Task.COVID
    places = s.loss is Loss.CROSS_ENTROPY_PLACES
    suits = classifies == (places or s.loss is Loss.CROSS_ENTROPY)
    if not suits and (classifies or s.source is Targets.SYNTHETIC):
        yield (
            f"loss {s.loss} does not suit {s.task}: classification takes cross-entropy or cross-entropy-places, "
            "synthetic masks a Dice"
        )
    if places and s.source is not Targets.SYNTHETIC:
        yield f"loss {s.loss} with source {s.source}: it needs source synthetic, where the place of disease is known"


_PROBLEMS = (_length_problems, _rate_problems, _shape_problems, _window_problems, _task_problems, _loss_problems)


def _preset(task: Task, name: str) -> dict[str, Any]:
    known = [one.removeprefix(f"{task}-") for one in presets(task)]
    name = name.removeprefix(f"{task}-")
    if name not in known:
        raise BadConfig("train.preset", f"No preset of {task} is called {name!r}; known are: {', '.join(known)}.")
    return _read(task, PRESETS / f"{task}-{name}.toml")


def _converted(table: dict[str, Any], where: str) -> TrainSettings:
    unknown = list(_unknown(table))
    if unknown:
        raise BadConfig("train.unknown_key", f"{where}: " + " ".join(unknown))
    if table.get("spacing_mm") == NONE:
        table["spacing_mm"] = None
    try:
        return msgspec.convert(table, TrainSettings, strict=False)
    except msgspec.ValidationError as error:
        raise BadConfig("train.settings", f"{where}: {error}. docs/training.md lists the keys.") from error


def _read(task: Task, file: Path) -> dict[str, Any]:
    table = read_toml(file, "train").table
    like = table.pop("like", None)
    return _merged(_preset(task, str(like)), table) if like else table


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``, table by table; ``network`` is replaced as a whole."""
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict) and key != "network":
            _merged(below[key], value)
        else:
            below[key] = value
    return below


def _change(table: dict[str, Any], change: str) -> None:
    path, mark, text = change.partition("=")
    if not mark or not path:
        raise BadConfig("train.set", f"--set {change}: expected KEY=VALUE, such as augment.flip=0.2.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text
    place: Any = table
    *way, last = path.strip().split(".")
    try:
        for key in way:
            place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
        place[int(last) if isinstance(place, list) else last] = value
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise BadConfig("train.set", f"--set {change}: {path} leads nowhere; entries are counted from 0.") from error


def _unknown(table: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each key that no setting has."""
    places: list[tuple[str, type, Any]] = [("", TrainSettings, table), ("augment.", Augment, table.get("augment"))]
    patches = table.get("patches")
    places += [(f"patches.{n}.", Patch, one) for n, one in enumerate(patches if isinstance(patches, list) else [])]
    for prefix, kind, part in places:
        known = kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else ()
        wrong = sorted(set(part) - set(known)) if isinstance(part, Mapping) else []
        if wrong:
            yield f"{', '.join(prefix + key for key in wrong)} unknown; known are: {', '.join(known)}."


def _flat(table: Any, prefix: str = "") -> dict[str, Any]:
    """``{"augment.flip": 0.1, "patches.0.batch": 2, ...}``; lists of plain values stay whole."""
    flat: dict[str, Any] = {}
    items = table.items() if isinstance(table, Mapping) else enumerate(table)
    for key, value in items:
        inner = isinstance(value, Mapping) or (
            isinstance(value, list | tuple) and any(isinstance(v, dict) for v in value)
        )
        flat |= _flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat
