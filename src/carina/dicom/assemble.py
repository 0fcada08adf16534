"""Slices to series: grouped, told apart, ordered, checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import floor
from pathlib import Path

from carina.dicom.acquisitions import Group, acquisitions
from carina.dicom.copies import without_copies
from carina.dicom.geometry import (
    VolumePlan,
    check_spacing,
    distances_mm,
    image_axes,
    plan_volume,
    slice_name,
)
from carina.dicom.headers import GRAYSCALE, SliceHeader, SliceProblem
from carina.dicom.patients import are_several
from carina.dicom.remarks import remarks
from carina.dicom.series import Instance, Series
from carina.dicom.uids import derived_uid
from carina.dicom.values import named
from carina.dicom.whole_header import read_header
from carina.errors import BadSeries
from carina.volume.grid import Axes

SAME_COSINE = 1e-3
SAME_SPACING_MM = 1e-3
TURN = (1, 2, 3, 5, 7, 11)
"""Weights of the six cosines, so that a thousand views of a turning body are not compared each with each."""

SCOUTS = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"})
HU_TYPES = frozenset({"", "HU"})
BITS = (8, 16, 32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Assembled:
    """A group of slices, with the series they make or with what is wrong.

    ``part`` says what tells the group apart where one series held several. ``plan`` and ``series`` are None where a
    problem is found. ``copies`` are files that repeat one of the group.
    """

    headers: Group
    part: str
    series: Series | None
    plan: VolumePlan | None
    problems: tuple[SliceProblem, ...]
    copies: tuple[Path, ...] = ()


def assemble(headers: Iterable[SliceHeader]) -> list[Assembled]:
    """Group slices into series, split what is several acquisitions under one UID, and check each group."""
    done: list[Assembled] = []
    for group, study in _by_series(headers):
        for whole, patient in _numbered(_by_patient(group), "patient"):
            for part, plane in _numbered(_by_plane(whole), "plane"):
                done.extend(_acquisitions(part, ", ".join(filter(None, (study, patient, plane)))))
    return done


def _numbered(parts: Sequence[Group], what: str) -> list[tuple[Group, str]]:
    """The parts with a label each, where they are several."""
    count = len(parts)
    return [(part, f"{what} {number} of {count}" if count > 1 else "") for number, part in enumerate(parts, start=1)]


def _acquisitions(group: Group, label: str) -> list[Assembled]:
    kept, dropped = without_copies(group)
    copies = tuple(dict.fromkeys(header.path for header in dropped))
    parts = acquisitions(kept, _axes(kept))
    return [_build(part, ", ".join(filter(None, (label, name))), copies) for name, part in parts]


def _by_series(headers: Iterable[SliceHeader]) -> list[tuple[Group, str]]:
    """Group by Series Instance UID, where that is empty by folder; labelled where several studies have one UID."""
    series: dict[str, dict[tuple[str, str], list[SliceHeader]]] = {}
    for header in headers:
        studies = series.setdefault(header.series_uid or f"folder {header.path.parent}", {})
        studies.setdefault((header.study_uid, header.modality), []).append(header)
    groups = (_numbered([tuple(studies[key]) for key in sorted(studies)], "study") for studies in series.values())
    return [labelled for group in groups for labelled in group]


def _by_patient(group: Group) -> list[Group]:
    """Part the slices of several patients, in an order that only the patients decide."""
    patients: dict[str, list[SliceHeader]] = {}
    for header in group:
        patients.setdefault(header.patient, []).append(header)
    if not are_several([header.patient for header in group]):
        return [group]
    return [tuple(patients[patient]) for patient in sorted(patients)]


def _by_plane(group: Group) -> list[Group]:
    """Part slices of different size, orientation, pixel spacing, kind: no volume could hold both."""
    planes: list[list[SliceHeader]] = []
    near: dict[tuple[tuple[int, int], int], list[int]] = {}
    for header in group:
        size, turn = (header.rows, header.columns), _turn(header)
        known = sorted(number for step in (-1, 0, 1) for number in near.get((size, turn + step), ()))
        own = next((planes[number] for number in known if _same_plane(planes[number][0], header)), None)
        if own is None:
            near.setdefault((size, turn), []).append(len(planes))
            planes.append(own := [])
        own.append(header)
    return [tuple(plane) for plane in sorted(planes, key=len, reverse=True)]


def _turn(header: SliceHeader) -> int:
    """A number for the orientation: of two that are the same within ``SAME_COSINE``, it differs by one at most."""
    turned = sum(weight * cosine for weight, cosine in zip(TURN, header.orientation or (), strict=False))
    return floor(turned / (SAME_COSINE * sum(TURN)))


def _same_plane(one: SliceHeader, other: SliceHeader) -> bool:
    return (
        one.sop_class_uid == other.sop_class_uid
        and (one.rows, one.columns) == (other.rows, other.columns)
        and _is_scout(one) == _is_scout(other)
        and _close(one.orientation, other.orientation, SAME_COSINE)
        and _close(one.pixel_spacing_mm, other.pixel_spacing_mm, SAME_SPACING_MM)
    )


def _close(one: Sequence[float] | None, other: Sequence[float] | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    return all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))


def _is_scout(header: SliceHeader) -> bool:
    return not SCOUTS.isdisjoint(header.image_type)


def _axes(group: Group) -> Axes | None:
    """The group's common axes; None where a slice has no usable place."""
    first = group[0].orientation
    if first is None or any(header.position_mm is None for header in group):
        return None
    try:
        return image_axes(first)
    except BadSeries:
        return None


