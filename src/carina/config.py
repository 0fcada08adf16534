"""Settings of a node: ``carina.toml`` and the environment, read once into a frozen value.

Environment variables override the file: ``CARINA_<SECTION>_<KEY>`` (``CARINA_RUNTIME_KIND=triton``);
folders are parted as in ``PATH``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from carina.errors import BadConfig
from carina.sections import NoticeSettings, OperatorSettings, UploadSettings
from carina.toml import Key, mistakes, read_toml, take_out
from carina.web_settings import DEFAULT_PROJECT, ProjectName, TlsSettings, WebSettings

_Text = Annotated[str, Meta(min_length=1)]
_Seconds = Annotated[float, Meta(gt=0, le=86400)]
_Threads = Annotated[int, Meta(ge=0, le=4096)]
_Voxels = Annotated[int, Meta(ge=1)]
_Port = Annotated[int, Meta(ge=1, le=65535)]
_AE_WORDS = "up to 16 printable characters without a backslash"
_AeTitle = Annotated[str, Meta(min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$", description=_AE_WORDS)]
"""A DICOM application entity's title: up to 16 printable characters, no backslash (PS3.5, 6.2)."""

_WebAddress = Annotated[str, Meta(pattern=r"^https?://[^\s/]", description="an address as https://HOST/PATH")]


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
    threads: _Threads = 0
    endpoint: str = ""
    timeout_s: _Seconds = 60.0


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which bundle does which task, by name; ``folders`` are searched before the bundles that ship with Carina."""

    lung: _Text = "lung-ahnet"
    lesion: _Text = "lesion-segresnet"
    covid: _Text = "covid-densenet"
    folders: tuple[_Text, ...] = ()


class ObjectKind(StrEnum):
    """Kinds of result object that a destination can be told to take."""

    SEG = "SEG"
    PDF = "PDF"
    SR = "SR"
    OTHER = "other"


class _Destination(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every destination says: ``takes`` are the kinds of object that the node sends there, empty: every kind.

    ``confirm_s`` is how long after it took an object it may still say that it doesn't have it.
    """

    takes: tuple[ObjectKind, ...] = ()
    confirm_s: _Seconds = 60.0


class FolderDestination(_Destination, frozen=True, kw_only=True, tag_field="kind", tag="folder"):
    """A folder that result objects are copied to."""

    path: _Text


class DicomDestination(_Destination, frozen=True, kw_only=True, tag_field="kind", tag="dicom"):
    """A DICOM node that takes C-STORE; with ``commitment`` it is asked for storage commitment, otherwise by query.

    With ``tls_trusted``, PEM of who signs the peer's certificate, TLS is spoken. ``tls_name`` is the name in that
    certificate, empty: ``host``; ``tls_certificate`` and ``tls_key`` are ours, for peers that ask for one.
    """

    host: _Text
    port: _Port
    ae_title: _AeTitle
    calling_ae_title: _AeTitle = "CARINA"
    commitment: bool = False
    tls_trusted: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    tls_name: str = ""
    timeout_s: _Seconds = 30.0


class DicomwebDestination(_Destination, frozen=True, kw_only=True, tag_field="kind", tag="dicomweb"):
    """A DICOMweb server that takes STOW-RS; ``url`` is its service root.

    ``token`` is shown as a bearer's, or ``user`` and ``password`` by Basic. ``tls_trusted`` is PEM of who signs its
    certificate, empty: whom this machine trusts.
    """

    url: _WebAddress
    token: str = ""
    user: str = ""
    password: str = ""
    tls_trusted: str = ""
    timeout_s: _Seconds = 30.0


Destination = FolderDestination | DicomDestination | DicomwebDestination

Peer = DicomDestination | DicomwebDestination
"""What can be asked for what it has."""


class LimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is refused before memory is asked for it: series of more than ``voxels``, whatever their files claim.

    The volume of 600 million voxels takes 1.2 GB, a run on it some ten times that.
    """

    voxels: _Voxels = 600_000_000


class Priority(StrEnum):
    """Which of the waiting jobs runs first."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    IMMEDIATE = "immediate"


class NodeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the node keeps and may use.

    ``folder`` holds all it accepted and made; ``database`` is ``postgresql+psycopg://...``, empty: SQLite in that
    folder. ``memory_gb`` and ``cores`` are what its jobs share, 0: three quarters of the machine's memory, every core.
    With less than ``free_gb`` left on the disk, senders are refused. Who asks for a job over REST names a path below
    one of the folders ``submit_below``; empty: nobody may.
    """

    folder: _Text = "node"
    database: str = ""
    memory_gb: Annotated[float, Meta(ge=0)] = 0.0
    cores: Annotated[int, Meta(ge=0, le=4096)] = 0
    free_gb: Annotated[float, Meta(ge=0)] = 5.0
    submit_below: tuple[_Text, ...] = ()


SHORTEST_KEY = 32
"""Characters of a secret that somebody makes up for the node; a shorter one can be guessed."""


class DeidentifySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """De-identification: pseudonyms follow from ``key``, secret and always the same; the operator needs one."""

    key: str = ""


_Days = Annotated[float, Meta(ge=0, le=36_500)]
_Gigabytes = Annotated[float, Meta(ge=0)]


class RetentionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the node removes by itself, the oldest first: after ``days``, over ``gb``, for ``free_gb``; 0: nothing."""

    incoming_days: _Days = 0.0
    incoming_gb: _Gigabytes = 0.0
    runs_days: _Days = 0.0
    runs_gb: _Gigabytes = 0.0
    free_gb: _Gigabytes = 0.0
    abandoned_days: _Days = 0.0


class DicomSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The DICOM listener: C-ECHO, C-STORE, storage commitment.

    ``instance_mb`` bounds a data set, ``idle_s`` the time without progress, ``associations`` the open ones.
    """

    host: _Text = "127.0.0.1"
    port: _Port = 11112
    tls: TlsSettings | None = None
    associations: Annotated[int, Meta(ge=1, le=1000)] = 50
    instance_mb: Annotated[int, Meta(ge=1)] = 1000
    idle_s: _Seconds = 60.0


class _Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every source says: ``pipelines`` run on each series that is complete, their results go to ``destinations``.

    A series is complete after ``quiet_s`` without an instance, or at once when an expected count is met; ``ask`` names
    the destination, a DICOM node or DICOMweb server, that is asked how many there are. With ``earlier``, a
    destination's name, the latest ``earlier_studies`` chest CTs of its patient are fetched from there. It belongs to
    ``project``.
    """

    project: ProjectName = DEFAULT_PROJECT
    pipelines: Annotated[tuple[_Text, ...], Meta(min_length=1, description="one pipeline or more")] = ("default",)
    priority: Priority = Priority.NORMAL
    destinations: tuple[_Text, ...] = ()
    quiet_s: _Seconds = 30.0
    ask: str = ""
    series_rules: str = ""
    earlier: str = ""
    earlier_studies: Annotated[int, Meta(ge=1, le=20)] = 1
    earlier_by: Literal["get", "move"] = "get"


class DicomSource(_Source, frozen=True, kw_only=True, tag_field="kind", tag="dicom"):
    """An AE title of the DICOM listener; empty ``callers`` (AE titles) and ``addresses`` (networks) allow everyone."""

    ae_title: _AeTitle
    callers: tuple[_AeTitle, ...] = ()
    addresses: tuple[_Text, ...] = ()


class DicomwebSource(_Source, frozen=True, kw_only=True, tag_field="kind", tag="dicomweb"):
    """What comes by STOW-RS to the web listener; a node has at most one."""


class FolderSource(_Source, frozen=True, kw_only=True, tag_field="kind", tag="folder"):
    """A watched folder: files that have been left alone for ``quiet_s`` are taken in, and stay where they are."""

    path: _Text


