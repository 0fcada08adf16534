"""A fetch from the settings' names: which peer, as which source, series by series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from carina.config import DicomDestination, DicomSource, DicomwebDestination, Peer, Settings
from carina.database import ARRIVAL, INSTANCE
from carina.database.one_series import is_of_series
from carina.dicom.uids import is_uid
from carina.errors import BadConfig, DeliveryFailed
from carina.receive.fetch import (
    Fetched,
    FoundSeries,
    Wanted,
    find_on_node,
    get_series,
    instances_on_node,
    move_series,
)
from carina.receive.store import InstanceStore
from carina.receive.web_fetch import instances_on_server, retrieve_series, search_series

MATCHED_OTHERWISE = "*?\\"
"""Wildcards, and what lies between the values of a list: with them a key fits more than one value."""

MISSING_NAMED = 3
"""Instances that one sentence names."""


@dataclass(frozen=True)
class Pulled:
    """One series: a sentence on what came, and whether that is all the node said there is."""

    words: str
    is_whole: bool


def peer_called(name: str, settings: Settings) -> Peer:
    """A DICOM or DICOMweb destination by its name.

    Raises:
        BadConfig: there is none of this name, or it is of another kind.
    """
    peer = settings.destinations.get(name)
    if isinstance(peer, Peer):
        return peer
    known = ", ".join(key for key, one in settings.destinations.items() if isinstance(one, Peer)) or "none"
    words = f"destinations.{name}: no DICOM node is called so; known: {known}."
    how = 'Add it with kind = "dicom", its host, port and ae_title, or with kind = "dicomweb" and its url.'
    raise BadConfig("fetch.unknown-node", f"{words} {how}")


def source_called(name: str, settings: Settings) -> str:
    """The source that fetched series count as: the one named, else the first of the settings.

    Raises:
        BadConfig: there is none.
    """
    if name in settings.sources:
        return name
    if not name and settings.sources:
        return next(iter(settings.sources))
    known = ", ".join(settings.sources) or "none"
    raise BadConfig("fetch.unknown-source", f"sources.{name or 'NAME'}: not in the settings; known: {known}.")


def find_at(name: str, peer: Peer, wanted: Wanted) -> tuple[FoundSeries, ...]:
    """The CT series of a peer that fit, the latest study first; every key is matched as a single value.

    Raises:
        DeliveryFailed: the peer can't be reached, takes no queries, or refuses this one.
        BadConfig: a key holds what a query takes as a wildcard, a list, or no UID.
    """
    _check_single(wanted)
    if isinstance(peer, DicomwebDestination):
        return search_series(name, peer, wanted)
    return find_on_node(name, peer, wanted)


def _check_single(wanted: Wanted) -> None:
    """See that nothing can fit but the values themselves: a query knows no way to escape a wildcard (PS3.4 C.2.2.2)."""
    for name, value in (("patient ID", wanted.patient_id), ("accession number", wanted.accession)):
        expected = f"expected one {name} as it is, or a Study Instance UID."
        if value and not value.strip():
            raise BadConfig("fetch.wildcard", f"a blank {name} fits everything; {expected}")
        if not value.isprintable() or any(sign in value for sign in MATCHED_OTHERWISE):
            words = f"the {name} has *, ? or \\ (or a control character), by which a query fits others too"
            raise BadConfig("fetch.wildcard", f"{words}; {expected}")
    for name, value in (("Study", wanted.study_uid), ("Series", wanted.series_uid)):
        if value and not is_uid(value):
            words = f"{name} Instance UID {value[:64]!r} is none, or not one alone; expected numbers between dots."
            raise BadConfig("fetch.no-uid", words)


def count_at(name: str, peer: Peer, study_uid: str, series_uid: str) -> int | None:
    """How many instances a peer has of a CT series; None where it doesn't know the series.

    Raises:
        DeliveryFailed: as ``find_at``.
    """
    found = find_at(name, peer, Wanted(study_uid=study_uid, series_uid=series_uid))
    series = next((one for one in found if one.series_uid == series_uid), None)
    if series is None or series.instances is not None:
        return series.instances if series else None
    return len(instances_at(name, peer, series)) or None


def instances_at(name: str, peer: Peer, series: FoundSeries) -> frozenset[str]:
    """The SOP Instance UIDs that a peer has of a series.

    Raises:
        DeliveryFailed: as ``find_at``.
    """
    if isinstance(peer, DicomwebDestination):
        return instances_on_server(name, peer, series)
    return instances_on_node(name, peer, series)


def pull(
    name: str,
    peer: Peer,
    found: Sequence[FoundSeries],
    store: InstanceStore,
    source: str,
    *,
    is_moved: bool = False,
) -> Iterator[Pulled]:
    """Fetch series one after the other.

    Raises:
        DeliveryFailed: the node fails.
        BadConfig: the peer can't move, or the source is none that listens for what is moved.
    """
    if is_moved:
        if isinstance(peer, DicomwebDestination):
            raise BadConfig("fetch.no-move", f"destinations.{name}: a DICOMweb server moves nothing; leave --move out.")
        _listening(source, store.settings)
        for series in found:
            before = _here(store, source, series)
            moved = _move(name, peer, series, store, source)
            repeated = _repeated(before, _here(store, source, series), moved)
            words = f"series {series.series_uid}: {moved}{_of_all(series)} instances{_already(repeated)}"
            yield Pulled(words, moved == (series.instances or moved))
        return
    for series in found:
        if isinstance(peer, DicomwebDestination):
            fetched = retrieve_series(name, peer, series, store, source)
        else:
            fetched = get_series(name, peer, series, store, source)
        yield _pulled(name, peer, series, fetched)


def _move(name: str, peer: DicomDestination, series: FoundSeries, store: InstanceStore, source: str) -> int:
    to = _listening(source, store.settings)
    if not series.is_prior:
        return move_series(name, peer, series, to)
    with store.moves.answered(source, peer.ae_title, series.series_uid):
        return move_series(name, peer, series, to)


def _here(store: InstanceStore, source: str, series: FoundSeries) -> dict[object, str]:
    """The instances of a series that a source has, each row's UID; what was sent needs no fetching to compare with."""
    columns = (INSTANCE.c.id, INSTANCE.c.accepted_at, INSTANCE.c.sop_instance_uid)  # a row's number may be given again
    rows = select(*columns).join(ARRIVAL, ARRIVAL.c.id == INSTANCE.c.arrival_id)
    mine = (INSTANCE.c.source == source) & (INSTANCE.c.is_prior <= int(series.is_prior))
    with store.engine.connect() as connection:
        return {
            (row.id, row.accepted_at): row.sop_instance_uid
            for row in connection.execute(rows.where(is_of_series(series), mine))
        }


