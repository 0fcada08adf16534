"""Instances of several patients under one Series Instance UID: whoever they are of, they are not run together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from carina.dicom.patients import are_several, patients_in
from carina.receive.store import ArrivalState

NAMED_OF_A_PATIENT = 3
"""Instances that a reason names before it counts the rest."""

_ANOTHERS = (
    "instances of another patient came before under this Series Instance UID: correct that where they come from, or "
    "release what came now (`carina arrivals release`, or the worklist) to run it by itself."
)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What several patients under a series' UID make of an arrival.

    ``state`` and ``reason`` are set where it has to wait for that; ``left`` are the names of files of other arrivals
    that are no part of it.
    """

    state: ArrivalState | None = None
    reason: str = ""
    left: frozenset[str] = frozenset()


def mixture_of(folder: Path, own: AbstractSet[str]) -> Mixture:
    """Judge all DICOM files in a folder, volume or not, by whose they are; ``own`` are the names of the arrival's.

    Its own of several patients wait, and so do those of one who is not among those that came before. Where he is, what
    others have under the UID is left: it waits elsewhere, or an earlier version of Carina took it.
    """
    patients = patients_in(folder)
    if not are_several(list(patients.values())):
        return Mixture()
    came = {name: patient for name, patient in patients.items() if name in own}
    before = {name: patient for name, patient in patients.items() if name not in own}
    if are_several(list(came.values())):
        return Mixture(state=ArrivalState.QUARANTINED, reason=several_words(came), left=frozenset(before))
    known = set(came.values()) - {""}
    if known.isdisjoint(before.values()):
        reason = f"{_ANOTHERS} It is {_listed(sorted(came))}."
        return Mixture(state=ArrivalState.APART, reason=reason, left=frozenset(before))
    return Mixture(left=frozenset(name for name, patient in before.items() if patient not in known | {""}))


def several_words(patients: Mapping[str, str]) -> str:
    """That files, by name, are of several patients: how many of each, and which the fewest are."""
    counts = Counter(patient for patient in patients.values() if patient).most_common()
    fewest = sorted(name for name, patient in patients.items() if patient == counts[-1][0])
    return (
        f"the series holds instances of several patients ({', '.join(str(count) for _, count in counts)}; the fewest "
        f"are {_listed(fewest)}): each patient's are to be sent under a Series Instance UID of their own."
    )


def _listed(names: Sequence[str]) -> str:
    """The SOP Instance UIDs by which files are named."""
    shown = ", ".join(name.removesuffix(".dcm") for name in names[:NAMED_OF_A_PATIENT])
    return shown + (f" and {len(names) - NAMED_OF_A_PATIENT} more" if len(names) > NAMED_OF_A_PATIENT else "")