def _build(group: Group, part: str, copies: tuple[Path, ...]) -> Assembled:
    problems = [problem for problem in (check(group) for check in SLICE_CHECKS) if problem is not None]
    if not problems:
        try:
            series, plan = _series(group, len(copies))
        except BadSeries as error:
            words = error.message.removeprefix(f"series {group[0].series_uid}: ")
            problems = [SliceProblem(code=error.code, words=words)]
        else:
            return Assembled(headers=group, part=part, series=series, plan=plan, problems=(), copies=copies)
    return Assembled(headers=group, part=part, series=None, plan=None, problems=tuple(problems), copies=copies)


def _first(group: Group, is_bad: Callable[[SliceHeader], bool]) -> SliceHeader | None:
    return next((header for header in group if is_bad(header)), None)


def _check_kind(group: Group) -> SliceProblem | None:
    header = _first(group, _is_scout)
    if header is None:
        return None
    return SliceProblem(
        code="series.localizer",
        words=f"it is a localizer (Image Type {joined_text(header.image_type)}), which is no volume",
    )


def _check_pixels(group: Group) -> SliceProblem | None:
    header = _first(group, lambda h: h.pixels is not None)
    if header is None or header.pixels is None:
        return None
    return SliceProblem(code=header.pixels.code, words=f"{_name(header)}: {header.pixels.words}")


def _check_gray(group: Group) -> SliceProblem | None:
    header = _first(
        group, lambda h: bool(h.bits) and (h.samples != 1 or h.photometric not in GRAYSCALE or h.bits not in BITS)
    )
    if header is None:
        return None
    return SliceProblem(
        code="series.photometric",
        words=f"{_name(header)}: its pixels are {header.photometric} with {header.samples} sample(s) of "
        f"{header.bits} bits, expected MONOCHROME2 with one of 16",
    )


def _check_hu(group: Group) -> SliceProblem | None:
    wrong = _first(group, lambda h: h.rescale_type not in HU_TYPES)
    if wrong is not None:
        words = f"{_name(wrong)}: Rescale Type is {wrong.rescale_type}, expected HU"
        return SliceProblem(code="series.no-hu", words=words)
    missing = _first(group, lambda h: bool(h.bits) and (h.slope is None or h.intercept is None))
    if missing is None:
        return None
    wrong_number = missing.faults.get("RescaleSlope") or missing.faults.get("RescaleIntercept")
    what = wrong_number or "no Rescale Slope (0028,1053) and Intercept (0028,1052)"
    return SliceProblem(code="series.no-hu", words=f"{_name(missing)}: {what}, so its values are no HU")


