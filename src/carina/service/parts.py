"""Which parts a node has, in the order in which they start: what sends and runs first, what receives last.

Each is imported in its own thread, so that the server listens before any of them is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

from carina.deliver.sender import Sender
from carina.jobs.worker import Worker
from carina.service.loops import Part, PartWork
from carina.service.node import RunningNode


def parts_of(node: RunningNode) -> Iterator[Part]:
    """The parts that a node's settings ask for, not yet started."""
    works: dict[str, PartWork] = {"jobs": lambda stop: _run_jobs(node, stop)}
    if node.settings.destinations:
        works["sender"] = lambda stop: _send(node, stop)
    for name, work in works.items():
        yield Part(name, work, stop=node.stop)


def _run_jobs(node: RunningNode, stop: Event) -> None:
    worker = Worker(node.settings, node.engine)
    worker.stopping = stop
    worker.go()


def _send(node: RunningNode, stop: Event) -> None:
    sender = Sender(node.engine, node.folder, node.settings.destinations, node.now)
    sender.start()
    try:
        stop.wait()
    finally:
        sender.stop()
