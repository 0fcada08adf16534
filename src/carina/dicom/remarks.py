"""What a manifest says of a series that is read although something about it is unusual."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from carina.dicom.geometry import VolumePlan, usual_distance_mm
from carina.dicom.headers import SliceHeader

COARSE_HU = 4.0
"""A rescale slope from which on a warning says how coarse the values are."""


def remarks(plan: VolumePlan, ordered: Sequence[SliceHeader]) -> list[str]:
    """Sentences about the headers, UIDs, places and values of a series' slices, which are in their order."""
    return [
        *dict.fromkeys(note for header in ordered for note in header.notes),
        *_uid_warnings(ordered),
        *_geometry_warnings(plan, ordered),
        *_value_warnings(ordered),
    ]


def _uid_warnings(ordered: Sequence[SliceHeader]) -> list[str]:
    warnings = []
    if not ordered[0].series_uid:
        warnings.append("Series Instance UID is empty; one derived from the content is used.")
    if not ordered[0].study_uid:
        warnings.append("Study Instance UID is empty; one derived from the content is used.")
    patients = {header.patient for header in ordered} - {""}
    if len(patients) > 1:
        warnings.append(f"Slices name {len(patients)} different patients, each another; they are read as one series.")
    frames = {header.frame_of_reference_uid for header in ordered}
    if len(frames) > 1:
        warnings.append(f"Slices name {len(frames)} different Frames of Reference; the first slice's is used for all.")
    elif not ordered[0].frame_of_reference_uid:
        warnings.append("Frame of Reference UID is empty; one derived from the series is used.")
    return warnings


def _geometry_warnings(plan: VolumePlan, ordered: Sequence[SliceHeader]) -> list[str]:
    warnings = []
    if plan.is_sheared:
        warnings.append(
            f"Gantry tilt of {plan.tilt_deg:.1f} degrees (from the slice positions) corrected by moving each slice "
            "within its plane."
        )
    stated = abs(ordered[0].tilt_deg)
    if stated > 1.0 and abs(stated - plan.tilt_deg) > 1.0:
        warnings.append(
            f"Gantry/Detector Tilt says {ordered[0].tilt_deg:g} degrees, the slice positions {plan.tilt_deg:.1f}; "
            "the positions are believed."
        )
    if not plan.is_even:
        steps = [b - a for a, b in pairwise(plan.along_mm)]
        warnings.append(
            f"Slice distances vary from {min(steps):.2f} to {max(steps):.2f} mm; evened to "
            f"{plan.grid.spacing_mm[0]:.2f} mm by linear interpolation (usual distance "
            f"{usual_distance_mm(plan.along_mm):.2f} mm)."
        )
    return warnings


def _value_warnings(ordered: Sequence[SliceHeader]) -> list[str]:
    warnings = []
    if any(header.is_lossy for header in ordered):
        warnings.append("Images were compressed with loss; HU values are approximate.")
    slope = max(abs(header.slope or 0.0) for header in ordered)
    if slope >= COARSE_HU:
        warnings.append(f"HU values are known in steps of {slope:g} only (Rescale Slope).")
    return warnings
