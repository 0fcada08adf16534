"""How volumes and masks are stored: a MetaImage on the input's grid, what it can't say in a JSON file beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from carina import RESEARCH_ONLY
from carina.dicom.voxel_limit import allowed_voxels, too_many_voxels
from carina.errors import BadSeries
from carina.operators.stored_files import facts_of, one_file, with_suffix, written_files
from carina.pipeline.json_text import as_json
from carina.pipeline.places import file_name
from carina.pipeline.ports import Saved
from carina.volume.files import SUFFIXES, read_mask, read_volume, read_volume_header, write_mask, write_volume
from carina.volume.volume import Mask, Volume


class StoredVolume:
    """A volume's files: ``UID.mhd`` and, where there is more to say, ``UID.json``."""

    @staticmethod
    def save(volume: Volume, folder: Path, saved: Saved) -> Sequence[Path]:
        """Write a volume."""
        stem = file_name(volume.uid)
        write_volume(volume, folder / f"{stem}.mhd")
        if volume.warnings or volume.uid != stem:
            facts = {"uid": volume.uid, "warnings": volume.warnings}
            (folder / f"{stem}.json").write_bytes(as_json(facts))
        return written_files(folder, f"{stem}.mhd")

    @staticmethod
    def load(files: Sequence[Path]) -> Volume:
        """Read a volume, also one that others wrote."""
        volume, facts = read_volume(_within_limits(one_file(files, "volume", *SUFFIXES))), facts_of(files)
        return replace(volume, uid=facts.get("uid", volume.uid), warnings=tuple(facts.get("warnings", ())))

    @staticmethod
    def recognise(files: Sequence[Path]) -> bool:
        """Whether there is an image."""
        return bool(with_suffix(files, *SUFFIXES))


class StoredMask:
    """A mask's files: ``UID.mhd`` and ``UID.json`` with the labels' words, who made it, warnings and refusals."""

    @staticmethod
    def save(mask: Mask, folder: Path, saved: Saved) -> Sequence[Path]:
        """Write a mask."""
        stem = file_name(mask.uid)
        write_mask(mask, folder / f"{stem}.mhd")
        facts = {
            "uid": mask.uid,
            "names": {str(label): word for label, word in mask.names.items()},
            "made_by": mask.made_by,
            "warnings": mask.warnings,
            "refusals": mask.refusals,
            "notice": RESEARCH_ONLY,
        }
        (folder / f"{stem}.json").write_bytes(as_json(facts))
        return written_files(folder, f"{stem}.mhd")

    @staticmethod
    def load(files: Sequence[Path]) -> Mask:
        """Read a mask, also one that others wrote: its labels are named by their numbers then."""
        facts = facts_of(files)
        names = {int(label): str(word) for label, word in facts.get("names", {}).items()}
        mask = read_mask(_within_limits(one_file(files, "mask", *SUFFIXES)), names)
        known: dict[str, Any] = {key: facts[key] for key in ("uid", "made_by") if key in facts}
        known |= {key: tuple(facts[key]) for key in ("warnings", "refusals") if key in facts}
        return replace(mask, **known)

    @staticmethod
    def recognise(files: Sequence[Path]) -> bool:
        """Whether there is an image of labels: the file beside it names them, or no voxel is anything else."""
        try:
            return "names" in facts_of(files) or bool(
                read_mask(_within_limits(one_file(files, "mask", *SUFFIXES))).names
            )
        except BadSeries:
            return False


def _within_limits(path: Path) -> Path:
    """The image, seen to have no more voxels than are allowed before any is unpacked.

    Raises:
        BadSeries: ``file.too-large``; or its header can't be read.
    """
    z, y, x = read_volume_header(path).grid.shape
    if z * y * x > allowed_voxels():
        raise too_many_voxels(path.name, f"its volume has {z} x {y} x {x} voxels", "file.too-large")
    return path
