"""Every series below a path, which one is taken, and why the others are not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from carina.dicom.assemble import Assembled, Problem, assemble
from carina.dicom.geometry import degrees_from_plane, image_axes, plane
from carina.dicom.headers import SliceHeader, slice_headers
from carina.dicom.rules import (
    Found,
    Rules,
    broken_rules,
    is_other_region,
    load_rules,
    merits,
    why_better,
)
from carina.dicom.series import Source, VolumeFile
from carina.errors import BadSeries
from carina.volume.files import read_grid, volume_name, volume_suffix
from carina.volume.grid import Axes

__all__ = ["Found", "choose", "find_series", "judge", "judge_each_study", "name_of"]

SCAN_THREADS = 2
"""Headers are parsed under the interpreter lock; threads hide the wait for slow storage."""

CLAUSES = 2
"""Rules that a refusal names for one series; what can't be read at all stands alone."""

LOSSES = frozenset({"series.truncated", "series.unreadable", "series.no-pixels"})
"""Problems of files that may have been slices of a series beside them."""

LISTED = 8
"""Series that a refusal names before it counts the rest."""


def find_series(path: Path, rules: Rules | None = None) -> list[Found]:
    """List every DICOM series and volume file below a folder, or in one file, with the verdict of the rules.

    Reads headers only. The best first; ``taken`` marks the one that ``choose`` gives.

    Raises:
        BadSeries: the path does not exist, or nothing below it is DICOM or a volume file.
        BadConfig: the default rules can't be read (a broken installation).
    """
    rules = rules or load_rules()
    if not path.exists():
        raise BadSeries("series.no-path", f"{path}: no such file or folder.")
    files = list(_files(path))
    volumes = [file for file in files if volume_suffix(file)]
    candidates = [file for file in files if not volume_suffix(file)]
    headers, broken = _scan(candidates)
    found = [_found(group) for group in assemble(headers)]
    found += [_broken_file(file, error) for file, error in broken]
    found += [_volume_file(file) for file in volumes]
    if not found:
        raise BadSeries("series.none-found", _nothing(path, len(candidates)))
    return judge(_with_losses(found), rules)


def _with_losses(found: Sequence[Found]) -> list[Found]:
    """Each series that can be read, with a warning where a broken file lies beside it that may be its own."""
    lost = [one for one in found if one.problems and one.problems[0].code in LOSSES]
    return [_with_loss(one, lost) for one in found]


def _with_loss(found: Found, lost: Iterable[Found]) -> Found:
    if found.source is None or isinstance(found.source, VolumeFile):
        return found
    folders = {instance.path.parent for instance in found.source.instances}
    beside = [one for one in lost if one.uid == found.uid or (not one.uid and one.path.parent in folders)]
    if not beside:
        return found
    words = f"{beside[0].problems[0].words.rstrip('.')}; if it belongs to this series, slices are missing at its end."
    return replace(found, source=replace(found.source, warnings=(*found.source.warnings, words)))


def _nothing(path: Path, others: int) -> str:
    wanted = "expected a DICOM file, MetaImage, NIfTI or NRRD"
    if path.is_file():
        return f"{path.name}: neither DICOM nor a volume file, {wanted}."
    if not others:
        return f"{path}: the folder is empty; {wanted}."
    return f"{path}: none of its {others} files is DICOM or a volume file; {wanted}."


def judge(found: Iterable[Found], rules: Rules) -> list[Found]:
    """Apply rules afresh: the verdict on each, the best of those that fit taken, in order of merit."""
    fit, unfit = [], []
    for one in found:
        broken = broken_rules(one, rules)
        is_foreign = any(problem.code == "series.modality" for problem in broken)
        problems = (*broken, *one.problems) if is_foreign else (*one.problems, *broken)
        if problems:
            reason = _refusal(one, problems)
            error = BadSeries(problems[0].code, f"{name_of(one)}: {reason}")
            unfit.append(replace(one, error=error, taken=False, reason=reason))
        else:
            fit.append(replace(one, error=None, taken=False))
    fit.sort(key=lambda one: (tuple(-m for m in merits(one, rules)), one.uid, one.part))
    judged = []
    for place, one in enumerate(fit):
        if place == 0:
            judged.append(replace(one, taken=True, reason=_why_taken(one, rules)))
        else:
            judged.append(replace(one, reason=f"{name_of(fit[0])} is taken instead: {why_better(fit[0], one, rules)}"))
    return judged + sorted(unfit, key=lambda one: (-one.slices, one.uid, one.part))


def judge_each_study(found: Sequence[Found], rules: Rules) -> list[Found]:
    """As ``judge``, with the best of each study taken instead of the best of all."""
    studies = dict.fromkeys(one.study_uid for one in found)
    return [one for uid in studies for one in judge([f for f in found if f.study_uid == uid], rules)]


def choose(found: Sequence[Found], rules: Rules | None = None, *, uid: str = "") -> Source:
    """The source to run on: the best that fits the rules, or the one with the given UID if it can be read at all.

    Raises:
        BadSeries: none fits; the message says for each why.
    """
    rules = rules or load_rules()
    if uid:
        return _by_uid(found, uid)
    judged = judge(found, rules)
    taken = next((one for one in judged if one.taken), None)
    if taken is not None and taken.source is not None:
        return _with_doubts(taken.source, _doubts(taken, rules))
    errors = [one.error for one in judged if one.error is not None]
    if len(errors) == 1:
        raise errors[0]
    listed = "; ".join(error.message.rstrip(".") for error in errors[:LISTED])
    more = f"; and {len(errors) - LISTED} more" if len(errors) > LISTED else ""
    raise BadSeries("series.none-fits", f"none of {len(judged)} series can be used: {listed}{more}.")


