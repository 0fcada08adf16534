"""What a run did, from what, with what: ``manifest.json``, rewritten after every change of state."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from carina import RESEARCH_ONLY, __version__

FILE = "manifest.json"
FORMAT = 1


class State(StrEnum):
    """Where an operator, or the run, is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is made from, as the caller tells it; the engine only keeps and compares it.

    ``inputs``, ``bundles`` and ``settings`` decide whether a run may be resumed; ``versions`` are informational.
    Nothing secret and no patient's name goes in here.
    """

    inputs: Mapping[str, Any] = {}
    bundles: Mapping[str, Any] = {}
    settings: Mapping[str, Any] = {}
    versions: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()


class Failure(msgspec.Struct, kw_only=True):
    """Why an operator ended without a result: the error's code (empty for a bug of ours) and its sentence."""

    code: str
    message: str


class OperatorRecord(msgspec.Struct, kw_only=True):
    """One operator's part of a run. ``outputs`` maps its output paths to files relative to the run's folder.

    ``package`` is empty for an operator of Carina's own.
    """

    image: str
    package: str = ""
    state: State = State.WAITING
    started: str = ""
    seconds: float = 0.0
    outputs: dict[str, list[str]] = {}
    warnings: list[str] = []
    facts: dict[str, Any] = {}
    error: Failure | None = None


class Definition(msgspec.Struct, kw_only=True):
    """The definition that was run."""

    name: str
    file: str
    sha256: str


class Manifest(msgspec.Struct, kw_only=True):
    """The whole record. Times are ISO 8601 with their offset; ``resumed`` lists later starts."""

    notice: str = RESEARCH_ONLY
    format: int = FORMAT
    carina: str = __version__
    state: State = State.WAITING
    fingerprint: str
    started: str
    ended: str = ""
    seconds: float = 0.0
    resumed: list[str] = []
    definition: Definition
    inputs: dict[str, Any] = {}
    bundles: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    versions: dict[str, str] = {}
    warnings: list[str] = []
    operators: dict[str, OperatorRecord] = {}


def fingerprint(definition_sha256: str, provenance: Provenance, operators: Mapping[str, str]) -> str:
    """A hash of everything that may change a result: definition, inputs, bundles, settings and Carina's version.

    ``operators`` tells those that are not Carina's own apart, by step.
    """
    parts = [__version__, definition_sha256, provenance.inputs, provenance.bundles, provenance.settings, operators]
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a run's folder; None where there is none, or it is of another format."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write a manifest in one step: a reader sees the old one or the new one."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    temporary = folder / f".{FILE}"
    try:
        temporary.write_bytes(text + b"\n")
        temporary.replace(folder / FILE)
    finally:
        temporary.unlink(missing_ok=True)
