"""The networks of a run: bundles by task, and the runtimes that are open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

import msgspec

from carina.config import RuntimeKind, RuntimeSettings, Settings
from carina.errors import BadConfig
from carina.infer.runtime import open_network, with_precision
from carina.models.bundle import find_bundle
from carina.models.first_look import first_look_of
from carina.operators.needed import TASKS

if TYPE_CHECKING:
    from carina.infer.runtime import Outputs
    from carina.models.bundle import Bundle


class Networks:
    """Bundles and runtimes for the settings of a node; safe to use from several operators at once.

    A definition's Triton services are served in this process, unless the settings name an endpoint.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._bundles: dict[str, Bundle] = {}
        self._first_looks: dict[str, Bundle | None] = {}
        self._opened: dict[str, tuple[Outputs, int]] = {}
        self._locks = {task: Lock() for task in TASKS}
        self.passing = Lock()
        """Held while a network passes over a scan: two at once take the memory of both, and no less time."""

    def __reduce__(self) -> tuple[type[Networks], tuple[Settings]]:
        """In another process they are opened anew."""
        return type(self), (self.settings,)

    @cached_property
    def runtime_settings(self) -> RuntimeSettings:
        """How networks run: on Triton where an endpoint is set, else as the settings say; ``auto`` is resolved.

        Raises:
            BadConfig: the runtime is not installed.
        """
        settings = self.settings.runtime
        if settings.endpoint:
            settings = msgspec.structs.replace(settings, kind=RuntimeKind.TRITON)
        return with_precision(settings)

    def bundle(self, task: str) -> Bundle:
        """The bundle for ``lung``, ``lesion`` or ``covid``.

        Raises:
            BadConfig: there is no bundle of the name in the settings, or it is wrong.
        """
        with self._locks[task]:
            if task not in self._bundles:
                name = getattr(self.settings.models, task)
                self._bundles[task] = find_bundle(name, self.settings.models.folders)
            return self._bundles[task]

    @contextmanager
    def opened(self, task: str) -> Iterator[Outputs]:
        """The opened network of a task's bundle, with all that it gives.

        Operators that want it at once share it. When the last is done it is closed: what it holds for a pass over a
        chest, some hundred MB, is wanted by those that come after.

        Raises:
            BadConfig: the runtime is not installed, or the endpoint does not answer.
        """
        bundle = self.bundle(task)
        with self._locks[task]:
            network, users = self._opened.get(task) or (open_network(bundle, self.runtime_settings), 0)
            self._opened[task] = network, users + 1
        try:
            yield network
        finally:
            with self._locks[task]:
                _, users = self._opened.pop(task)
                if users > 1:
                    self._opened[task] = network, users - 1

    def first_look(self, task: str) -> Bundle | None:
        """The first look that the bundle of a task names.

        Raises:
            BadConfig: as `first_look_of`.
        """
        bundle = self.bundle(task)
        with self._locks[task]:
            if task not in self._first_looks:
                self._first_looks[task] = first_look_of(bundle)
            return self._first_looks[task]

    def check(self, tasks: Iterable[str]) -> None:
        """See that the weights of these tasks, and of their first looks, can be loaded: before anything is computed.

        Those on a Triton server are the server's.

        Raises:
            BadConfig: they can't, or as `bundle` and `first_look`.
        """
        for bundle in (bundle for task in tasks for bundle in (self.bundle(task), self.first_look(task))):
            if bundle is not None and self.runtime_settings.kind is not RuntimeKind.TRITON:
                open_network(bundle, self.runtime_settings)

    def readable(self) -> dict[str, Bundle]:
        """The bundles by task, and their first looks as ``TASK-first-look``, without those that can't be read."""
        found: dict[str, Bundle] = {}
        for task in TASKS:
            with suppress(BadConfig):  # where the run needs it, `check` has said so
                found[task] = self.bundle(task)
                if first_look := self.first_look(task):
                    found[f"{task}-first-look"] = first_look
        return found

    def made(self, made_by: str) -> Bundle | None:
        """The bundle that a result says it was made by, if it is one of this run's."""
        bundles = self.readable().values() if made_by else ()
        return next((bundle for bundle in bundles if bundle.made_by == made_by), None)
