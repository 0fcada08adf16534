"""A bundle against MONAI's own rules: ``verify_metadata`` and ``verify_net_in_out`` of ``monai.bundle``.

MONAI takes the schema of ``metadata.json`` from the URL that the file names, and uses a copy where one lies at the
path it would store it at. Nothing here reaches the network: without a schema file of your own, MONAI is given
``METAFORMAT``, written from the mandatory keys of its "MONAI Bundle Specification" (docs.monai.io).
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from carina.errors import BadConfig, CarinaError, one_line
from carina.models.bundle import METADATA, Bundle
from carina.models.monai_config import inference_config
from carina.pipeline.json_text import read_json

INFERENCE_CONFIG = Path("configs/inference.json")

_TEXT = {"type": "string"}
_TENSOR = {
    "type": "object",
    "properties": {
        "type": _TEXT,
        "format": _TEXT,
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
        "dtype": _TEXT,
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "additionalProperties": _TEXT},
    },
}
_TENSOR["required"] = list(_TENSOR["properties"])
_TENSORS = {"type": "object", "minProperties": 1, "additionalProperties": _TENSOR}
_WORDS = ("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors")

METAFORMAT: dict[str, Any] = {
    "type": "object",
    "properties": {
        **{name: _TEXT for name in (*_WORDS, "copyright", "data_source", "data_type", "intended_use")},
        "changelog": {"type": "object", "additionalProperties": _TEXT},
        "required_packages_version": {"type": "object", "additionalProperties": _TEXT},
        "eval_metrics": {"type": "object"},
        "references": {"type": "array", "items": _TEXT},
        "network_data_format": {
            "type": "object",
            "properties": {"inputs": _TENSORS, "outputs": _TENSORS},
            "required": ["inputs", "outputs"],
        },
    },
    "required": [*_WORDS, "copyright", "required_packages_version", "network_data_format"],
}
"""JSON Schema of the mandatory keys; stricter than MONAI's in that every key of a tensor must be there."""


def verify_metadata(bundle: Bundle, schema: Path | None = None) -> None:
    """Check ``metadata.json`` by ``monai.bundle.verify_metadata`` against ``schema``, or else ``METAFORMAT``.

    Raises:
        BadConfig: the metadata break a rule, or ``schema`` is no JSON file; the message says which rule.
    """
    from monai.bundle import verify_metadata as verify

    with tempfile.TemporaryDirectory() as scratch, _quiet():
        file = Path(scratch) / "schema.json"
        try:
            text = schema.read_text(encoding="utf-8") if schema else json.dumps(METAFORMAT)
            read_json(text)
        except (OSError, ValueError) as error:
            raise BadConfig("bundle.schema", f"{schema}: no JSON schema can be read from it ({error}).") from error
        file.write_text(text, encoding="utf-8")
        try:
            verify(
                meta_file=str(bundle.folder / METADATA),
                filepath=str(file),
                hash_val=hashlib.sha256(file.read_bytes()).hexdigest(),
                hash_type="sha256",
            )
        except ValueError as error:
            said = " ".join(str(error).split()).removesuffix(".")
            raise BadConfig("bundle.metaformat", f"{bundle.folder / METADATA}: {said}.") from error


def verify_network(bundle: Bundle, *, trust: bool = False) -> None:
    """Check the network's input and output against the metadata by ``monai.bundle.verify_net_in_out``.

    MONAI runs code that ``configs/inference.json`` names, so the file must be the one that Carina derives from the
    metadata, unless you ``trust`` it.

    Raises:
        BadConfig: the file is missing or another, or the network does not give what the metadata say.
    """
    from monai.bundle import verify_net_in_out as verify

    file = bundle.folder / INFERENCE_CONFIG
    if not trust and not _is_derived(bundle, file):
        raise BadConfig(
            "bundle.config",
            f"{file}: is missing, or not what Carina derives from the metadata. MONAI would run the code in it, so it "
            "was not opened: write it anew by importing the bundle, or say that you trust it (--trust).",
        )
    with _quiet():
        try:
            verify(
                net_id="network_def",
                meta_file=str(bundle.folder / METADATA),
                config_file=str(file),
                device="cpu",
                bundle_root=str(bundle.folder),
            )
        except Exception as error:  # whatever a trusted configuration raises
            raise _told_plainly(error, bundle) from error


def _told_plainly(error: Exception, bundle: Bundle) -> CarinaError:
    """What was wrong in our own words where it was we who said so; else MONAI's, without its advice to its authors."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, CarinaError):
            return cause
        cause = cause.__cause__
    said = one_line(str(error).partition(" set '_mode_=debug'")[0])
    words = f"{said}. Compare {INFERENCE_CONFIG} and {METADATA} with the network"
    return BadConfig("bundle.network", f"{bundle.folder}: verify_net_in_out failed: {words}.")


def _is_derived(bundle: Bundle, file: Path) -> bool:
    try:
        written = read_json(file.read_bytes())
    except (OSError, ValueError):
        return False
    return bool(written == inference_config(read_json((bundle.folder / METADATA).read_bytes())))


@contextmanager
def _quiet() -> Iterator[None]:
    """MONAI logs each argument of these functions to standard output."""
    loggers = [logging.getLogger(name) for name in ("monai.bundle.scripts", "monai.apps.utils", "monai.apps")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
