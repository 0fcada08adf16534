"""Whether a source can be reached by who sends, as far as that can be told from this machine.

A source is a door of ours: nobody's address but ours is in its settings. So our own side is tried; a caller that is a
destination as well is asked whether it answers; of every other, why it can't be tried is said. A destination that it
asks about its series, or for earlier scans, gets a query for what nobody has.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from carina.config import AnySource, DicomDestination, DicomSource, DicomwebSource, FolderSource, Settings
from carina.deliver.capabilities import NOBODYS_UID
from carina.deliver.store_scu import echo_node
from carina.errors import DeliveryFailed
from carina.receive.fetch import Wanted
from carina.receive.listener import allows
from carina.receive.pull import find_at, peer_called

REACH_S = 5.0
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Reach:
    """What was found out about a source, as a sentence; whether it is well."""

    words: str
    is_well: bool = True


def reach_of(name: str, settings: Settings) -> Iterator[Reach]:
    """Try a source of the settings, on the machine of the node while it runs."""
    source = settings.sources[name]
    match source:
        case DicomSource():
            yield _own_listener(name, source, settings)
            yield from _callers(name, source, settings)
        case DicomwebSource():
            yield _web_listener(name, settings)
        case FolderSource():
            yield _watched(name, Path(source.path))
        case _:
            assert_never(source)
    yield from _asked(name, source, settings)


def _asked(name: str, source: AnySource, settings: Settings) -> Iterator[Reach]:
    """Whether the destinations that are asked about its series and for earlier scans answer a query."""
    for peer in dict.fromkeys(filter(None, (source.ask, source.earlier))):
        keys = " and ".join(key for key in ("ask", "earlier") if getattr(source, key) == peer)
        try:
            find_at(peer, peer_called(peer, settings), Wanted(study_uid=NOBODYS_UID, series_uid=NOBODYS_UID))
        except DeliveryFailed as error:
            yield Reach(f"{name}: {keys} would have no answer: {error.message} [{error.code}]", is_well=False)
        else:
            yield Reach(f"{name}: {peer}, its {keys}, answers a query.")


def _own_listener(name: str, source: DicomSource, settings: Settings) -> Reach:
    """A C-ECHO to ourselves, as one of those who may send."""
    wanted = settings.dicom
    host = _ANY_ADDRESS.get(wanted.host, wanted.host)
    here, where = _takes_connections(host, wanted.port), f"{source.ae_title.strip()}@{host}:{wanted.port}"
    if not here:
        return Reach(f"{name} ({where}): nothing listens there; is carina serve running?", is_well=False)
    if wanted.tls:
        return Reach(f"{name} ({where}): takes connections, by TLS alone; what it answers is seen from a sender.")
    calling = source.callers[0] if source.callers else "CARINA"
    if not allows(source, calling, here):
        return Reach(f"{name} ({where}): takes connections; this machine may not send, so it was not asked more.")
    peer = DicomDestination(
        host=host, port=wanted.port, ae_title=source.ae_title, calling_ae_title=calling, timeout_s=REACH_S
    )
    try:
        echo_node(name, peer)
    except DeliveryFailed as error:
        return Reach(f"{error.message} [{error.code}]", is_well=False)
    return Reach(f"{name} ({where}): this node listens there, and answers a DICOM echo of {calling.strip()}.")


def _callers(name: str, source: DicomSource, settings: Settings) -> Iterator[Reach]:
    peers = [(key, peer) for key, peer in settings.destinations.items() if isinstance(peer, DicomDestination)]
    for title in [caller.strip() for caller in source.callers]:
        titled = [one for one in peers if one[1].ae_title.strip() == title]
        yield from (_peer(name, title, key, peer) for key, peer in titled)
        if not titled:
            yield Reach(f"{name}: {title} can't be asked: no destination has its address. Send an echo from it.")
    if not source.callers:
        yield Reach(f"{name}: whether a scanner or PACS reaches it only they can tell: send a DICOM echo from there.")


def _peer(name: str, title: str, key: str, peer: DicomDestination) -> Reach:
    try:
        echo_node(key, peer)
    except DeliveryFailed as error:
        return Reach(f"{name}: {title} does not answer: {error.message} [{error.code}]", is_well=False)
    return Reach(f"{name}: {title}, which is destination {key}, answers.")


def _web_listener(name: str, settings: Settings) -> Reach:
    host = _ANY_ADDRESS.get(settings.web.host, settings.web.host)
    where = f"{name} ({host}:{settings.web.port})"
    if not _takes_connections(host, settings.web.port):
        return Reach(f"{where}: nothing listens there; is carina serve running?", is_well=False)
    return Reach(f"{where}: takes connections. Who sends by STOW-RS is in no settings, and can't be asked.")


def _watched(name: str, folder: Path) -> Reach:
    if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK):
        return Reach(f"{name}: folder {folder} can be read.")
    return Reach(f"{name}: folder {folder} can't be read: make it, or let the node read it.", is_well=False)


def _takes_connections(host: str, port: int) -> str:
    """Our own address on a connection to a port; empty where nothing listens."""
    try:
        with socket.create_connection((host, port), timeout=REACH_S) as connection:
            return str(connection.getsockname()[0])
    except OSError:
        return ""
