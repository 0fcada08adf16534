"""SIGKILL of a whole node at random moments: the server, a worker beside it, a job's process, the database's.

Usage: python benchmarks/kill_node.py [--kills 200] [--seed 1] [--minutes 60] [--database postgresql+psycopg://...]

While series are sent to the node by DCMTK's ``storescu``, run (the reader and a writer of slices, no network) and sent
to a real Orthanc, which notes every object that it is given. Whoever was killed is started again. At the end what was
accepted must have been run, and Orthanc must have been given every object once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.exc import OperationalError

from carina.config import Settings, load_settings
from carina.database import ARRIVAL, DELIVERY, INSTANCE, JOB, open_database, read_only
from carina.deliver.identity import identity_of
from carina.jobs.places import database_address
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.pacs import Pacs, orthanc
from carina.testing.ports import free_port

SLICES = 12
SIDES = (64, 320)
"""Rows and columns of one series and of the next: data sets that are kept in memory, and such that are not."""

KILLS_A_SERIES = 4
"""So many kills for each series that is sent: about as many of each as the node can work on meanwhile."""

LATEST_KILL_S = 5.0
LISTENING = 0.75
"""The share of kills whose moment counts from when the server listens; else most would find a busy one starting."""

CONFIRM_S = 10.0
PATIENCE_S = 300.0
"""So long nothing may move at the end."""

MOST_KILLS_A_JOB = 2
"""A job whose process dies three times is stopped, which is right."""

VICTIMS = ("server", "worker", "job", "database")
WEIGHTS = (5, 2, 2, 1)

CLI = (sys.executable, "-c", "import sys; from carina.cli.main import main; sys.exit(main())")

COUNTING = """
function ReceivedInstanceFilter(dicom, origin, info)
  local file = io.open("{file}", "a")
  file:write(dicom.SOPInstanceUID .. "\\n")
  file:close()
  return true
end
"""

DEFINITION = """
api-version: 0.4.0
name: slices
operators:
- name: dicom-reader
  container: {image: carina/dicom-reader}
  input: [{path: /input}]
  output: [{path: /output}]
- name: slices
  container: {image: carina/dicom-writer}
  input: [{from: dicom-reader, path: /input}, {path: /dicom}]
  output: [{path: /output, name: dicom}]