def _check_place(group: Group) -> SliceProblem | None:
    for keyword, is_absent in (
        ("PixelSpacing", lambda h: h.pixel_spacing_mm is None),
        ("ImagePositionPatient", lambda h: h.position_mm is None),
        ("ImageOrientationPatient", lambda h: h.orientation is None),
    ):
        header = _first(group, is_absent)
        if header is not None and header.bits:
            code = "series.no-spacing" if keyword == "PixelSpacing" else "series.no-position"
            words = header.faults.get(keyword) or f"{named(keyword)} is missing"
            return SliceProblem(code=code, words=f"{_name(header)}: {words}")
    return None


def _check_count(group: Group) -> SliceProblem | None:
    if len(group) > 1:
        return None
    return SliceProblem(code="series.few-slices", words="it has 1 slice; a volume needs several")


SLICE_CHECKS = (_check_kind, _check_pixels, _check_place, _check_gray, _check_hu, _check_count)
"""What slices must have before their places are looked at, in the order that a message lists it."""


def joined_text(values: Sequence[str]) -> str:
    """Several values as DICOM writes them."""
    return "\\".join(values)


def _name(header: SliceHeader) -> str:
    return slice_name(header.path.name, header.frame)


def _series(group: Group, copies: int) -> tuple[Series, VolumePlan]:
    axes = image_axes(group[0].orientation or ())
    ordered = _in_order(group, axes)
    uid = ordered[0].series_uid or derived_uid("series", *(_content(header) for header in ordered))
    instances, warnings = _instances(ordered, uid)
    spacing = ordered[0].pixel_spacing_mm
    if spacing is None:
        raise BadSeries("series.no-spacing", f"{_name(ordered[0])}: Pixel Spacing (0028,0030) is missing.")
    series = Series(
        uid=uid,
        study_uid=ordered[0].study_uid or derived_uid("study", uid),
        frame_of_reference_uid=ordered[0].frame_of_reference_uid or derived_uid("frame of reference", uid),
        header=read_header(ordered[0].path),
        instances=instances,
        rows=ordered[0].rows,
        columns=ordered[0].columns,
        pixel_spacing_mm=spacing,
        slice_axes=axes,
    )
    plan = plan_volume(series)
    warnings += remarks(plan, ordered)
    if copies:
        warnings.append(f"{copies} file(s) hold slices that others hold as well, voxel for voxel, and were left out.")
    return replace(series, warnings=tuple(warnings)), plan


def _in_order(group: Group, axes: Axes) -> Group:
    """The slices along their normal.

    Raises:
        BadSeries: their distances make no volume.
    """
    along = distances_mm([header.position_mm or (0.0, 0.0, 0.0) for header in group], axes)
    order = sorted(range(len(group)), key=lambda k: (along[k], group[k].instance_number or 0, group[k].path))
    ordered = tuple(group[k] for k in order)
    check_spacing(along[order], [_name(header) for header in ordered])
    return ordered


def _instances(ordered: Group, uid: str) -> tuple[tuple[Instance, ...], list[str]]:
    """The instances, with UIDs of their own where the files have none; the same files always give the same UIDs."""
    uses = Counter({header.path: header.sop_instance_uid for header in ordered}.values())
    instances, derived = [], 0
    for header in ordered:
        stated = header.sop_instance_uid
        if not stated or uses[stated] > 1:
            derived += 1
            stated = derived_uid("instance", uid, _content(header))
        instances.append(
            Instance(
                path=header.path,
                sop_instance_uid=stated,
                sop_class_uid=header.sop_class_uid,
                position_mm=header.position_mm or (0.0, 0.0, 0.0),
                instance_number=header.instance_number,
                frame=header.frame,
                rescale=(header.slope or 0.0, header.intercept or 0.0),
            )
        )
    warnings = []
    if derived:
        warnings.append(
            f"{derived} of {len(ordered)} slices have an empty or repeated SOP Instance UID; "
            "references use UIDs derived from their content."
        )
    return tuple(instances), warnings


def _content(header: SliceHeader) -> str:
    return f"{header.sop_instance_uid}|{header.position_mm}|{header.instance_number}|{header.frame}"
