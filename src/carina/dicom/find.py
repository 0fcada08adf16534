"""Every series below a path, which one is taken, and why the others are not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from carina.dicom.assemble import Assembled, assemble
from carina.dicom.found import Found, Listing
from carina.dicom.geometry import degrees_from_plane, image_axes, plane
from carina.dicom.headers import SliceHeader, SliceProblem
from carina.dicom.inventory import Inventory
from carina.dicom.losses import lost, with_losses
from carina.dicom.merit import Ranking, Region, region
from carina.dicom.rules import Rules, broken_rules, load_rules
from carina.dicom.scan import is_archive, scan
from carina.dicom.series import Source, VolumeFile
from carina.dicom.volume_file import broken_volumes, volume_file
from carina.dicom.voxel_limit import allowed_voxels
from carina.dicom.walk import Walked, own_of_run, walk
from carina.errors import BadSeries
from carina.volume.files import volume_suffix
from carina.volume.grid import Axes

__all__ = ["Found", "Listing", "choose_source", "find_series", "judge", "judge_each_study", "name_of"]

CLAUSES = 2
"""Rules that a refusal names for one series; what can't be read at all stands alone."""

MOST_NAMED = 8
"""Series that a refusal names before it counts the rest."""

LOOKED_FOR_ARCHIVES = 1000
"""Files whose beginnings are read for a hint, where there is nothing else."""


def find_series(path: Path, rules: Rules | None = None, *, most_voxels: int | None = None) -> Listing:
    """List every DICOM series and volume file below a folder, or in one file, with the verdict of the rules.

    Reads headers only. The best first; ``taken`` marks the one that ``choose`` gives. The listing counts every file
    below the path. A series of more than ``most_voxels`` is not read; None: what this process allows.

    Raises:
        BadSeries: the path does not exist or can't be looked at, or nothing below it is DICOM or a volume file.
        BadConfig: the default rules can't be read (a broken installation).
    """
    rules, most_voxels = rules or load_rules(), most_voxels or allowed_voxels()
    walked = walk(path)
    volumes = [volume_file(file, most_voxels) for file in walked.files if volume_suffix(file)]
    scanned = scan(_without(volumes, walked.files))
    groups = assemble(scanned.slices)
    gone = [*walked.broken, *lost(scanned.broken, scanned.headers)]
    found = [*with_losses((_found(_bounded(group, most_voxels)) for group in groups), gone), *volumes]
    if not found:
        raise BadSeries("series.none-found", _nothing(path, walked))
    copies = frozenset(walked.repeated).union(*(group.copies for group in groups))
    broken = (*walked.broken, *scanned.broken, *broken_volumes(volumes))
    inventory = Inventory(files=walked.count, copies=copies, broken=broken)
    return Listing(found=tuple(judge(_with_inventory(found, inventory), rules)), inventory=inventory)


def _without(volumes: Iterable[Found], files: Iterable[Path]) -> list[Path]:
    """The files that are no volume files, nor hold the voxels of one."""
    known = {file for one in volumes for file in one.files}
    return [file for file in files if file not in known]


def _with_inventory(found: Iterable[Found], inventory: Inventory) -> Iterator[Found]:
    for one in found:
        yield replace(one, source=replace(one.source, inventory=inventory)) if one.source else one


def _nothing(path: Path, walked: Walked) -> str:
    wanted = "expected a DICOM file, MetaImage, NIfTI or NRRD"
    packed = _packed(path, walked)
    if walked.files == [path]:
        return packed or f"{path.name}: neither DICOM nor a volume file, {wanted}."
    if not walked.count:
        return f"{path}: the folder is empty; {wanted}."
    if walked.passed_by and own_of_run(path):
        return f"{path}: this folder is a run of Carina's, whose results are no input; give the CT itself."
    passed_by = len(walked.passed_by)
    but = f" ({passed_by} are hidden, devices, or results of earlier runs)" if passed_by else ""
    neither = f"none of its {walked.count} files is DICOM or a volume file"
    if walked.count == 1:
        neither = "its only file is neither DICOM nor a volume file"
    return f"{path}: {neither}{but}; {packed or f'{wanted}.'}"


