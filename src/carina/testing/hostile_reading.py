"""What reads each kind of hostile input, as a user's command would: nothing may leave but one refusal in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from carina.config import load_settings
from carina.dicom.find import choose_source, find_series
from carina.dicom.read import read_source
from carina.dicom.rules import Rules
from carina.errors import Bug, CarinaError
from carina.pipeline.check import bound
from carina.pipeline.definition import load_definition
from carina.pipeline.manifest import DefinitionRecord, Manifest, OperatorRecord, read_manifest
from carina.pipeline.table import OperatorTable
from carina.testing.hostile import Sample, hostile
from carina.volume.files import read_volume as read_file

RULES = Rules(min_slices=2, min_matrix=8, max_pixel_spacing_mm=20.0, max_slice_spacing_mm=60.0)
"""Small series pass, so that damage is met further inside."""

TOLERATED_LINE = 1100
LISTS = frozenset({Sample.DEFINITION, Sample.SETTINGS})
"""Where every mistake is told at once, a line each."""

TOLERATED_LINES = 51

PLAIN_SETTINGS = b"""[runtime]
plan = "fast"
precision = "auto"
threads = 2

[destinations.archive]
kind = "dicom"
host = "127.0.0.1"
port = 104
ae_title = "ARCHIVE"

[destinations.out]
kind = "folder"
path = "out"
"""


DEFINITION = b"""api-version: 0.4.0
name: hostile
parameters:
  destinations: "[]"
operators:
- name: dicom-reader
  container: {image: carina/dicom-reader, tag: latest}
  input:
  - path: /input
  output:
  - path: /output
- name: lung-segmentation
  container:
    image: clara/ai-lung
    variables: {}
  requests: {cpu: 2, gpu: 0, memory: 4096}
  input:
  - {from: dicom-reader, path: /input}
  output:
  - {path: /output, name: segmentation}
  - {path: /publish, name: rendering}
  services:
  - name: triton
    container: {image: nvcr.io/nvidia/tritonserver, tag: 20.07-v1-py3}
    connections:
      http: [{name: NVIDIA_CLARA_TRTISURI, port: 8000}]
- name: send
  container:
    image: clara/register-results
    command: ["register", "--agent", "ClaraSCU", "--data", "${{ destinations }}"]
  input:
  - {from: lung-segmentation, name: rendering, path: /input}
"""


def read_hostile(kind: Sample, seed: int, folder: Path, table: OperatorTable) -> str:
    """Write an input and read it: ``read`` or ``refused``; whatever else leaves is the finding.

    ``table`` are the operators that definitions are checked against.

    Raises:
        ValueError: a refusal is no single line (of a definition or settings: a line for each mistake), or endless.
    """
    path = hostile(kind, seed, folder, sample=_SAMPLES[kind]())
    try:
        if kind is Sample.DEFINITION:
            bound(load_definition(path), table)
        else:
            _READERS[kind](path)
    except Bug as error:
        raise ValueError(f"a fault of ours was told: {error.message}") from error
    except CarinaError as error:
        lines = error.message.split("\n") if kind in LISTS else [error.message]
        if len(lines) > TOLERATED_LINES or not all(_is_fit(line) for line in lines):
            raise ValueError(f"the refusal is not fit to be read: {error.message[:300]!r}") from error
        return "refused"
    return "read"


def _is_fit(line: str) -> bool:
    return bool(line) and line.isprintable() and len(line) <= TOLERATED_LINE


def _read_dicom(path: Path) -> None:
    found = find_series(path, RULES)
    for one in found:
        if not (one.reason.isprintable() and all(warning.isprintable() for warning in one.warnings)):
            raise ValueError(f"a listing holds control characters: {one.reason!r}")
    read_source(choose_source(found, RULES))


def _read_volume(path: Path) -> None:
    read_file(path)


def _read_manifest(path: Path) -> None:
    read_manifest(path.parent)


def _read_settings(path: Path) -> None:
    load_settings(path, {})


def _no_sample() -> bytes:
    return b""


def _definition_sample() -> bytes:
    return DEFINITION


def _manifest_sample() -> bytes:
    record = OperatorRecord(image="carina/ai-lung", outputs={}, warnings=["The scan ends inside the lungs."])
    definition = DefinitionRecord(name="d", file="d.yaml", sha256="0" * 64)
    started = "2026-01-01T00:00:00+00:00"
    return msgspec.json.encode(
        Manifest(fingerprint="0" * 64, started=started, definition=definition, operators={"lung": record})
    )


def _settings_sample() -> bytes:
    return PLAIN_SETTINGS


_READERS: dict[Sample, Callable[[Path], None]] = {
    Sample.DICOM: _read_dicom,
    Sample.VOLUME: _read_volume,
    Sample.MANIFEST: _read_manifest,
    Sample.SETTINGS: _read_settings,
}
_SAMPLES: dict[Sample, Callable[[], bytes]] = {
    Sample.DICOM: _no_sample,
    Sample.VOLUME: _no_sample,
    Sample.DEFINITION: _definition_sample,
    Sample.MANIFEST: _manifest_sample,
    Sample.SETTINGS: _settings_sample,
}
