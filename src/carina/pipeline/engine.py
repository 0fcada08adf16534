"""The engine: starts operators when their inputs are there, keeps values only as long as someone reads them."""

from __future__ import annotations

import datetime as dt
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Event as Flag
from threading import Lock
from typing import Any

from carina.errors import BadConfig, CarinaError, fault_of_others, keep_trace, told, unwritable
from carina.pipeline import ports
from carina.pipeline.call import Misplaced, RaisedByOthers, call_operator, is_to_blame, read_output
from carina.pipeline.graph import Graph, Node, Wire
from carina.pipeline.manifest import FailureRecord, Manifest, OperatorRecord, State, end, write_manifest
from carina.pipeline.operator import Context, holds
from carina.pipeline.places import below, trace_name
from carina.pipeline.said import Statements
from carina.pipeline.store import Store, Stored
from carina.pipeline.values import Files


class What(StrEnum):
    """What a progress event tells."""

    STARTED = "started"
    FRACTION = "fraction"
    DONE = "done"
    RESUMED = "resumed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Event:
    """One step of a run's progress: ``operator`` is its name in the definition, ``fraction`` from 0 to 1."""

    operator: str
    what: What
    fraction: float = 0.0
    seconds: float = 0.0
    message: str = ""


def now() -> dt.datetime:
    """The time of day with the machine's offset; the clock a run uses unless it is given another."""
    return dt.datetime.now(tz=dt.UTC).astimezone()


class _Slot:
    """One output value: in memory until its last reader is served, or on disk until a reader asks for it."""

    def __init__(self, port_type: Any, readers: int) -> None:
        self.port_type = port_type
        self.readers = readers
        self.files: tuple[Path, ...] = ()
        self._value: list[object] = []
        self._lock = Lock()

    def fill(self, value: object) -> None:
        """Keep a value for its readers, if there are any."""
        if self.readers:
            self._value = [value]

    def get(self, store: Store) -> object:
        """The value, loaded where an earlier start stored it."""
        with self._lock:
            if not self._value:
                self._value = [ports.load_value(self.port_type, self.files)]
                store.found(self._value[0], self.files)
            return self._value[0]

    def served(self) -> None:
        """One reader less; the value goes with the last."""
        self.readers -= 1
        if self.readers <= 0:
            self._value = []


class _Cancelled(BaseException):
    """Ends an operator at its next progress report after an interruption."""