def _repeated(before: Mapping[object, str], after: Mapping[object, str], moved: int) -> int:
    """Of so many that a peer has moved, how many were here: whoever is sent one again writes down no new row."""
    came = {uid for row, uid in after.items() if row not in before}
    return min(len({*before.values()} - came), max(moved - len(came), 0))


def _already(repeated: int) -> str:
    return f"; already here: {repeated}" if repeated else ""


def _pulled(name: str, peer: Peer, series: FoundSeries, fetched: Fetched) -> Pulled:
    """What is said of a series: how much of it is here, since when, and what is not, and why."""
    said = [f"series {series.series_uid}: {fetched.accepted}{_of_all(series)} instances{_already(fetched.repeated)}"]
    is_whole = not fetched.refused and fetched.accepted == (series.instances or fetched.accepted)
    if fetched.refused:
        more = f" (and {len(fetched.refused) - 1} more)" if len(fetched.refused) > 1 else ""
        said.append(f"refused: {fetched.refused[0]}{more}")
    if not is_whole and len(fetched.came) < (series.instances or 0):
        said.append(_not_sent(name, peer, series, fetched))
    return Pulled("; ".join(said), is_whole)


def _not_sent(name: str, peer: Peer, series: FoundSeries, fetched: Fetched) -> str:
    """Which instances a peer has by its own account, and did not send."""
    why = fetched.ended or "no reason was given"
    try:
        missing = sorted(instances_at(name, peer, series) - fetched.came)
    except DeliveryFailed as error:
        return f"which were not sent ({why}) can't be told: {error.message}"
    if not missing:
        return (
            f"{name} lists no instance that it did not send: it counts {series.instances}, and has {len(fetched.came)}"
        )
    more = f" and {len(missing) - MISSING_NAMED} more" if len(missing) > MISSING_NAMED else ""
    return f"{name} did not send {', '.join(missing[:MISSING_NAMED])}{more} ({why}): ask again, or look at its log"


def _of_all(series: FoundSeries) -> str:
    return "" if series.instances is None else f" of {series.instances}"


def _listening(source: str, settings: Settings) -> str:
    known = settings.sources[source]
    if isinstance(known, DicomSource):
        return known.ae_title
    raise BadConfig("fetch.not-dicom", f"sources.{source}: C-MOVE needs a source of kind dicom, with an AE title.")
