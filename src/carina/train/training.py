"""A whole training: data checked, network built or fine-tuned, fitted, published as a bundle."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from torch import nn

from carina.cases.checks import DataReport, check_data
from carina.cases.datalist import DataList, read_datalist, with_fold, without
from carina.errors import BadConfig
from carina.models.bundle import METADATA, Bundle, find_bundle, load_bundle
from carina.models.networks import build_network
from carina.models.weights import TORCH_WEIGHTS as TORCH_WEIGHTS
from carina.models.weights import load_weights, read_checkpoint, read_onnx
from carina.pipeline.json_text import read_json
from carina.train import checkpoint, configure
from carina.train.examples import ExampleSource
from carina.train.fit import FitContext, Fitted, Watch, fit, fresh_inputs
from carina.train.guide import published
from carina.train.norms import fix_norms
from carina.train.publish import Facts, publish
from carina.train.settings import TrainSettings
from carina.train.sources import open_source
from carina.train.team import Team
from carina.train.validation import arithmetic_on

SETTINGS_FILE = "settings.toml"
TRAINED_ON = "data.json"


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """What a training folder says of its data; kept in ``data.json``."""

    file: str
    sha256: str
    training: tuple[str, ...]
    validation: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class How:
    """Where a training runs and whom it tells; ``folders`` are searched for the bundle to start from."""

    team: Team = field(default_factory=Team)
    watch: Watch = lambda _: None
    tell: Callable[[str], None] = lambda _: None
    folders: Sequence[Path | str] = ()
    version: str = "0.1.0"
    notes: str = ""


def open_data(file: Path, settings: TrainSettings) -> DataList:
    """The data list ``file``, pooled and split anew where the settings ask for folds."""
    data = read_datalist(file)
    return with_fold(data, settings.folds, settings.fold) if settings.folds else data


def checked(data: DataList, settings: TrainSettings) -> DataReport:
    """The report on ``data``; every problem at once.

    Raises:
        BadConfig: the data can't be trained on.
    """
    report = check_data(data, settings.purpose)
    if report.problems:
        listed = "".join(f"\n  {problem}" for problem in report.problems)
        raise BadConfig("train.data", f"{data.file}: {len(report.problems)} problems; nothing was trained.{listed}")
    return report


def train(file: Path, settings: TrainSettings, out: Path, how: How | None = None) -> Bundle | None:
    """Train on the data list ``file`` into ``out``, or resume there; return the bundle in ``out/bundle``.

    Only the team's leader publishes; the other processes return None.

    Raises:
        BadConfig: data, settings or the folder do not fit; a resumed training's settings differ.
        ModelFailed: the published file's outputs differ from the network's.
    """
    how = how or How()
    data = open_data(file, settings)
    _same_training(out, settings, data)
    if how.team.leads:
        report = checked(data, settings)
        for warning in report.warnings:
            how.tell(f"warning: {warning}")
        how.tell(f"{file}: no problems; the cache takes about {report.cache_mb:.0f} MB.")
        if arithmetic_on(how.team.device, settings) is not settings.arithmetic:
            how.tell(f"This processor has no {settings.arithmetic}: computed in f32, which is many times as fast here.")
        _remember(out, settings, data)
    source = _opened(data, settings, how.team)
    with checkpoint.random_apart(settings.seed, how.team.device):
        network = build_network(settings.network)
    if settings.keep_start or not (out / checkpoint.CHECKPOINT).is_file():
        initialise(network, settings, source, how)
    start = copy.deepcopy(network.state_dict()) if settings.keep_start else {}
    cases = len(without(data, settings.leave_out).training)
    fitted = fit(network, source, settings, out, FitContext(cases=cases, start=start, team=how.team, watch=how.watch))
    return publish_fitted(fitted, out, how) if how.team.leads else None


def publish_folder(out: Path, how: How | None = None) -> Bundle:
    """Publish what a training in ``out`` has reached so far: its best weights, or its last where none was validated.

    Raises:
        BadConfig: ``out`` holds no training.
    """
    best, last = out / checkpoint.BEST, out / checkpoint.CHECKPOINT
    if best.is_file():
        found = checkpoint.read_checkpoint_file(best)
        fitted = Fitted(**{key: found[key] for key in ("weights", "step", "metric", "cases")})
    else:
        found = checkpoint.read_checkpoint_file(last)
        fitted = Fitted(weights=published(found["averaged"] or found["network"]), step=found["step"])
    return publish_fitted(fitted, out, how or How())


def publish_fitted(fitted: Fitted, out: Path, how: How) -> Bundle:
    """Write ``out/bundle/NAME`` with the weights of ``fitted``."""
    settings, data = read_training(out)
    network = build_network(settings.network)
    network.load_state_dict(fitted.weights)
    facts = Facts(
        steps=fitted.step,
        metric=fitted.metric,
        cases=fitted.cases,
        data=f"`{data.file}` (sha256 {data.sha256[:12]}): {len(data.training)} training and {len(data.validation)} "
        "validation cases.",
        trained_on=data.training,
        version=how.version,
        notes=how.notes,
    )
    return publish(network, settings, facts, out / "bundle")


def read_training(out: Path) -> tuple[TrainSettings, Trained]:
    """The settings and data that the training in ``out`` was started with.

    Raises:
        BadConfig: ``out`` holds no training.
    """
    if not (out / SETTINGS_FILE).is_file() or not (out / TRAINED_ON).is_file():
        raise BadConfig("train.none", f"{out} holds no training: {SETTINGS_FILE} and {TRAINED_ON} are not there.")
    return configure.load_saved(out / SETTINGS_FILE), read_json((out / TRAINED_ON).read_bytes(), Trained)


def initialise(network: nn.Module, settings: TrainSettings, source: ExampleSource, how: How) -> None:
    """Put the weights to start from into ``network``: those of ``settings.init``, or the random ones that it has.

    Constant norms that start from group norms, a bundle's or random ones, get what these see in the patches of
    ``settings.settle`` batches (`norms`).

    Raises:
        BadConfig: as `start_from`.
    """
    bundle = init_bundle(settings.init, how.folders) if settings.init else None
    before = bundle.carina.network if bundle else settings.network | {"norm": "group"}
    if settings.network.get("norm", "group") == before.get("norm", "group"):
        if bundle:
            _give_weights(network, bundle)
        return
    grouped = build_network({**settings.network, "norm": "group", "groups": before.get("groups", 8)})
    if bundle:
        _give_weights(grouped, bundle)
    else:
        grouped.load_state_dict(network.state_dict(), strict=False)
    grouped.to(how.team.device)
    fix_norms(network, grouped, fresh_inputs(source, settings, how.team.device))


def start_from(network: nn.Module, init: str, folders: Sequence[Path | str] = ()) -> Bundle:
    """Put the weights of the bundle ``init`` (a name or a folder) into ``network``.

    Raises:
        BadConfig: there is no such bundle, or a weight is missing, left over or of another shape; they are named.
    """
    bundle = init_bundle(init, folders)
    _give_weights(network, bundle)
    return bundle


def init_bundle(init: str, folders: Sequence[Path | str] = ()) -> Bundle:
    """The bundle ``init``: a folder that is one, or a name.

    Raises:
        BadConfig: there is no such bundle, or it is wrong.
    """
    place = Path(init)
    return load_bundle(place) if (place / METADATA).is_file() else find_bundle(init, folders)


def _give_weights(network: nn.Module, bundle: Bundle) -> None:
    file = bundle.folder / TORCH_WEIGHTS
    if file.is_file():
        load_weights(network, read_checkpoint(file), file)
    else:
        names = network.state_dict().keys()
        found = {name: value for name, value in read_onnx(bundle.onnx).items() if name in names or "." in name}
        load_weights(network, found, bundle.onnx)


def _same_training(out: Path, settings: TrainSettings, data: DataList) -> None:
    """Refuse to resume in ``out`` with other settings or data."""
    if not (out / checkpoint.CHECKPOINT).is_file():
        return
    before, used = read_training(out)
    differing = configure.differing_settings(before, settings)
    if differing:
        raise BadConfig(
            "train.settings_differ",
            f"{out} holds a training with other settings: {'; '.join(differing)}. Resume with its {SETTINGS_FILE}, or "
            "start anew in another folder.",
        )
    if used.sha256 != _digest(data.file):
        raise BadConfig(
            "train.data_differ",
            f"{out} was trained on another data list than {data.file}; start anew in another folder.",
        )


def _remember(out: Path, settings: TrainSettings, data: DataList) -> None:
    seen = without(data, settings.leave_out)
    training, validation = (tuple(case.name for case in part) for part in (seen.training, seen.validation))
    facts = Trained(file=data.file.name, sha256=_digest(data.file), training=training, validation=validation)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / SETTINGS_FILE).write_text(configure.to_toml(settings), encoding="utf-8")
        (out / TRAINED_ON).write_bytes(msgspec.json.format(msgspec.json.encode(facts)))
    except OSError as error:
        raise BadConfig("output.unwritable", f"{out}: can't be written ({error.strerror}).") from error


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _opened(data: DataList, settings: TrainSettings, team: Team) -> ExampleSource:
    """The source of examples; the leader fills the cache first."""
    source = open_source(data, settings) if team.leads else None
    team.gather(None)
    return source or open_source(data, settings)
