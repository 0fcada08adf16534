"""A fetch from the settings' names: which peer, as which source, series by series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from carina.config import DicomDestination, DicomSource, DicomwebDestination, Peer, Settings
from carina.errors import BadConfig
from carina.receive.fetch import FoundSeries, Wanted, count_on_node, find_on_node, get_series, move_series
from carina.receive.store import InstanceStore
from carina.receive.web_fetch import count_on_server, retrieve_series, search_series


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
    """The CT series of a peer that fit, the latest study first.

    Raises:
        DeliveryFailed: the peer can't be reached, takes no queries, or refuses this one.
    """
    if isinstance(peer, DicomwebDestination):
        return search_series(name, peer, wanted)
    return find_on_node(name, peer, wanted)


def count_at(name: str, peer: Peer, study_uid: str, series_uid: str) -> int | None:
    """How many instances a peer has of a CT series; None where it doesn't know the series.

    Raises:
        DeliveryFailed: as ``find_at``.
    """
    found = find_at(name, peer, Wanted(study_uid=study_uid, series_uid=series_uid))
    series = next((one for one in found if one.series_uid == series_uid), None)
    if series is None or series.instances is not None:
        return series.instances if series else None
    if isinstance(peer, DicomwebDestination):
        return count_on_server(name, peer, series) or None
    return count_on_node(name, peer, series) or None


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
            yield _pulled(series, _move(name, peer, series, store, source), ())
        return
    for series in found:
        if isinstance(peer, DicomwebDestination):
            fetched = retrieve_series(name, peer, series, store, source)
        else:
            fetched = get_series(name, peer, series, store, source)
        yield _pulled(series, fetched.accepted, fetched.refused)


def _move(name: str, peer: DicomDestination, series: FoundSeries, store: InstanceStore, source: str) -> int:
    to = _listening(source, store.settings)
    if not series.is_prior:
        return move_series(name, peer, series, to)
    with store.moves.answered(source, peer.ae_title, series.series_uid):
        return move_series(name, peer, series, to)


def _pulled(series: FoundSeries, came: int, refused: Sequence[str]) -> Pulled:
    of_all = "" if series.instances is None else f" of {series.instances}"
    why = f"; refused: {refused[0]}" if refused else ""
    words = f"series {series.series_uid}: {came}{of_all} instances{why}"
    return Pulled(words, not refused and came == (series.instances or came))


def _listening(source: str, settings: Settings) -> str:
    known = settings.sources[source]
    if isinstance(known, DicomSource):
        return known.ae_title
    raise BadConfig("fetch.not-dicom", f"sources.{source}: C-MOVE needs a source of kind dicom, with an AE title.")
