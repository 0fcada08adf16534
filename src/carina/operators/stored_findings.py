"""How a classification and a volume ratio are stored: JSON for the numbers, NPZ for the slices to show."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from carina import RESEARCH_ONLY
from carina.measure.findings import (
    Classification,
    KeySlice,
    LesionSite,
    RatioFindings,
    RegionFindings,
    SaliencyFindings,
    SaliencyMethod,
)
from carina.operators.stored_files import one_file, read_tree, with_suffix
from carina.operators.stored_text import (
    holds_ratio,
    read_classification,
    read_ratio,
    write_classification,
    write_ratio,
)
from carina.pipeline.json_text import as_pretty_json
from carina.pipeline.ports import Saved

_SALIENCY = ("label", "lowest", "highest", "blocks", "method")


class StoredClassification:
    """A classification's files: ``classification.json`` and its slices, its saliency's in a file of their own.

    Beside them ``classification.csv``, as the published pipeline hands it on; a CSV or text file alone is read too.
    """

    @staticmethod
    def save(classification: Classification, folder: Path, saved: Saved) -> Sequence[Path]:
        """Write a classification."""
        facts = {
            "uid": classification.uid,
            "probabilities": dict(classification.probabilities),
            "made_by": classification.made_by,
            "warnings": classification.warnings,
            "not_computed": classification.not_computed,
            "limits": classification.limits,
            "notice": RESEARCH_ONLY,
        }
        saliency, slices = classification.saliency, []
        if saliency is not None:
            facts["saliency"] = {name: getattr(saliency, name) for name in _SALIENCY}
            slices = [_save_key_slices(saliency.key_slices, folder / "saliency-slices.npz")]
        written = _save_findings(facts, classification.key_slices, folder / "classification.json")
        return [*written, *slices, write_classification(classification, folder)]

    @staticmethod
    def load(files: Sequence[Path]) -> Classification:
        """Read what ``save`` wrote, or the probabilities in a CSV or text file alone."""
        if not with_suffix(files, "classification.json"):
            return read_classification(one_file(files, "classification", ".csv", ".txt"))
        facts = read_tree(one_file(files, "classification", "classification.json"))
        saliency = facts.get("saliency")
        return Classification(
            uid=facts["uid"],
            probabilities=facts["probabilities"],
            made_by=facts["made_by"],
            warnings=tuple(facts["warnings"]),
            not_computed=facts["not_computed"],
            limits=tuple(facts.get("limits", ())),
            key_slices=_load_key_slices(files),
            saliency=_saliency(saliency, files) if saliency else None,
        )

    @staticmethod
    def recognise(files: Sequence[Path]) -> bool:
        """Whether there is a ``classification.json``, or one table or text that is no volume ratio's."""
        alone = with_suffix(files, ".csv", ".txt")
        return bool(with_suffix(files, "classification.json")) or (len(alone) == 1 and not StoredRatio.recognise(files))


def _saliency(facts: Mapping[str, Any], files: Sequence[Path]) -> SaliencyFindings:
    return SaliencyFindings(
        label=facts["label"],
        lowest=facts["lowest"],
        highest=facts["highest"],
        blocks=tuple(facts["blocks"]),
        method=SaliencyMethod(facts.get("method", SaliencyMethod.OCCLUSION)),
        key_slices=_load_key_slices(files, "saliency-slices.npz"),
    )


def read_sites(facts: Sequence[Mapping[str, Any]]) -> tuple[LesionSite, ...]:
    """Lesions one by one, as they are stored."""
    return tuple(LesionSite(**{**site, "index": tuple(site["index"])}) for site in facts)


class StoredRatio:
    """A volume ratio's files: ``volume-ratio.json``, its slices, and ``volume-ratio.txt``, which is read alone too."""

    @staticmethod
    def save(ratio: RatioFindings, folder: Path, saved: Saved) -> Sequence[Path]:
        """Write a volume ratio."""
        facts = {
            "uid": ratio.uid,
            "regions": [asdict(region) for region in ratio.regions],
            "lesion_count": ratio.lesion_count,
            "lesions": [asdict(site) for site in ratio.lesions],
            "lesion_made_by": ratio.lesion_made_by,
            "lung_made_by": ratio.lung_made_by,
            "warnings": ratio.warnings,
            "notice": RESEARCH_ONLY,
        }
        return [*_save_findings(facts, ratio.key_slices, folder / "volume-ratio.json"), write_ratio(ratio, folder)]

    @staticmethod
    def load(files: Sequence[Path]) -> RatioFindings:
        """Read what ``save`` wrote, or its text alone."""
        if not with_suffix(files, "volume-ratio.json"):
            return read_ratio(one_file(files, "volume ratio", ".txt"))
        facts = read_tree(one_file(files, "volume ratio", "volume-ratio.json"))
        return RatioFindings(
            uid=facts["uid"],
            regions=tuple(RegionFindings(**region) for region in facts["regions"]),
            lesion_count=facts["lesion_count"],
            lesions=read_sites(facts.get("lesions", [])),
            lesion_made_by=facts["lesion_made_by"],
            lung_made_by=facts["lung_made_by"],
            warnings=tuple(facts["warnings"]),
            key_slices=_load_key_slices(files),
        )

    @staticmethod
    def recognise(files: Sequence[Path]) -> bool:
        """Whether there is a ``volume-ratio.json``, or its text."""
        return bool(with_suffix(files, "volume-ratio.json")) or any(map(holds_ratio, with_suffix(files, ".txt")))


def _save_findings(facts: dict[str, Any], key_slices: Sequence[KeySlice], path: Path) -> Sequence[Path]:
    path.write_bytes(as_pretty_json(facts))
    return [path, _save_key_slices(key_slices, path.with_name("key-slices.npz"))]


def _save_key_slices(key_slices: Sequence[KeySlice], path: Path) -> Path:
    arrays: dict[str, Any] = {"index": np.array([key.index for key in key_slices], dtype=np.int64)}
    for number, key in enumerate(key_slices):
        arrays |= {f"lung{number}": key.lung, f"lesion{number}": key.lesion, f"spacing{number}": key.spacing_mm}
        if key.hu is not None:
            arrays[f"hu{number}"] = key.hu
        if key.saliency is not None:
            arrays[f"saliency{number}"] = key.saliency
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:  # numpy takes level 6, slowly
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return path


def _load_key_slices(files: Sequence[Path], name: str = "key-slices.npz") -> tuple[KeySlice, ...]:
    found = with_suffix(files, name)
    if not found:
        return ()
    with np.load(found[0], allow_pickle=False) as arrays:
        return tuple(
            KeySlice(
                index=int(index),
                spacing_mm=(float(arrays[f"spacing{number}"][0]), float(arrays[f"spacing{number}"][1])),
                lung=arrays[f"lung{number}"],
                lesion=arrays[f"lesion{number}"],
                hu=arrays.get(f"hu{number}"),
                saliency=arrays.get(f"saliency{number}"),
            )
            for number, index in enumerate(arrays["index"])
        )
