"""Broken files and the series whose slices they may have been: a loss is told where it matters."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from carina.dicom.found import Found
from carina.dicom.headers import SliceHeader, SliceProblem
from carina.dicom.inventory import BrokenFile
from carina.dicom.scan import name_shape
from carina.dicom.series import Series

NAMED = 3
"""Broken files that a sentence names before it counts the rest."""

INCOMPLETE = frozenset({"series.gap", "series.uneven", "series.few-slices"})
"""Problems that a lost slice explains."""


def lost(broken: Iterable[BrokenFile], headers: Iterable[SliceHeader]) -> list[BrokenFile]:
    """The broken files of which no whole copy is there."""
    whole = {(header.sop_instance_uid, header.position_mm) for header in headers if header.sop_instance_uid}
    return [one for one in broken if (one.sop_instance_uid, one.position_mm) not in whole]


def with_losses(found: Iterable[Found], broken: Sequence[BrokenFile]) -> list[Found]:
    """What was found, each series with the broken files that may have been its own; the others stand for themselves."""
    known = list(found)
    own: dict[int, list[BrokenFile]] = defaultdict(list)
    left: list[BrokenFile] = []
    for one in broken:
        owners = [index for index in _owners(one, known) if _may_be_incomplete(known[index])]
        for index in owners:
            own[index].append(one)
        if not owners:
            left.append(one)
    return [_with_loss(one, own[index]) for index, one in enumerate(known)] + _by_folder(_untold(left, known))


def _untold(broken: Iterable[BrokenFile], found: Sequence[Found]) -> Iterator[BrokenFile]:
    """Those that nothing that was found tells of: they are no file of it, nor of its UID."""
    uids = {one.uid for one in found} - {""}
    files = {file for one in found for file in one.files}
    yield from (one for one in broken if one.series_uid not in uids and one.path not in files)


def _may_be_incomplete(found: Found) -> bool:
    """Whether slices are left of which a loss says something; a series of broken slices alone tells of them itself."""
    return isinstance(found.source, Series) or found.problems[0].code in INCOMPLETE


def _owners(one: BrokenFile, found: Sequence[Found]) -> list[int]:
    """Which series a broken file may have been a slice of: by its UID, else by its folder and the form of its name."""
    if one.series_uid:
        return [index for index, other in enumerate(found) if other.uid == one.series_uid]
    beside = {index: _beside(one, other) for index, other in enumerate(found)}
    near = [index for index, files in beside.items() if files]
    alike = [index for index in near if name_shape(one.path) in map(name_shape, beside[index])]
    return alike or near


def _beside(one: BrokenFile, found: Found) -> list[Path]:
    return [file for file in found.files if file.parent == one.path.parent]


def _with_loss(found: Found, broken: Sequence[BrokenFile]) -> Found:
    if not broken:
        return found
    if isinstance(found.source, Series):
        source = replace(found.source, warnings=(*found.source.warnings, _warning(broken)))
        return replace(found, source=source)
    left = re.sub(r"^it\b", "the series", found.problems[0].words)
    words = f"{_listed(broken)}, and without {_pronoun(broken)} {left}"
    return replace(found, problems=(SliceProblem(code=broken[0].code, words=words), *found.problems))


def _warning(broken: Sequence[BrokenFile]) -> str:
    if any(one.series_uid for one in broken):
        return f"{_listed(broken)}; slices are missing at its end."
    belongs = "it belongs" if len(broken) == 1 else "they belong"
    return f"{_listed(broken)}; if {belongs} to this series, slices are missing at its end."


def _pronoun(broken: Sequence[BrokenFile]) -> str:
    return "it" if len(broken) == 1 else "them"


def _listed(broken: Sequence[BrokenFile]) -> str:
    """How many files are broken, and which; one speaks for itself."""
    if len(broken) == 1:
        return broken[0].words
    named = "; ".join(one.words for one in broken[:NAMED])
    more = f"; and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
    return f"{len(broken)} files are broken ({named}{more})"


def _by_folder(broken: Iterable[BrokenFile]) -> list[Found]:
    """Broken files that belong to nothing that was found, those of a folder as one."""
    folders: dict[Path, list[BrokenFile]] = defaultdict(list)
    for one in broken:
        folders[one.path.parent].append(one)
    return [_unknown(folder, files) for folder, files in folders.items()]


def _unknown(folder: Path, broken: Sequence[BrokenFile]) -> Found:
    words = broken[0].reason if len(broken) == 1 else _listed(broken)
    path = broken[0].path if len(broken) == 1 else folder
    return Found(path=path, uid="", problems=(SliceProblem(code=broken[0].code, words=words),))