"""

RULES = "max_slice_spacing_mm = 50.0\nmax_pixel_spacing_mm = 20.0\n"

SETTINGS = """
[node]
folder = "{folder}/node"
database = "{database}"
free_gb = 0.0
[dicom]
port = {dicom}
[web]
port = {web}
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
quiet_s = 3.0
pipelines = ["{folder}/slices.yaml"]
series_rules = "{folder}/rules.toml"
destinations = ["PACS"]
[destinations.PACS]
kind = "dicom"
host = "127.0.0.1"
port = {pacs}
ae_title = "ORTHANC"
confirm_s = {confirm_s}
"""


@dataclass(frozen=True, kw_only=True)
class NodeFigures:
    """What came of it; all but the first five are to be 0. ``unprocessed`` are series without a run on all of them."""

    kills: dict[str, int]
    series: int
    instances: int
    objects: int
    seconds: float
    missing_instances: int
    doubled_instances: int
    unprocessed: int
    missing_objects: int
    given_twice: int
    unconfirmed: int

    @property
    def is_right(self) -> bool:
        """Whether nothing was lost and nothing came twice."""
        lost = self.missing_instances + self.unprocessed + self.missing_objects + self.unconfirmed
        return lost + self.doubled_instances + self.given_twice == 0


@dataclass
class Victims:
    """The processes of a node; ``strike`` kills one and starts it again where nobody else does."""

    folder: Path
    engine: Engine
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    struck: Counter[str] = field(default_factory=Counter)
    jobs: Counter[str] = field(default_factory=Counter)

    def start(self, name: str) -> None:
        """Start the server or the worker."""
        words = ["serve"] if name == "server" else ["worker"]
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [*CLI, *words, "--config", str(self.folder / "carina.toml")]
            self.processes[name] = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def revive(self) -> None:
        """Start who ended by itself, as systemd would: a program that starts while the database recovers."""
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                self.start(name)

    def strike(self, name: str) -> None:
        """Kill one of a kind; the server where there is none."""
        killed = {"job": self._kill_job, "database": self._kill_database}.get(name, lambda: False)()
        name = name if killed or name == "worker" else "server"
        self.struck[name] += 1
        if not killed:
            self.processes[name].kill()
            self.processes[name].wait()
            self.start(name)

    def _kill_job(self) -> bool:
        for process in self.processes.values():
            for child in _children(process.pid):
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0") if child else []
                job = words[-3].decode() if b"carina.jobs.execute" in words else ""
                if job and self.jobs[job] < MOST_KILLS_A_JOB:
                    self.jobs[job] += 1
                    os.kill(child, signal.SIGKILL)
                    return True
        return False

    def _kill_database(self) -> bool:
        """A backend of PostgreSQL that dies so takes all others with it, and the server recovers from its log."""
        if self.engine.dialect.name != "postgresql":
            return False
        asked = text("select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
        self.engine.dispose()  # its connections may have died with another backend
        with suppress(OperationalError, ProcessLookupError), read_only(self.engine) as connection:
            pids = list(connection.execute(asked).scalars())
            if pids:
                os.kill(pids[0], signal.SIGKILL)
                return True
        return False

    def end(self) -> None:
        """Kill all of them."""
        for process in self.processes.values():
            process.kill()
            process.wait()


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
            int(one)
            for task in Path(f"/proc/{pid}/task").iterdir()
            if task.name != str(pid)
            for one in (task / "children").read_text().split()
        ]
    return []


@dataclass
class Scanner(threading.Thread):
    """Sends a series after the other, each again and again until the node has taken all of it."""

    port: int
    folder: Path
    turns: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(1))
    wanted: int = 0
    taken: list[Path] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Until no more is wanted."""
        while self.turns.acquire() and not self.ending.is_set():
            series = self.folder / f"series{self.wanted}"
            self.wanted += 1
            side = SIDES[self.wanted % len(SIDES)]
            write_ct_series(chest_phantom(shape=(SLICES, side, side), lesions=0, seed=self.wanted).volume, series)
            while _storescu(self.port, series):
                time.sleep(0.5)
            self.taken.append(series)

    def finish(self) -> None:
        """Send what was begun, and end."""
        self.ending.set()
        self.turns.release()
        self.join()


def _storescu(port: int, series: Path) -> int:
    quick = os.environ | {"TCP_NODELAY": "1", "TCP_BUFFER_LENGTH": "131072"}
    command = ["storescu", "-to", "20", "-ta", "20", "-td", "60", "-aec", "CARINA", "+sd", "127.0.0.1", str(port)]
    return subprocess.run([*command, str(series)], env=quick, capture_output=True, check=False).returncode


def main(kills: int = 200, seed: int = 1, minutes: float = 60.0, database: str = "") -> NodeFigures:
    """Kill so often, or for so long; then let the node finish. Prints and gives the figures."""
    folder = Path(tempfile.mkdtemp(prefix="carina-kill-node-"))
    given = folder / "given.txt"
    (folder / "counting.lua").write_text(COUNTING.format(file=given))
    more = {"LuaScripts": [str(folder / "counting.lua")]}
    try:
        with orthanc(settings=more, timeout_s=120.0) as pacs, _node(folder, pacs, database) as (settings, victims):
            began = time.monotonic()
            taken = _kill_and_finish(settings, victims, kills, random.Random(seed), began + 60 * minutes)
            figures = _figures(settings, victims, taken, (pacs, given), time.monotonic() - began)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(asdict(figures)))
    return figures


@contextmanager
def _node(folder: Path, pacs: Pacs, database: str) -> Iterator[tuple[Settings, Victims]]:
    (folder / "slices.yaml").write_text(DEFINITION)
    (folder / "rules.toml").write_text(RULES)
    values = {"folder": folder, "database": database or f"sqlite:///{folder}/n.sqlite", "confirm_s": CONFIRM_S}
    ports = {"dicom": free_port(), "web": free_port(), "pacs": pacs.dicom_port}
    (folder / "carina.toml").write_text(SETTINGS.format(**values, **ports))
    settings = load_settings(folder / "carina.toml", {})
    engine = open_database(database_address(settings))
    victims = Victims(folder, engine)
    try:
        victims.start("server")
        _until(lambda: _listens(victims, settings.dicom.port))
        victims.start("worker")
        yield settings, victims
    finally:
        victims.end()
        engine.dispose()


