"""Settings of a node: ``carina.toml`` and the environment, read once into a frozen value.

Environment variables override the file: ``CARINA_<SECTION>_<KEY>`` (``CARINA_RUNTIME_KIND=triton``);
folders are parted as in ``PATH``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from carina.errors import BadConfig


class RuntimeKind(StrEnum):
    """What runs the networks."""

    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"
    TRITON = "triton"


class Precision(StrEnum):
    """Arithmetic of the networks: ``auto`` is bfloat16 where the processor computes in it, else float32.

    bfloat16 moves borders slightly; ``f32`` gives the same numbers on every machine.
    """

    AUTO = "auto"
    F32 = "f32"
    BF16 = "bf16"


class Plan(StrEnum):
    """Where network time goes: ``fast`` looks at body and lungs only, ``original`` uses the bundle's own windows."""

    FAST = "fast"
    ORIGINAL = "original"


class RuntimeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How networks run. ``threads`` 0 means every core; ``endpoint`` is Triton's ``http://`` or ``grpc://`` address."""

    kind: RuntimeKind = RuntimeKind.OPENVINO
    precision: Precision = Precision.AUTO
    plan: Plan = Plan.FAST
    threads: int = 0
    endpoint: str = ""
    timeout_s: float = 60.0


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which bundle does which task, by name; ``folders`` are searched before the bundles that ship with Carina."""

    lung: str = "lung-ahnet"
    lesion: str = "lesion-segresnet"
    covid: str = "covid-densenet"
    folders: tuple[str, ...] = ()


class FolderDestination(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="folder"
):
    """A folder that result objects are copied to."""

    path: str


class DicomDestination(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="dicom"
):
    """A DICOM node that takes C-STORE."""

    host: str
    port: int
    ae_title: str
    calling_ae_title: str = "CARINA"
    timeout_s: float = 30.0


class DicomwebDestination(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="dicomweb"
):
    """A DICOMweb server that takes STOW-RS; ``url`` is its service root."""

    url: str
    token: str = ""
    timeout_s: float = 30.0


Destination = FolderDestination | DicomDestination | DicomwebDestination


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything a node can be told."""

    runtime: RuntimeSettings = RuntimeSettings()
    models: ModelSettings = ModelSettings()
    destinations: Mapping[str, Destination] = {}
    series_rules: str = ""


FILE = Path("carina.toml")
"""The settings file of a node, in its working folder."""


def find_settings(file: Path | None, environment: Mapping[str, str]) -> Settings:
    """As ``load_settings``; without a file that of the working folder, where there is one.

    Raises:
        BadConfig: as ``load_settings``.
    """
    return load_settings(FILE if file is None and os.path.lexists(FILE) else file, environment)


def load_settings(file: Path | None, environment: Mapping[str, str]) -> Settings:
    """Read the settings file (none: the defaults), let the environment override, check and freeze.

    Where the user has models of their own (``user_models``), that folder comes after ``models.folders``.

    Raises:
        BadConfig: the file is missing or no TOML, or a key or value is not known; the message names it.
    """
    table = _read_table(file) if file else {}
    for name, text in environment.items():
        _override(table, name, text)
    try:
        settings = msgspec.convert(table, Settings, strict=False)
    except msgspec.ValidationError as error:
        where = file or "the environment"
        raise BadConfig("config.invalid", f"{where}: {error}. See docs/configuration.md for the known keys.") from error
    own = user_models(environment)
    if own is None or not own.is_dir():
        return settings
    models = msgspec.structs.replace(settings.models, folders=(*settings.models.folders, str(own)))
    return msgspec.structs.replace(settings, models=models)


def user_models(environment: Mapping[str, str]) -> Path | None:
    """Where ``carina models import`` puts bundles unless told otherwise; None where there is no home.

    ``XDG_DATA_HOME`` (``LOCALAPPDATA`` on Windows), else ``~/.local/share``, and in it ``carina/models``.
    """
    base = environment.get("XDG_DATA_HOME") or environment.get("LOCALAPPDATA")
    if base:
        return Path(base) / "carina" / "models"
    home = environment.get("HOME")
    return Path(home) / ".local" / "share" / "carina" / "models" if home else None


def _read_table(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfig("config.unreadable", f"{file}: can't be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig("config.syntax", f"{file}: no valid TOML: {error}.") from error


def _override(table: dict[str, Any], name: str, text: str) -> None:
    for section in ("runtime", "models"):
        prefix = f"CARINA_{section.upper()}_"
        if name.startswith(prefix):
            key = name.removeprefix(prefix).lower()
            value = [one for one in text.split(os.pathsep) if one] if key == "folders" else text
            table.setdefault(section, {})[key] = value
