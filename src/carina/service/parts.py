"""Which parts a node has, in the order in which they start: what sends and runs first, what receives last.

Nothing is received before what was half accepted when the node last ended is gone (``RunningNode.is_recovered``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from threading import Event

from carina.config import DicomDestination, DicomSource, FolderSource, Settings
from carina.deliver.commitment import take_report
from carina.deliver.lost_destinations import strand
from carina.deliver.notices import Notifier
from carina.deliver.pace import PACE
from carina.deliver.sender import Sender
from carina.jobs.reading import RUNS_WITH_DECISIONS, leave_without_masks
from carina.jobs.waiting_for import unknown_destinations
from carina.jobs.wishes import Wishes
from carina.jobs.worker import Worker
from carina.keeping.retention import Retention
from carina.receive.ask import Asker
from carina.receive.complete import complete_arrivals
from carina.receive.folder import WatchedFolder
from carina.receive.listener import DicomListener
from carina.receive.priors import PriorFetcher, peers_of
from carina.receive.recover import recover
from carina.receive.tls import listener_files
from carina.receive.unfinished import FetchResumer
from carina.service.allocator import trim_memory
from carina.service.check_passing import look_around
from carina.service.check_tls import date_remarks, tls_places
from carina.service.endpoint import ENDPOINT_PART, watch_endpoint
from carina.service.filling import fill_rows
from carina.service.loops import Part, PartWork
from carina.service.node import RunningNode
from carina.service.stored_files import FilesLook
from carina.service.uploads import sweep_uploads

_LOG = logging.getLogger(__name__)

SETTLE_S = 0.5
"""Between two looks at what is complete."""

PRIORS_S = 2.0
"""Between two looks at what earlier scans are wanted."""

RETENTION_S = 60.0
"""Between two looks at what is to be removed."""

FILLED_S, NOT_FILLED_S = 0.5, 5.0
"""Between two looks at rows that are still to be filled: while there are many, and where there were none."""

FILES_S = 5.0
"""Between two looks at the next files that are stored."""

PLACES_S = 10.0
"""Between two looks at whether folders beyond the node are there, and room."""

CERTIFICATES_S = 86_400.0
"""Between two looks at the dates of certificates."""

GIVEN_BACK_S = 5.0
"""Between two times that memory which holds nothing is given back."""


def parts_of(node: RunningNode) -> Iterator[Part]:
    """The parts that a node's settings ask for, not yet started."""
    works: dict[str, PartWork] = {"jobs": lambda stop: _run_jobs(node, stop)}
    works["sender"] = lambda stop: _send(node, stop)
    if node.settings.notices.url or node.settings.notices.mail:
        works["notices"] = lambda stop: _tell(node, stop)
    works["retention"] = lambda stop: _remove(node, stop)
    works["readings"] = lambda stop: _take_readings(node, stop)
    works["rows"] = lambda stop: _fill_rows(node, stop)
    works["files"] = lambda stop: _look_at_files(node, stop)
    works["places"] = lambda stop: _look_around(node, stop)
    works["memory"] = _give_memory_back
    works["arrivals"] = lambda stop: _settle_arrivals(node, stop)
    peers = peers_of(list(node.settings.sources.values()))
    if peers:
        works["comparisons"] = lambda stop: _compare(node, stop)
    for peer in peers:
        works[f"earlier scans of {peer}"] = partial(_fetch_priors, PriorFetcher(node.store, peer), node)
    works["fetches"] = lambda stop: _resume_fetches(node, stop)
    if _hears_dicom(node.settings):
        works["dicom"] = lambda stop: _listen(node, stop)
    if node.settings.runtime.endpoint:
        works[ENDPOINT_PART] = lambda stop: watch_endpoint(node, stop)
    if any(tls_places(node.settings)):
        works["certificates"] = lambda stop: _watch_certificates(node, stop)
    for name, work in (works | _of_sources(node)).items():
        yield Part(name, work, stop=node.stop, own=node.own)


def _of_sources(node: RunningNode) -> dict[str, PartWork]:
    """What watches a folder, and what asks a PACS."""
    works: dict[str, PartWork] = {}
    for name, source in node.settings.sources.items():
        if isinstance(source, FolderSource):
            works[f"folder {name}"] = partial(_watch, node, WatchedFolder(name, source, node.store))
        if source.ask:
            works[f"ask {source.ask}"] = partial(_ask, node, source.ask)
    return works


def _hears_dicom(settings: Settings) -> bool:
    """Whether somebody may send by DICOM, or reports on what was sent to it."""
    sends = any(isinstance(source, DicomSource) for source in settings.sources.values())
    return sends or any(isinstance(one, DicomDestination) and one.commitment for one in settings.destinations.values())