AnySource = DicomSource | DicomwebSource | FolderSource


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything a node can be told."""

    runtime: RuntimeSettings = RuntimeSettings()
    models: ModelSettings = ModelSettings()
    limits: LimitSettings = LimitSettings()
    node: NodeSettings = NodeSettings()
    dicom: DicomSettings = DicomSettings()
    web: WebSettings = WebSettings()
    notices: NoticeSettings = NoticeSettings()
    retention: RetentionSettings = RetentionSettings()
    deidentify: DeidentifySettings = DeidentifySettings()
    operators: OperatorSettings = OperatorSettings()
    uploads: UploadSettings = UploadSettings()
    sources: Mapping[str, AnySource] = {}
    destinations: Mapping[str, Destination] = {}
    series_rules: str = ""


_NODE = ("node", "dicom", "web", "notices", "retention", "uploads")
_SECTIONS = ("runtime", "models", "limits", *_NODE, "deidentify", "operators")
_LISTS = frozenset({"folders", "submit_below", "trusted"})
"""What the environment may say, and which of it are lists of paths."""

MOST_TOLD = 20
"""Mistakes that are told one by one."""

FILE = Path("carina.toml")
"""The settings file of a node, in its working folder."""


def find_settings(file: Path | None, environment: Mapping[str, str]) -> Settings:
    """As ``load_settings``; without a file that of the working folder, where there is one.

    Raises:
        BadConfig: as ``load_settings``.
    """
    return load_settings(settings_file(file), environment)


def settings_file(file: Path | None) -> Path | None:
    """The file that ``find_settings`` reads: the given one, else that of the working folder, where there is one."""
    return FILE if file is None and os.path.lexists(FILE) else file


def load_settings(file: Path | None, environment: Mapping[str, str]) -> Settings:
    """Read the settings file (none: the defaults), let the environment override, check and freeze.

    Where the user has models of their own (``user_models``), that folder comes after ``models.folders``.

    Raises:
        BadConfig: the file can't be read or is no TOML, or keys or values are wrong; the message has a line for each.
    """
    read = read_toml(file, "config") if file else None
    table = read.table if read else {}
    variables = _override(table, environment)
    lines = []
    for wrong in mistakes(table, Settings):
        place = variables.get(wrong.key) or (read.place(wrong.key) if read else "")
        lines.append(f"{place}: {'.'.join(wrong.key)}: {wrong.words}")
    if lines:
        more = [f"and {len(lines) - MOST_TOLD} more"] if len(lines) > MOST_TOLD else []
        raise BadConfig("config.invalid", *lines[:MOST_TOLD], *more)
    settings = msgspec.convert(table, Settings, strict=False)
    own = user_models(environment)
    if own is None or not _is_folder(own):
        return settings
    models = msgspec.structs.replace(settings.models, folders=(*settings.models.folders, str(own)))
    return msgspec.structs.replace(settings, models=models)


def sound_settings(file: Path | None, environment: Mapping[str, str]) -> tuple[Settings, set[Key]]:
    """What is left of settings without the keys that are wrong by themselves, and those keys.

    Raises:
        BadConfig: the file can't be read or is no TOML.
    """
    table = read_toml(file, "config").table if file else {}
    _override(table, environment)
    gone: set[Key] = set()
    while wrong := [one.key for one in mistakes(table, Settings)]:
        gone.update(take_out(table, key) for key in wrong)
    return msgspec.convert(table, Settings, strict=False), gone


def _is_folder(path: Path) -> bool:
    """Whether a folder is there and may be looked at; a service's user often can't look at the home that it is told."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def user_models(environment: Mapping[str, str]) -> Path | None:
    """Where ``carina models import`` puts bundles unless told otherwise; None where there is no home.

    ``XDG_DATA_HOME`` (``LOCALAPPDATA`` on Windows), else ``~/.local/share``, and in it ``carina/models``.
    """
    base = environment.get("XDG_DATA_HOME") or environment.get("LOCALAPPDATA")
    if base:
        return Path(base) / "carina" / "models"
    home = environment.get("HOME")
    return Path(home) / ".local" / "share" / "carina" / "models" if home else None


def named_variables(environment: Mapping[str, str]) -> dict[Key, str]:
    """The variables by which an environment overrides settings, by their keys."""
    return _override({}, environment)


def _override(table: dict[str, Any], environment: Mapping[str, str]) -> dict[Key, str]:
    """Put what the environment says over the file's table; gives the variable that each key came from."""
    variables: dict[Key, str] = {}
    for name, text in environment.items():
        for section in _SECTIONS:
            prefix = f"CARINA_{section.upper()}_"
            within = table.setdefault(section, {}) if name.startswith(prefix) else None
            if isinstance(within, dict):
                key = name.removeprefix(prefix).lower()
                within[key] = [one for one in text.split(os.pathsep) if one] if key in _LISTS else text
                variables[section, key] = name
    return variables