def _packed(path: Path, walked: Walked) -> str:
    """What to do about archives, where there are any."""
    archives = [file for file in walked.files[:LOOKED_FOR_ARCHIVES] if is_archive(file)]
    if not archives:
        return ""
    first = archives[0].name if archives[0] == path else archives[0].relative_to(path)
    what = "is an archive" if len(archives) == 1 else f"and {len(archives) - 1} more are archives"
    return f"{first} {what}, not looked into: unpack what holds the CT and give the folder."


def judge(found: Iterable[Found], rules: Rules) -> list[Found]:
    """Apply rules afresh: the verdict on each, the best of those that fit taken, in order of merit."""
    fit, unfit = [], []
    for one in found:
        broken = broken_rules(one, rules)
        is_foreign = any(problem.code == "series.modality" for problem in broken)
        problems = (*broken, *one.problems) if is_foreign else (*one.problems, *broken)
        if problems:
            named = f"{name_of(one)}: "
            reason = _refusal(one, problems).removeprefix(named)
            error = BadSeries(problems[0].code, f"{named}{reason}")
            unfit.append(replace(one, error=error, taken=False, reason=reason))
        else:
            fit.append(replace(one, error=None, taken=False))
    ranking = Ranking.of(fit, rules)
    fit.sort(key=lambda one: (tuple(-m for m in ranking.merits(one)), one.uid, one.part))
    judged = []
    for place, one in enumerate(fit):
        if place == 0:
            judged.append(replace(one, taken=True, reason=_why_taken(one, rules)))
        else:
            judged.append(replace(one, reason=f"{name_of(fit[0])} is taken instead: {ranking.why_better(fit[0], one)}"))
    return judged + sorted(unfit, key=lambda one: (-one.slices, one.uid, one.part))


def judge_each_study(found: Sequence[Found], rules: Rules) -> list[Found]:
    """As ``judge``, with the best of each study taken instead of the best of all."""
    return [one for study in by_study(found) for one in judge(study, rules)]


def by_study(found: Iterable[Found]) -> list[list[Found]]:
    """What was found, study by study; each patient's apart, and what is of no study for itself."""
    known = list(found)
    patients: dict[str, set[str]] = {}
    for one in known:
        patients.setdefault(one.study_uid, set()).update({one.patient} - {""})
    studies: dict[tuple[str, ...], list[Found]] = {}
    for number, one in enumerate(known):
        patient = one.patient if len(patients[one.study_uid]) > 1 else ""
        key = (one.study_uid, patient) if one.study_uid else ("", "", str(number))
        studies.setdefault(key, []).append(one)
    return list(studies.values())


def choose_source(found: Sequence[Found], rules: Rules | None = None, *, uid: str = "") -> Source:
    """The source to run on: the best that fits the rules, or the one with the given UID if it can be read at all.

    Raises:
        BadSeries: none fits; the message says for each why.
    """
    rules = rules or load_rules()
    if uid:
        return _by_uid(found, uid, rules)
    judged = judge(found, rules)
    taken = next((one for one in judged if one.taken), None)
    if taken is not None and taken.source is not None:
        return _with_doubts(taken.source, [*_doubts(taken, rules), *_not_read(taken, judged)])
    raise _none_fits(judged)


def handed_source(found: Sequence[Found]) -> Source:
    """The source among what a step of a run was handed: the best that fits, or all there is, whatever the rules say.

    The series of a run was chosen, or released by hand, before: the rules have no second say in what is made of it.

    Raises:
        BadSeries: nothing can be read, or several series can and none fits.
    """
    rules = load_rules()
    readable = {one.uid for one in found if one.source is not None and not one.problems}
    is_all_there_is = len(readable) == 1 and not any(one.taken for one in judge(found, rules))
    return choose_source(found, rules, uid=readable.pop() if is_all_there_is else "")


def _none_fits(judged: Sequence[Found]) -> BadSeries:
    errors = [one.error for one in judged if one.error is not None]
    if len(errors) == 1:
        return errors[0]
    listed = "; ".join(error.message.rstrip(".") for error in errors[:MOST_NAMED])
    more = f"; and {len(errors) - MOST_NAMED} more" if len(errors) > MOST_NAMED else ""
    return BadSeries("series.none-fits", f"none of {len(judged)} series can be used: {listed}{more}.")


def _with_doubts(source: Source, doubts: Sequence[str]) -> Source:
    """The source, with what speaks against it among its warnings."""
    if isinstance(source, VolumeFile):
        return source
    sentences = tuple(f"{doubt[0].upper()}{doubt[1:]}." for doubt in doubts)
    return replace(source, warnings=source.warnings + sentences)