def _listens(victims: Victims, port: int) -> bool:
    victims.revive()
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


def _until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so() and time.monotonic() < end:
        time.sleep(0.2)


def _kill_and_finish(settings: Settings, victims: Victims, kills: int, chance: random.Random, end: float) -> list[Path]:
    """Kill so often, or until the end; gives the series that were taken."""
    scanner = Scanner(settings.dicom.port, victims.folder)
    scanner.start()
    for number in range(kills):
        if time.monotonic() > end:
            break
        if chance.random() < LISTENING:
            _until(lambda: _listens(victims, settings.dicom.port))
        time.sleep(chance.uniform(0, LATEST_KILL_S))
        victims.revive()
        victims.strike(*chance.choices(VICTIMS, WEIGHTS))
        if number % KILLS_A_SERIES == KILLS_A_SERIES - 1:
            scanner.turns.release()
    victims.revive()
    scanner.finish()
    _finish(victims)
    return scanner.taken


def _finish(victims: Victims) -> None:
    """Until nothing moves any more; jobs that were killed are not made to wait for their next try."""
    before: object = None
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        time.sleep(1.0)
        victims.revive()
        with suppress(OperationalError):
            with victims.engine.begin() as connection:
                connection.execute(update(JOB).where(JOB.c.state == "pending").values(not_before=None))
            with read_only(victims.engine) as connection:
                now = tuple(
                    tuple(sorted(map(tuple, connection.execute(select(column, func.count()).group_by(column)))))
                    for column in (ARRIVAL.c.state, JOB.c.state, DELIVERY.c.state)
                )
            states = {state for table in now for state, _ in table}
            if not states & {"arriving", "complete", "pending", "running", "waiting", "sent"}:
                return
            end = time.monotonic() + PATIENCE_S if now != before else end
            before = now


def _figures(
    settings: Settings, victims: Victims, taken: list[Path], at: tuple[Pacs, Path], seconds: float
) -> NodeFigures:
    pacs, given = at
    folder = Path(settings.node.folder)
    with read_only(victims.engine) as connection:
        instances = list(connection.execute(select(INSTANCE.c.sop_instance_uid, INSTANCE.c.path)))
        healthy = list(connection.execute(select(JOB.c.folder).where(JOB.c.ended == "healthy")).scalars())
        rows = list(connection.execute(select(DELIVERY.c.sop_instance_uid, DELIVERY.c.state)))
    sent = {identity_of(file).sop_instance_uid for series in taken for file in series.glob("*.dcm")}
    there = Counter(row.sop_instance_uid for row in instances if (folder / row.path).is_file())
    objects = {row.sop_instance_uid for row in rows}
    whole = _whole_runs(folder / run for run in healthy)
    return NodeFigures(
        kills=dict(victims.struck),
        series=len(taken),
        instances=len(sent),
        objects=len(objects),
        seconds=round(seconds, 1),
        missing_instances=len(sent - set(there)),
        doubled_instances=_twice(there),
        unprocessed=len([series for series in taken if _study(series) not in whole]),
        missing_objects=len(objects - set(pacs.instances())),
        given_twice=_twice(Counter(given.read_text().split())),
        unconfirmed=sum(row.state != "confirmed" for row in rows),
    )


def _twice(counted: Counter[str]) -> int:
    return sum(number > 1 for number in counted.values())


def _whole_runs(runs: Iterable[Path]) -> set[str]:
    """The studies of those runs that were on all of a series."""
    return {_study(run / "dicom") for run in runs if len(list((run / "dicom").rglob("*.dcm"))) == SLICES}


def _study(folder: Path) -> str:
    """The study of the files below a folder."""
    return identity_of(next(folder.rglob("*.dcm"))).study_uid


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--database", default="")
    sys.exit(not main(**vars(parser.parse_args())).is_right)