def _with_doubts(source: Source, doubts: Sequence[str]) -> Source:
    """The source, with what speaks against it among its warnings."""
    if isinstance(source, VolumeFile):
        return source
    sentences = tuple(f"{doubt[0].upper()}{doubt[1:]}." for doubt in doubts)
    return replace(source, warnings=source.warnings + sentences)


def _by_uid(found: Sequence[Found], uid: str) -> Source:
    named = [one for one in found if one.uid == uid]
    for one in sorted(named, key=lambda one: -one.slices):
        if one.source is not None:
            return one.source
    if named and named[0].error is not None:
        raise named[0].error
    raise BadSeries("series.no-such-uid", f"no series {uid} here; {len(found)} others are.")


def _refusal(found: Found, problems: Sequence[Problem]) -> str:
    first = {problem.code: problem for problem in reversed(problems)}
    clauses = [first[code].words.rstrip(".") for code in dict.fromkeys(p.code for p in problems)]
    shown = 1 if problems[0] in found.problems else CLAUSES
    return f"{'; '.join(clauses[:shown])}."


def name_of(found: Found) -> str:
    """How a message names what was found: the series' UID and part, or the file."""
    if isinstance(found.source, VolumeFile) or not found.uid:
        return found.path.name
    return f"series {found.uid}" + (f" ({found.part})" if found.part else "")


def _why_taken(found: Found, rules: Rules) -> str:
    facts = [f"{found.slices} slices", f"{found.slice_spacing_mm or 0:.2f} mm apart"]
    facts += [f"kernel {found.kernel}"] if found.kernel else []
    return f"fits the rules: {', '.join(facts)}" + "".join(f"; {doubt}" for doubt in _doubts(found, rules))


def _doubts(found: Found, rules: Rules) -> list[str]:
    """What speaks against a series without ruling it out."""
    doubts = []
    coverage = found.coverage_mm or 0.0
    if coverage < rules.prefer.coverage_mm:
        doubts.append(f"it covers only {coverage:.0f} mm, hardly a whole chest")
    if is_other_region(found, rules):
        doubts.append(f"Body Part Examined is {found.body_part}, not the chest")
    return doubts


def _files(path: Path) -> Iterator[Path]:
    """Every file below ``path``, links to folders followed, each folder once."""
    if path.is_file():
        yield path
        return
    seen = set()
    for folder, folders, names in os.walk(path, followlinks=True):
        place = Path(folder).stat()
        if (place.st_dev, place.st_ino) in seen:  # a link in a circle, or two to one folder
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if not name.startswith(".") and file.is_file():
                yield file


def _scan(paths: Sequence[Path]) -> tuple[list[SliceHeader], list[tuple[Path, BadSeries]]]:
    with ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="scan") as pool:
        results = list(pool.map(_scan_file, paths))
    headers = [header for result in results if isinstance(result, list) for header in result]
    broken = [(p, r) for p, r in zip(paths, results, strict=True) if isinstance(r, BadSeries)]
    return headers, broken


def _scan_file(path: Path) -> list[SliceHeader] | BadSeries:
    try:
        return slice_headers(path)
    except BadSeries as error:
        return error


def _broken_file(path: Path, error: BadSeries) -> Found:
    return Found(path=path, uid="", problems=(Problem(code=error.code, words=error.message),))


def _found(group: Assembled) -> Found:
    first = group.headers[0]
    axes = _axes(first)
    paths = {header.path for header in group.headers}
    spacing = group.plan.grid.spacing_mm[0] if group.plan else None
    return Found(
        path=first.path if len(paths) == 1 else Path(os.path.commonpath([p.parent for p in paths])),
        uid=group.series.uid if group.series else first.series_uid,
        study_uid=group.series.study_uid if group.series else first.study_uid,
        part=group.part,
        modality=first.modality,
        description=first.description,
        kernel=first.kernel,
        body_part=first.body_part,
        image_type=first.image_type,
        transfer_syntax=first.transfer_syntax,
        slices=len(group.headers) if first.rows else 0,
        matrix=(first.rows, first.columns),
        pixel_spacing_mm=first.pixel_spacing_mm,
        slice_spacing_mm=spacing,
        plane=plane(axes) if axes else "",
        degrees_from_plane=degrees_from_plane(axes) if axes else None,
        source=group.series,
        problems=group.problems,
    )


def _axes(header: SliceHeader) -> Axes | None:
    try:
        return image_axes(header.orientation) if header.orientation else None
    except BadSeries:
        return None


def _volume_file(path: Path) -> Found:
    uid = volume_name(path)
    try:
        grid, voxel_type = read_grid(path)
    except BadSeries as error:
        return replace(_broken_file(path, error), uid=uid)
    problem: tuple[Problem, ...] = ()
    if voxel_type.startswith("8-bit"):
        problem = (Problem(code="file.no-hu", words="8-bit values can't be HU; give the CT itself, not a mask"),)
    axes = grid.axes
    return Found(
        path=path,
        uid=uid,
        description=path.name,
        slices=grid.shape[0],
        matrix=grid.shape[1:],
        pixel_spacing_mm=grid.spacing_mm[1:],
        slice_spacing_mm=grid.spacing_mm[0],
        plane=plane(axes),
        source=VolumeFile(path=path, uid=uid),
        problems=problem,
    )