class Engine:
    """The state of a run, changed in the calling thread only; operators run in a pool, outputs are stored in a thread.

    ``injected`` are, by step, the services for keyword-only parameters; contexts are added here.
    """

    def __init__(
        self,
        graph: Graph,
        manifest: Manifest,
        out: Path,
        inputs: Mapping[str, object],
        injected: Mapping[str, Mapping[str, object]],
    ) -> None:
        self.graph, self.manifest, self.out, self.inputs, self.injected = graph, manifest, out, inputs, injected
        self.records = manifest.operators
        self.progress: Callable[[Event], None] = lambda event: None
        self.clock: Callable[[], dt.datetime] = now
        self.misplaced: Misplaced = lambda values: ""
        self.left_aside: Callable[[str, Sequence[Path], Path], str] = lambda path, files, run: ""
        self.store = Store(out)
        self.said = Statements(self.records.values())
        self.errors: list[CarinaError] = []
        self._seconds_before = manifest.seconds
        self._when = dt.datetime.fromisoformat(manifest.started)
        self._cancelled = Flag()
        self._can_store = True
        self._slots = self._make_slots()
        self._calls: dict[Future[Mapping[str, object]], str] = {}
        self._writes: dict[Future[Stored], tuple[str, str]] = {}
        self._clocks: dict[str, float] = {}

    def _make_slots(self) -> dict[Wire, _Slot]:
        readers = Counter(
            wire
            for name, node in self.graph.nodes.items()
            if self.records[name].state is not State.DONE
            for wire in node.wires.values()
        )
        slots = {}
        for name, node in self.graph.nodes.items():
            for path, port in node.operator.output_ports.items():
                wire = Wire(step=name, path=path)
                slot = slots[wire] = _Slot(Files if node.operator.is_apart else port.type, readers[wire])
                if self.records[name].state is State.DONE:
                    slot.files = tuple(self.out / file for file in self.records[name].outputs.get(path, []))
                    self.store.claim(slot.files, name)
        return slots

    def go(self, workers: int) -> None:
        """Run what is not done yet, up to ``workers`` operators at once.

        Ctrl-C, or what a signal's handler raises, interrupts the run: the manifest says so at once, then the operators
        that are at work are ended at their next report of progress.

        Raises:
            CarinaError: the first error of an operator, after everything that doesn't depend on it has run.
        """
        started = time.perf_counter()
        for name, record in self.records.items():
            if record.state is State.DONE:
                self.progress(Event(operator=name, what=What.RESUMED, fraction=1.0))
        self.manifest.state = State.RUNNING
        self._keep()
        pool = ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="carina-operator")
        try:
            self._start_ready(pool)
            while self._calls or self._writes:
                self._wait()
                self._start_ready(pool)
        except BaseException:
            self._cancelled.set()
            self._end(time.perf_counter() - started)
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            self.store.close()
            self._end(time.perf_counter() - started)
        if self.errors:
            raise self.errors[0]

    def _wait(self) -> None:
        """Take up what has ended; a method of its own, so that no local name keeps a value alive meanwhile."""
        pending: list[Future[Any]] = [*self._writes, *self._calls]
        wait(pending, return_when=FIRST_COMPLETED)
        for write in [future for future in self._writes if future.done()]:  # in the order they were stored in
            self._written(*self._writes.pop(write), write)
        for call in [future for future in self._calls if future.done()]:
            self._called(self._calls.pop(call), call)

    def _end(self, seconds: float) -> None:
        everything = all(record.state is State.DONE for record in self.records.values())
        failed = State.FAILED if self.errors else State.WAITING
        end(self.manifest, State.INTERRUPTED if self._cancelled.is_set() else State.DONE if everything else failed)
        said = [*self.manifest.warnings, *(one for record in self.records.values() for one in record.warnings)]
        self.manifest.warnings = list(dict.fromkeys(said))
        self.manifest.seconds = round(self._seconds_before + seconds, 3)
        self.manifest.ended = self.clock().isoformat(timespec="seconds")
        for record in self.records.values():
            self._digest_own_files(record)
        self._keep()

    def _digest_own_files(self, record: OperatorRecord) -> None:
        """At the end, because several operators may write one file: each adds its layer to the viewer's scene."""
        for name in record.own_files:
            with suppress(BadConfig, OSError):  # a file that isn't there, or not the run's, has no digest
                record.files[name] = self.store.digests.of(below(self.out, name))

    def _keep(self) -> None:
        try:
            self.store.check_place()
            write_manifest(self.manifest, self.out)
        except OSError as error:
            if not self.errors:
                self.errors.append(unwritable(error, self.out))

    def _start_ready(self, pool: ThreadPoolExecutor) -> None:
        if not self._can_store:
            return  # what waits is left for a resume
        for name, node in self.graph.nodes.items():  # in the graph's order, so one pass reaches every skipped one
            if self.records[name].state is not State.WAITING:
                continue
            states = {self._state(wire) for wire in node.wires.values()}
            if states & {State.FAILED, State.SKIPPED}:
                self._skip(name, node)
            elif states <= {State.DONE}:
                self._start(pool, name, node)

    def _state(self, wire: Wire) -> State:
        """The state of a wire's value: done as soon as it is there, though it may not be stored yet."""
        if not wire.step:
            return State.DONE
        state = self.records[wire.step].state
        returned = state is State.RUNNING and wire.step not in self._calls.values()
        return State.DONE if returned else state

    def _start(self, pool: ThreadPoolExecutor, name: str, node: Node) -> None:
        record = self.records[name]
        record.state = State.RUNNING
        record.started = self.clock().isoformat(timespec="seconds")
        self._clocks[name] = time.perf_counter()
        self.progress(Event(operator=name, what=What.STARTED))
        self._calls[pool.submit(self._call, name, node)] = name
        self._keep()

    def _call(self, name: str, node: Node) -> Mapping[str, object]:
        """Run one operator, in the pool."""
        operator = node.operator
        types = {port.key: Any if operator.is_apart else port.type for port in operator.input_ports.values()}
        arguments = {key: self._value(wire, types[key]) for key, wire in node.wires.items()}
        keywords = {**node.settings, **self.injected[name]}
        for key, wanted in operator.injected.items():
            if wanted is Context:
                keywords[key] = self._context(name)
            elif wanted is Node:
                keywords[key] = node
        try:
            return call_operator(node, arguments, keywords, self.misplaced)
        except (Exception, SystemExit) as error:
            if is_to_blame(operator, error):
                raise RaisedByOthers(node, error) from error
            raise

    def _value(self, wire: Wire, wanted: Any) -> object:
        value = self._slots[wire].get(self.store) if wire.step else self.inputs[wire.path]
        if not isinstance(value, Files) or holds(wanted, value):
            return value
        files = self.store.files(value)  # waits until they are stored, where they stay
        told = read_output(wanted, files, wire)
        self.store.found(told, files)
        return told

    def _context(self, name: str) -> Context:
        record = self.records[name]

        def progress(fraction: float) -> None:
            if self._cancelled.is_set():
                raise _Cancelled
            self.progress(Event(operator=name, what=What.FRACTION, fraction=min(1.0, max(0.0, fraction))))

        return Context(
            step=name,
            folder=self.out,
            when=self._when,
            progress=progress,
            warn=lambda sentence: self.said.warn(record, sentence),
            record=lambda key, fact: self.said.note(record, key, fact),
            saved=self.store.files,
        )

    def _called(self, name: str, future: Future[Mapping[str, object]]) -> None:
        node = self.graph.nodes[name]
        self.records[name].seconds = round(time.perf_counter() - self._clocks[name], 3)
        self._served(node)
        try:
            results = future.result()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the run is where an operator's error, a bug too, ends
            self._fail(name, error)
            return
        for path, value in results.items():
            self._slots[Wire(step=name, path=path)].fill(value)
            if path in node.outputs:
                place = node.operator.places.get(path, f"steps/{name}{path}")
                port = node.operator.output_ports[path]
                self._writes[self.store.put(port, value, place, name)] = (name, path)
        if not self._is_writing(name):
            self._done(name)

    def _written(self, name: str, path: str, future: Future[Stored]) -> None:
        try:
            stored = future.result()
        except Exception as error:  # noqa: BLE001 - as above: an output that can't be stored fails its operator
            self._can_store = not isinstance(error, BadConfig)
            node = self.graph.nodes[name]
            is_theirs = not isinstance(error, OSError) and is_to_blame(node.operator, error)
            self._fail(name, RaisedByOthers(node, error) if is_theirs else error)
            return
        record = self.records[name]
        names = record.outputs[path] = [file.relative_to(self.out).as_posix() for file in stored.files]
        record.files.update(zip(names, stored.digests, strict=True))
        if words := self._said_of_unread(Wire(step=name, path=path), stored.files):
            self.said.warn(record, words)
        if record.state is State.RUNNING and not self._is_writing(name):
            self._done(name)

    def _said_of_unread(self, wire: Wire, files: Sequence[Path]) -> str:
        """What is to be warned of files that an operator of others left for no step."""
        is_theirs = not self.graph.nodes[wire.step].operator.is_built_in
        is_read = any(wire in node.wires.values() for node in self.graph.nodes.values())
        return self.left_aside(wire.path, files, self.out) if is_theirs and not is_read else ""

    def _is_writing(self, name: str) -> bool:
        return any(step == name for step, _ in self._writes.values())

    def _done(self, name: str) -> None:
        record = self.records[name]
        record.state = State.DONE
        self.progress(Event(operator=name, what=What.DONE, fraction=1.0, seconds=record.seconds))
        self._keep()

    def _fail(self, name: str, error: Exception | SystemExit) -> None:
        record = self.records[name]
        if isinstance(error, SystemExit):
            error = RuntimeError(f"the operator ended its process with {error!r}")
        raised = error.error if isinstance(error, RaisedByOthers) else error
        raised.add_note(f"in operator '{name}'")
        failure, trace = self._told(name, error)
        _release(error)
        record.state = State.FAILED
        record.error = FailureRecord(code=failure.code, message=failure.message, traceback=trace)
        self.errors.append(failure)
        self.progress(Event(operator=name, what=What.FAILED, seconds=record.seconds, message=record.error.message))
        self._keep()

    def _told(self, name: str, error: Exception) -> tuple[CarinaError, str]:
        """An error of the tree, and, for what nobody foresaw, the file in the run's folder that has the traceback."""
        trace = trace_name(name)
        failure = self._as_told(error, self.out / trace)
        if not failure.trace:
            return failure, ""
        with suppress(BadConfig):
            if keep_trace(failure, below(self.out, trace)):
                return failure, trace
        return self._as_told(error, None), ""

    def _as_told(self, error: Exception, kept: Path | None) -> CarinaError:
        if isinstance(error, RaisedByOthers):
            failure: CarinaError = fault_of_others(error.error, error.operator, kept)
            failure.__cause__ = error.error
            return failure
        failure = told(error, (self.out,), kept=kept)
        if failure is not error:
            failure.__cause__ = error
        return failure

    def _skip(self, name: str, node: Node) -> None:
        record = self.records[name]
        record.state = State.SKIPPED
        ended = {State.FAILED, State.SKIPPED}
        cause = next(wire.step for wire in node.wires.values() if self._state(wire) in ended)
        record.error = FailureRecord(code="", message=f"not run, because '{cause}' gave no result")
        self._served(node)
        self.progress(Event(operator=name, what=What.SKIPPED, message=record.error.message))
        self._keep()

    def _served(self, node: Node) -> None:
        for wire in node.wires.values():
            if wire.step:
                self._slots[wire].served()


def _release(error: BaseException | None) -> None:
    """Let go of the volumes that an error's frames hold, while the rest of the run still needs memory."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        traceback.clear_frames(error.__traceback__)
        chain.append(error)
        error = error.__cause__ or error.__context__
