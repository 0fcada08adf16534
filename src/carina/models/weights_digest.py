"""The SHA-256 of a weights file, beside it as ``sha256sum`` writes it: bytes that changed since are not used.

A bundle without such a file is taken as it is: older ones have none, and whoever makes one by hand may leave it out.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from carina.errors import BadConfig

_LINE = re.compile(r"\\?([0-9a-fA-F]{64})(?:\s.*)?", re.DOTALL)
"""A digest and, behind a space, what ``sha256sum`` says of the file."""


def digest_file(weights: Path) -> Path:
    """Where the digest of a weights file lies: ``model.onnx.sha256`` beside ``model.onnx``."""
    return weights.with_name(f"{weights.name}.sha256")


def weights_sha256(weights: Path) -> str:
    """The SHA-256 of a weights file.

    Raises:
        OSError: it can't be read.
    """
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(before: bytes, weights: Path) -> tuple[str, str]:
    """The SHA-256 over ``before`` and a weights file, and that of the file alone; it is read once.

    Raises:
        OSError: it can't be read.
    """
    both, alone = hashlib.sha256(before), hashlib.sha256()
    with weights.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            both.update(block)
            alone.update(block)
    return both.hexdigest(), alone.hexdigest()


def write_digest(weights: Path, sha256: str = "") -> None:
    """Write the digest of a weights file beside it: ``sha256``, where it is known what the file should hold.

    Raises:
        OSError: the file can't be read, or its folder not be written.
    """
    text = f"{sha256 or weights_sha256(weights)}  {weights.name}\n"
    digest_file(weights).write_text(text, encoding="utf-8")


def check_digest(weights: Path, sha256: str = "") -> None:
    """See that a weights file holds what the digest beside it says; without one, nothing is known.

    ``sha256`` is that of the file, where it is known already.

    Raises:
        BadConfig: ``bundle.weights``, it holds something else, or what lies beside it is no digest;
            ``bundle.unreadable``.
    """
    file = digest_file(weights)
    try:
        text = file.read_bytes().decode(errors="replace")
        found = sha256 or weights_sha256(weights)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadConfig("bundle.unreadable", f"{error.filename}: can't be read ({error.strerror}).") from error
    read = _LINE.fullmatch(text.strip())
    if read is None:
        words = "holds no SHA-256; expected 64 hexadecimal digits, a space and the name of the weights, as"
        raise BadConfig("bundle.weights", f"{file}: {words} sha256sum {weights.name} writes it.")
    if read[1].lower() != found:
        words = f"its bytes were changed (SHA-256 {found[:12]}, expected {read[1][:12]} by {file.name} beside it)"
        how = "put the bundle's own weights back (of one that ships: install Carina again) or import it again"
        meant = f"where the change was meant, sha256sum {weights.name} > {file.name} in its folder"
        raise BadConfig("bundle.weights", f"{weights}: {words}, so it is not used: {how}; {meant}.")


def without_digest(weights: Path) -> str:
    """What it means that a weights file has no digest beside it, and how to write one; empty where it has."""
    file = digest_file(weights)
    if file.is_file():
        return ""
    how = f"where the weights are right, sha256sum {weights.name} > {file.name} in {weights.parent}"
    return f"no {file.name} lies beside its weights, so changed bytes would not be noticed: {how}"
