"""What a run did, from what, with what: ``manifest.json``, rewritten after every change of state."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from carina import RESEARCH_ONLY, __version__
from carina.errors import BadConfig
from carina.pipeline.digests import Digest
from carina.pipeline.folder import MANIFEST, is_being_written
from carina.pipeline.json_text import as_json, as_pretty_json, read_json
from carina.pipeline.places import write_whole

FORMAT = 2
"""2: files with their digests; packages of operators; the state ``interrupted``."""

LARGEST_MANIFEST_BYTES = 2**24
"""More than any manifest has: about 1 KB an operator, 150 bytes a file and a line for each warning."""


class State(StrEnum):
    """Where an operator, or the run, is.

    ``interrupted``: a signal ended it, or its process is gone; the same command resumes it.
    """

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    INTERRUPTED = "interrupted"


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is made from, as the caller tells it; the engine only keeps and compares it.

    ``inputs``, ``bundles`` and ``settings`` decide whether a run may be resumed. ``beside`` is told among the inputs
    and decides nothing: what lay beside them. ``versions`` are informational.
    Nothing secret and no patient's name goes in here.
    """

    inputs: Mapping[str, Any] = {}
    beside: Mapping[str, Any] = {}
    bundles: Mapping[str, Any] = {}
    settings: Mapping[str, Any] = {}
    versions: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()


class FailureRecord(msgspec.Struct, kw_only=True):
    """Why an operator ended without a result: the error's code and its sentence.

    The code is empty for an operator that was not run; ``traceback`` is the file in the run's folder that has it, for a
    fault of Carina's own (``bug.``...) and of an operator of others.
    """

    code: str
    message: str
    traceback: str = ""


class OperatorRecord(msgspec.Struct, kw_only=True):
    """One operator's part of a run. ``package`` is empty for an operator of Carina's own.

    ``outputs`` maps its output paths to files relative to the run's folder, ``files`` has the digest of each of them,
    and of those that it wrote there itself (the fact ``files``).
    """

    image: str
    package: str = ""
    state: State = State.WAITING
    started: str = ""
    seconds: float = 0.0
    outputs: dict[str, list[str]] = {}
    files: dict[str, Digest] = {}
    warnings: list[str] = []
    facts: dict[str, Any] = {}
    error: FailureRecord | None = None

    @property
    def has_handed_over(self) -> bool:
        """Whether it was to send objects and, having no destination of its own, left them to whoever runs it."""
        return self.state is State.DONE and self.facts.get("deliveries") == []

    @property
    def own_files(self) -> list[str]:
        """The files that the operator said it wrote into the run's folder itself."""
        said = self.facts.get("files")
        return [name for name in said if isinstance(name, str)] if isinstance(said, list) else []

    @property
    def all_files(self) -> list[str]:
        """Every file that the operator left, relative to the run's folder."""
        stored = [name for names in self.outputs.values() for name in names]
        traces = [self.error.traceback] if self.error and self.error.traceback else []
        return list(dict.fromkeys([*stored, *self.files, *self.own_files, *traces]))


class DefinitionRecord(msgspec.Struct, kw_only=True):
    """The definition that was run."""

    name: str
    file: str
    sha256: str


class Manifest(msgspec.Struct, kw_only=True):
    """The whole record. Times are ISO 8601 with their offset; ``resumed`` lists later starts.

    ``warnings`` are all of an ended run, each once: the source's, and those that operators have beside their states.
    """

    notice: str = RESEARCH_ONLY
    format: int = FORMAT
    carina: str = __version__
    state: State = State.WAITING
    fingerprint: str
    started: str
    ended: str = ""
    seconds: float = 0.0
    resumed: list[str] = []
    definition: DefinitionRecord
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
    made_from = [provenance.inputs, provenance.bundles, provenance.settings, operators]
    text = as_json([FORMAT, __version__, definition_sha256, *made_from], "deterministic")
    return hashlib.sha256(text).hexdigest()


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a run's folder, of this format or an older one; None where there is none.

    What says that it is running, and is not, because its process was killed, is read as interrupted.

    Raises:
        BadConfig: ``run.manifest``, the file is none of Carina's, or damaged; ``run.newer``, it is of a later format;
            ``output.unwritable``, it can't be read.
    """
    path = folder / MANIFEST
    try:
        manifest = _decoded(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BadConfig("run.manifest", f"{path}: can't be read ({error.strerror or error}).") from error
    if manifest.state is State.RUNNING and not is_being_written(folder):
        end(manifest, State.INTERRUPTED)
    return manifest


def _decoded(path: Path) -> Manifest:
    size = path.stat().st_size
    if not path.is_file() or size > LARGEST_MANIFEST_BYTES:
        what = f"a file of {size / 1e6:.0f} MB" if path.is_file() else "no file"
        raise BadConfig("run.manifest", f"{path}: is {what}; expected the manifest of a run of Carina.")
    try:
        text = path.read_bytes()
        later = read_json(text, _Format).format > FORMAT
        if not later:
            return read_json(text, Manifest)
    except ValueError as error:
        raise BadConfig("run.manifest", f"{path}: is no manifest of a run of Carina ({error}).") from error
    raise BadConfig("run.newer", f"{path}: is of a later version of Carina: update, or choose another folder.")


class _Format(msgspec.Struct):
    format: int


def end(manifest: Manifest, state: State) -> None:
    """Say that a run is over: what was still running ended as the run did, unless it can be run again."""
    manifest.state = state
    for record in manifest.operators.values():
        if record.state is State.RUNNING:
            record.state = State.INTERRUPTED


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write a manifest in one step: a reader sees the old one or the new one.

    Raises:
        OSError: it can't be written.
    """
    write_whole(folder / MANIFEST, as_pretty_json(manifest))