def _by_uid(found: Sequence[Found], uid: str, rules: Rules) -> Source:
    """The best volume of a UID, those that fit the rules before the others; the others of the UID are told."""
    named = judge((one for one in found if one.uid == uid), rules)
    if any(one.source is not None for one in named):
        return _first_of(named, uid)
    if named and named[0].error is not None:
        raise named[0].error
    raise BadSeries("series.no-such-uid", f"no series {uid} here; {_others_are(len(found))}.")


def _others_are(number: int) -> str:
    return "1 other is" if number == 1 else f"{number} others are"


def _first_of(named: Sequence[Found], uid: str) -> Source:
    readable = [one for one in named if one.source is not None]
    best = readable[0]
    if len({one.patient for one in readable}) > 1:
        raise BadSeries("series.ambiguous", f"series {uid} is that of several patients; give the folder of one.")
    if best.source is None:
        raise BadSeries("series.unreadable", f"{name_of(best)}: can't be read.")
    return _with_doubts(best.source, _not_read(best, named))


def _not_read(taken: Found, found: Iterable[Found]) -> list[str]:
    """What stands under the UID of what is taken and is not read with it, whether it could be or not."""
    others = [one for one in found if one.uid == taken.uid and one is not taken]
    if not others:
        return []
    files = set(taken.files).union(*(one.files for one in others))
    used = len(set(taken.files))
    count = f", {used} of the {len(files)} files under its UID; " if len(files) > used else "; under the same UID "
    listed = ", ".join(map(name_of, others[:MOST_NAMED]))
    more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
    return [f"{name_of(taken)} is read{count}there also is {listed}{more}"]


def _refusal(found: Found, problems: Sequence[SliceProblem]) -> str:
    first = {problem.code: problem for problem in reversed(problems)}
    clauses = [first[code].words.rstrip(".") for code in dict.fromkeys(p.code for p in problems)]
    shown = 1 if problems[0] in found.problems else CLAUSES
    return f"{'; '.join(clauses[:shown])}."


def name_of(found: Found) -> str:
    """How a message names what was found: the series' UID and part, or the file."""
    if not found.uid or (not found.modality and volume_suffix(found.path)):
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
    at, text = region(found, rules.prefer)
    if at in (Region.ELSEWHERE, Region.DISPUTED):
        field = "Series Description" if text == found.description else "Body Part Examined"
        doubts.append(f"{field} is {text}, not the chest")
    return doubts


def _found(group: Assembled) -> Found:
    first, series = group.headers[0], group.series
    axes = _axes(first)
    files = tuple(dict.fromkeys(header.path for header in group.headers))
    return Found(
        path=files[0] if len(files) == 1 else Path(os.path.commonpath([file.parent for file in files])),
        uid=series.uid if series else first.series_uid,
        study_uid=series.study_uid if series else first.study_uid,
        patient=first.patient,
        part=group.part,
        modality=first.modality,
        description=first.description,
        kernel=first.kernel,
        body_part=first.body_part,
        image_type=first.image_type,
        files=files,
        transfer_syntax=first.transfer_syntax,
        slices=len(group.headers) if first.rows else 0,
        matrix=(first.rows, first.columns),
        pixel_spacing_mm=first.pixel_spacing_mm,
        slice_spacing_mm=group.plan.grid.spacing_mm[0] if group.plan else None,
        plane=plane(axes) if axes else "",
        degrees_from_plane=degrees_from_plane(axes) if axes else None,
        source=series,
        problems=group.problems,
    )


def _bounded(group: Assembled, most_voxels: int) -> Assembled:
    """The group without its series where the volume has too many voxels; a tilt that is undone adds some."""
    shape = group.plan.grid.shape if group.plan else (0, 0, 0)
    if max(len(group.headers), shape[0]) * shape[1] * shape[2] <= most_voxels:
        return group
    words = f"its volume has {shape[0]} x {shape[1]} x {shape[2]} voxels, more than limits.voxels ({most_voxels}) allow"
    return replace(group, series=None, problems=(SliceProblem(code="series.memory", words=words),))


def _axes(header: SliceHeader) -> Axes | None:
    try:
        return image_axes(header.orientation) if header.orientation else None
    except BadSeries:
        return None
