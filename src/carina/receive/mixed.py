"""Instances of several patients under one Series Instance UID: whoever they are of, they are not run together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from carina.dicom.part10 import open_file
from carina.dicom.patients import TOLD_APART_BY, are_several, patients_in
from carina.errors import BadSeries
from carina.receive.store import ArrivalState

NAMED_OF_A_PATIENT = 3
"""Instances that a reason names before it counts the rest."""

_ANOTHERS = (
    "instances of another patient came before under this Series Instance UID: correct that where they come from, or "
    "release what came now (`carina arrivals release`, or the worklist) to run it by itself."
)


_OF_NOBODY = (
    "instances without a patient came where several patients are known under this Series Instance UID: send them again "
    "with their patient's ID, or release what came now (`carina arrivals release`, or the worklist)."
)

_DAMAGED = (
    "instances that were accepted are damaged or missing on the node's disk, and several patients are known under this "
    "Series Instance UID, so that nobody can tell whose these are: send them again."
)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What several patients under a series' UID make of an arrival.

    ``state`` and ``reason`` are set where it has to wait for that; ``left`` are the names of files of other arrivals
    that are no part of it, and ``left_words`` what they are. ``whose`` is the patient of every file, by its name.
    """

    state: ArrivalState | None = None
    reason: str = ""
    left: frozenset[str] = frozenset()
    left_words: str = ""
    whose: Mapping[str, str] = field(default_factory=dict)


def mixture_of(folder: Path, own: AbstractSet[str], known: Iterable[str] = ()) -> Mixture:
    """Judge all DICOM files in a folder, volume or not, by whose they are; ``own`` are the names of the arrival's.

    So it is when the arrival settles, and again when it is released: others may be known by then.

    Its own of several patients wait, and so do those of one who is not among those that came before. Where he is, what
    others have under the UID is left: it waits elsewhere, or an earlier version of Carina took it. What names no
    patient is nobody's where several are ``known``: named in any arrival of the series, in those as well that are no
    part of this one. Nobody is asked for them but where something names no patient.
    """
    patients = {**dict.fromkeys(own, ""), **patients_in(folder)}
    if not are_several(list(patients.values())) and not is_nobodys(patients, known):
        return Mixture(whose=patients)
    damaged = damaged_among(folder, (name for name, patient in patients.items() if not patient))
    return replace(_mixture(patients, own, damaged), whose=patients)


def _mixture(patients: Mapping[str, str], own: AbstractSet[str], damaged: Sequence[str]) -> Mixture:
    came = {name: patient for name, patient in patients.items() if name in own}
    before = {name: patient for name, patient in patients.items() if name not in own}
    if are_several(list(came.values())):
        return Mixture(state=ArrivalState.QUARANTINED, reason=several_words(came, damaged), left=frozenset(before))
    if _are_anothers(set(came.values()) - {""}, set(before.values()) - {""}):
        reason = f"{_ANOTHERS} It is {_listed(sorted(came))}{_nameless_words(came, damaged)}."
        return Mixture(state=ArrivalState.APART, reason=reason, left=frozenset(before))
    return _joined(came, before, damaged)


def _are_anothers(came: AbstractSet[str], before: AbstractSet[str]) -> bool:
    return bool(came) and bool(before) and came.isdisjoint(before)


def is_nobodys(patients: Mapping[str, str], known: Iterable[str]) -> bool:
    """Whether some files of no more than one patient name none, while several are known."""
    named = set(patients.values()) - {""}
    if "" not in patients.values():
        return False
    for patient in known:
        if patient:
            named.add(patient)
        if len(named) > 1:
            return True
    return False


def _joined(came: Mapping[str, str], before: Mapping[str, str], damaged: Sequence[str]) -> Mixture:
    """What becomes of one patient's that join those that came before, of several."""
    if nameless := sorted(name for name, patient in came.items() if not patient):
        reason = " ".join(nobodys_reasons(nameless, damaged).values())
        return Mixture(state=ArrivalState.QUARANTINED, reason=reason, left=frozenset(before))
    known = set(came.values())
    left = {name: patient for name, patient in before.items() if patient not in known}
    return Mixture(left=frozenset(left), left_words=_left_words(left, damaged))


def damaged_among(folder: Path, names: Iterable[str]) -> Sequence[str]:
    """Those of the files by these names of which it can't be read any more whose they are."""
    return sorted(name for name in names if not _is_read(folder / name))


def _is_read(file: Path) -> bool:
    with suppress(BadSeries):
        return open_file(file, TOLD_APART_BY) is not None
    return False


def nobodys_reasons(names: Sequence[str], damaged: Sequence[str]) -> Mapping[tuple[str, ...], str]:
    """Why what is nobody's waits where several patients are known: what the disk has damaged, and what names none."""
    unread = tuple(name for name in names if name in damaged)
    nameless = tuple(name for name in names if name not in damaged)
    found = {unread: f"{_DAMAGED} It is {_listed(unread)}.", nameless: f"{_OF_NOBODY} It is {_listed(nameless)}."}
    return {which: reason for which, reason in found.items() if which}


def several_words(patients: Mapping[str, str], damaged: Sequence[str]) -> str:
    """That files, by name, are of several patients: how many of each, and which the fewest are."""
    counts = Counter(patient for patient in patients.values() if patient).most_common()
    fewest = sorted(name for name, patient in patients.items() if patient == counts[-1][0])
    return (
        f"the series holds instances of several patients ({', '.join(str(count) for _, count in counts)}; the fewest "
        f"are {_listed(fewest)}{_nameless_words(patients, damaged)}): each patient's are to be sent under a "
        "Series Instance UID of their own, or released (`carina arrivals release`, or the worklist), and each "
        "patient's are then run by themselves."
    )


def _nameless_words(patients: Mapping[str, str], damaged: Sequence[str]) -> str:
    """Which files name no patient, to be added to what is said of others; empty where all do."""
    nameless = sorted(name for name, patient in patients.items() if not patient and name not in damaged)
    unread = sorted(name for name in patients if name in damaged)
    words = f"; {len(nameless)} without a patient: {_listed(nameless)}" if nameless else ""
    return words + (f"; {len(unread)} damaged or missing on the node's disk: {_listed(unread)}" if unread else "")


def _left_words(left: Mapping[str, str], damaged: Sequence[str]) -> str:
    """What is no part of an arrival, though it came under the same UID."""
    others = sum(1 for patient in left.values() if patient)
    return f"{others} is another patient's, and no part of it{_nameless_words(left, damaged)}"


def _listed(names: Sequence[str]) -> str:
    """The SOP Instance UIDs by which files are named."""
    shown = ", ".join(name.removesuffix(".dcm") for name in names[:NAMED_OF_A_PATIENT])
    return shown + (f" and {len(names) - NAMED_OF_A_PATIENT} more" if len(names) > NAMED_OF_A_PATIENT else "")
