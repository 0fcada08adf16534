"""Models as others package them, read as plain data: MONAI bundles, Clara Train MMARs, ONNX files.

Their configurations are read, never run: a value that is code (``$...``) stays text, and where it is needed a message
asks for it. MONAI's own parser would evaluate it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from carina.errors import BadConfig
from carina.nesting import DEEPEST, TOO_DEEP, check_extent
from carina.pipeline.json_text import read_json
from carina.pipeline.ports import FILE_ERRORS
from carina.toml import read_toml

WEIGHT_FILES = ("models/model.pt", "models/model.ts", "models/model.onnx")
"""Where a package's weights lie, the most telling first."""

LARGEST_TABLE_BYTES = 1_000_000
"""A configuration has some thousands; YAML of this size takes some seconds."""

_STEPS = (
    "Orientation",
    "Spacing",
    "ScaleIntensityRange",
    "NormalizeIntensity",
    "ScaleIntensity",
    "CropForeground",
    "Resize",
    "Activations",
    "AsDiscrete",
    "KeepLargestConnectedComponent",
    "Invert",
    "SaveImage",
)
"""MONAI's transforms that say how a network is fed and read."""


@dataclass(frozen=True)
class MonaiStep:
    """A transform or inferer: MONAI's name without the ending of its dictionary form, and its arguments."""

    name: str
    keys: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Package:
    """What somebody else's package says of its network.

    ``network`` holds MONAI's class under ``name`` and its arguments, {} where nothing is said; ``before`` and ``after``
    are the recognised steps around it; ``words`` is text in which the task may be named.
    """

    kind: str
    source: Path
    weights: Path
    network: Mapping[str, Any] = field(default_factory=dict)
    before: tuple[MonaiStep, ...] = ()
    after: tuple[MonaiStep, ...] = ()
    inferer: MonaiStep | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""


def read_package(path: Path) -> Package:
    """Read a MONAI bundle folder (``configs/``), a Clara Train MMAR folder (``config/``) or an ONNX file.

    Raises:
        BadConfig: it is none of these, or a file of it is missing or can't be read.
    """
    if path.suffix == ".onnx" and path.is_file():
        return Package(kind="ONNX file", source=path, weights=path)
    if (path / "configs" / "metadata.json").is_file():
        return _monai(path)
    if (path / "config").is_dir():
        return _mmar(path)
    raise BadConfig(
        "import.unknown",
        f"{path}: is no MONAI bundle (a folder with configs/metadata.json), no Clara Train MMAR (a folder with config/ "
        "and models/model.pt) and no .onnx file.",
    )


def read_table(file: Path) -> dict[str, Any]:
    """A JSON, YAML or TOML file as a dictionary.

    Raises:
        BadConfig: it can't be read, or holds no dictionary.
    """
    try:
        if file.suffix == ".toml":
            return read_toml(file, "import").table
        if file.stat().st_size > LARGEST_TABLE_BYTES:
            raise ValueError(f"more than {LARGEST_TABLE_BYTES} bytes")
        text = file.read_bytes()
        found = read_json(text) if file.suffix == ".json" else yaml.safe_load(text)
        check_extent(found)
    except (*FILE_ERRORS, yaml.YAMLError) as error:
        said = TOO_DEEP if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise BadConfig("import.unreadable", f"{file}: can't be read as {file.suffix[1:].upper()} ({said}).") from error
    if not isinstance(found, dict):
        raise BadConfig("import.unreadable", f"{file}: holds no table of keys.")
    return found


def _weights(folder: Path) -> Path:
    found = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if found is None:
        raise BadConfig("import.weights", f"{folder}: has no weights; expected one of {', '.join(WEIGHT_FILES)}.")
    return found


def _monai(folder: Path) -> Package:
    metadata = read_table(folder / "configs" / "metadata.json")
    names = ("inference.json", "inference.yaml", "inference.yml")
    file = next((folder / "configs" / name for name in names if (folder / "configs" / name).is_file()), None)
    config = read_table(file) if file else {}
    plain = _References(config).plain
    network = plain(config.get("network_def", config.get("network", {})))
    declared = {**network, "name": _class(network.get("_target_", ""))} if isinstance(network, Mapping) else {}
    declared.pop("_target_", None)
    return Package(
        kind="MONAI bundle",
        source=folder,
        weights=_weights(folder),
        network={key: value for key, value in declared.items() if value != ""},
        before=_steps(plain(config.get("preprocessing", {}))),
        after=_steps(plain(config.get("postprocessing", {}))),
        inferer=_inferer(plain(config.get("inferer", {}))),
        metadata=metadata,
        words=f"{folder.name} {metadata.get('name', '')} {metadata.get('task', '')}",
    )


_MMAR_FILES = ("config_inference.json", "config_validation.json", "config_train.json")


