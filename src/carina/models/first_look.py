"""The first look that a bundle names: another bundle, which sees the whole scan at a few mm, pinned by its hash."""

from __future__ import annotations

from pathlib import Path

from carina.errors import BadConfig
from carina.models.bundle import Bundle, Lesion, Lung, NetworkOutput, find_bundle


def first_look_of(bundle: Bundle) -> Bundle | None:
    """The bundle that ``bundle`` names as its first look: in the folder beside it, else the one that ships.

    None where it names none. The hash of ``bundle`` covers the hash that it names, and so the weights of both.

    Raises:
        BadConfig: there is none of the name, it is of another task or needs a first look itself, or its hash is
            another.
    """
    spec = bundle.carina
    if not isinstance(spec, Lung | Lesion) or spec.first_look is None:
        return None
    return _pinned(bundle.name, spec.task, bundle.folder.parent, spec.first_look.bundle, spec.first_look.sha256)


def _pinned(asked_by: str, task: str, folder: Path, name: str, sha256: str) -> Bundle:
    found = find_bundle(name, (folder,))
    spec = found.carina
    if not isinstance(spec, Lung | Lesion) or spec.task != task or spec.first_look:
        raise BadConfig(
            "bundle.first-look",
            f"{found.folder}: {asked_by} names it as its first look; expected a bundle of task {task} without a first "
            f"look of its own, and its task is {spec.task}.",
        )
    if len(spec.labels) > 1 or spec.output is not NetworkOutput.LOGITS:
        raise BadConfig(
            "bundle.first-look",
            f"{found.folder}: {asked_by} names it as its first look; expected one label and output logits, and it has "
            f"{len(spec.labels)} and {spec.output}.",
        )
    if found.sha256 != sha256:
        raise BadConfig(
            "bundle.first-look",
            f"{found.folder}: has the hash {found.sha256[:12]}, {asked_by} names {sha256[:12]} as its first look; put "
            "the bundle that it names beside it, or name this one's hash in its metadata.",
        )
    return found