def _watch_certificates(node: RunningNode, stop: Event) -> None:
    while True:
        for remark in date_remarks(node.settings, node.now()):
            _LOG.warning("a certificate's dates", extra={"remark": remark})
        if stop.wait(CERTIFICATES_S):
            return


def _run_jobs(node: RunningNode, stop: Event) -> None:
    worker = Worker(node.settings, node.engine)
    worker.stopping, worker.own = stop, node.own
    worker.go()


def _remove(node: RunningNode, stop: Event) -> None:
    settings = node.settings
    retention = Retention(node.engine, node.folder, settings.retention, destinations=settings.destinations)
    while True:
        node.own.check()
        retention.round()
        sweep_uploads(node)
        if stop.wait(RETENTION_S):
            return


def _take_readings(node: RunningNode, stop: Event) -> None:
    """Once: while the node runs, decisions come by its own pages."""
    node.own.check()
    leave_without_masks(node.engine, node.folder)
    if any(node.folder.glob(RUNS_WITH_DECISIONS)):
        from carina.jobs.decided import catch_up_readings  # what it needs takes memory of a server without decisions

        catch_up_readings(node.engine, node.folder)
    stop.wait()


def _fill_rows(node: RunningNode, stop: Event) -> None:
    node.own.check()
    while not stop.wait(FILLED_S if fill_rows(node) else NOT_FILLED_S):
        node.own.check()


def _look_around(node: RunningNode, stop: Event) -> None:
    while True:
        look_around(node.settings, node.resting)
        if stop.wait(PLACES_S):
            return


def _look_at_files(node: RunningNode, stop: Event) -> None:
    look = FilesLook(node)
    while True:
        node.own.check()
        look.round()
        if stop.wait(FILES_S):
            return


def _give_memory_back(stop: Event) -> None:
    while not stop.wait(GIVEN_BACK_S):
        trim_memory()


def _settle_arrivals(node: RunningNode, stop: Event) -> None:
    if not node.is_recovered.is_set():
        recover(node.settings, node.engine)
        node.is_recovered.set()
    try:
        while not stop.wait(SETTLE_S):
            node.own.check()
            node.store.note_flushed()
            complete_arrivals(node.settings, node.engine, node.store.untaken)
    finally:
        node.store.note_flushed()


def _ask(node: RunningNode, name: str, stop: Event) -> None:
    asker = Asker(name, node.settings, node.engine)
    while not stop.wait(SETTLE_S):
        asker.round()


def _may_receive(node: RunningNode, stop: Event) -> bool:
    """Wait until the rest of a crash is gone; False where the node is to end before that."""
    while not node.is_recovered.wait(SETTLE_S):
        if stop.is_set():
            return False
    return True


def _watch(node: RunningNode, folder: WatchedFolder, stop: Event) -> None:
    node.outages[f"folder {folder.name}"] = folder.outages
    if _may_receive(node, stop):
        folder.watch(stop)


def _listen(node: RunningNode, stop: Event) -> None:
    if not _may_receive(node, stop):
        return
    listener = DicomListener(node.store, lambda report: take_report(node.engine, report, node.now()))
    node.outages["dicom"] = listener.outages
    if tls := node.settings.dicom.tls:
        node.hold_certificate(listener_files("dicom", tls))
    try:
        listener.start()
        while listener.is_listening and not stop.wait(SETTLE_S):
            pass
    finally:
        listener.stop()
        node.store.note_flushed()


def _compare(node: RunningNode, stop: Event) -> None:
    wishes = Wishes(node.settings, node.engine)
    while not stop.wait(PRIORS_S):
        node.own.check()
        wishes.round()


def _fetch_priors(fetcher: PriorFetcher, node: RunningNode, stop: Event) -> None:
    if _may_receive(node, stop):
        while not stop.wait(PRIORS_S):
            node.own.check()
            fetcher.round()


def _resume_fetches(node: RunningNode, stop: Event) -> None:
    resumer = FetchResumer(node.store)
    if _may_receive(node, stop):
        while not stop.wait(PRIORS_S):
            node.own.check()
            resumer.round()


def _send(node: RunningNode, stop: Event) -> None:
    sender = Sender(node.engine, node.folder, node.settings.destinations, node.now)
    sender.start()
    _tell_unknown(node)
    try:
        stop.wait()
    finally:
        sender.stop()


def _tell_unknown(node: RunningNode) -> None:
    """Say what waits for destinations that the settings don't have, here and in the rows."""
    with node.engine.begin() as connection:
        found = unknown_destinations(connection, node.settings.destinations)
        strand(connection, found)
    for line in found.values():
        _LOG.warning("%s", line)


def _tell(node: RunningNode, stop: Event) -> None:
    notifier = Notifier(
        engine=node.engine, folder=node.folder, settings=node.settings.notices, clock=node.now, pace=PACE
    )
    while not stop.wait(PACE.idle_s):
        node.own.check()
        notifier.round()