def _mmar(folder: Path) -> Package:
    files = [folder / "config" / name for name in _MMAR_FILES]
    configs = [read_table(file) for file in files if file.is_file()]
    if not configs:
        raise BadConfig("import.mmar", f"{folder / 'config'}: has none of {', '.join(_MMAR_FILES)}.")
    known = _mmar_variables(folder, configs)
    parts = [part for config in configs for part in _parts(config)]
    named = [step for config in configs for step in _transforms(config)]

    def first(key: str) -> Any:
        found = next((part[key] for part in parts if key in part), None)
        return _filled(_referred(found, named), known)

    return Package(
        kind="Clara MMAR",
        source=folder,
        weights=_weights(folder),
        network=_mmar_network(configs, known),
        before=_steps(first("pre_transforms")),
        after=_steps(first("post_transforms")),
        inferer=_inferer(first("inferer")),
        words=folder.resolve().name,
    )


def _mmar_variables(folder: Path, configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``{NAME}`` stands for: ``environment.json``, and the plain values at the top of each configuration."""
    environment = folder / "config" / "environment.json"
    known = read_table(environment) if environment.is_file() else {}
    for config in configs:
        known |= {key: value for key, value in config.items() if isinstance(value, str | int | float)}
    return known


def _mmar_network(configs: Sequence[Mapping[str, Any]], known: Mapping[str, Any]) -> dict[str, Any]:
    """The network's name and arguments from the last configuration that has one; nothing where none has."""
    models = [found for config in reversed(configs) for found in _anywhere(config, "model") if _is_class(found)]
    if not models:
        return {}
    model = _filled(models[0], known)
    return {"name": _class(model.get("name") or model.get("path", "")), **model.get("args", {})}


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A configuration and its sections; the validation of a training is nearer to inference than the training."""
    yield config
    names = sorted(config, key=lambda name: name != "validate")
    yield from (config[name] for name in names if isinstance(config[name], Mapping))


def _is_class(found: Any) -> bool:
    return isinstance(found, Mapping) and ("name" in found or "path" in found)


def _transforms(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    lists = [*_anywhere(config, "pre_transforms"), *_anywhere(config, "post_transforms")]
    return [step for steps in lists if isinstance(steps, list) for step in steps if "name" in step]


def _referred(steps: Any, named: list[Mapping[str, Any]]) -> Any:
    """MMARs say ``{"ref": NAME}`` for a transform that stands elsewhere in the file."""
    if not isinstance(steps, list):
        return steps
    by_name = {step["name"]: step for step in reversed(named)}
    return [by_name.get(step["ref"], step) if "ref" in step else step for step in steps]


def _anywhere(config: Mapping[str, Any], key: str) -> Iterator[Any]:
    if key in config:
        yield config[key]
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _anywhere(value, key)


def _filled(value: Any, known: Mapping[str, Any]) -> Any:
    """``{NAME}`` stands for a variable of the configuration or of ``environment.json``."""
    if isinstance(value, Mapping):
        return {key: _filled(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, known) for item in value]
    if isinstance(value, str) and value.startswith("{") and value.endswith("}"):
        return known.get(value[1:-1], value)
    return value


def _class(name: object) -> str:
    return str(name).rpartition(".")[2]


@dataclass(frozen=True)
class _References:
    """A configuration in which references (``@id``) are followed; ``known`` are those that were."""

    config: Mapping[str, Any]
    known: dict[str, Any] = field(default_factory=dict)

    def plain(self, value: Any, depth: int = 0) -> Any:
        """``value`` with references followed and literal expressions read; other code stays text."""
        if depth > DEEPEST:
            return value
        if isinstance(value, Mapping):
            return {key: self.plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self.plain(item, depth + 1) for item in value]
        if not isinstance(value, str):
            return value
        if re.fullmatch(r"@[\w#:]+", value):
            return self._followed(value, depth)
        return _literal(value) if value.startswith("$") else value

    def _followed(self, reference: str, depth: int) -> Any:
        if reference not in self.known:
            self.known[reference] = reference  # where it leads back to itself, it stays as it is
            found = _looked_up(reference[1:], self.config)
            if found is not None:
                self.known[reference] = self.plain(found, depth + 1)
        return self.known[reference]


def _literal(expression: str) -> Any:
    """What a ``$`` expression is where it is a literal; else its text."""
    try:
        return ast.literal_eval(expression[1:])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # all that Python's documentation names
        return expression


def _looked_up(place: str, config: Any) -> Any:
    for part in re.split(r"#|::", place):
        if isinstance(config, Mapping):
            config = config.get(part)
        elif isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        else:
            return None
    return config


def _steps(steps: Any) -> tuple[MonaiStep, ...]:
    if isinstance(steps, Mapping):
        steps = steps.get("transforms", [])
    found = (_step(one) for one in steps or [] if isinstance(one, Mapping) and not one.get("_disabled_"))
    return tuple(step for step in found if step.name in _STEPS)


def _step(one: Mapping[str, Any]) -> MonaiStep:
    """MONAI's style is flat with ``_target_``, the MMARs' ``name`` with ``args``."""
    name = _class(one.get("_target_", one.get("name", "")))
    base = next((known for known in _STEPS if name in (known, f"{known}d", f"{known}D", f"{known}Dict")), name)
    keys = one.get("args") or {key: value for key, value in one.items() if key not in ("_target_", "name", "args")}
    return MonaiStep(base, keys)


def _inferer(value: Any) -> MonaiStep | None:
    return _step(value) if isinstance(value, Mapping) and value else None
