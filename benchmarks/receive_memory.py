"""The server's memory while many send at once: as many series as an hour brings, as fast as they go.

Usage: python benchmarks/receive_memory.py [--associations 20] [--series 10] [--slices 75]

DCMTK's ``storescu`` sends slices of 512x512 to ``carina serve`` over all associations at once, series after series,
each under UIDs of its own. Every series is judged when it is complete (its headers are read); none is run, since jobs
have processes of their own. For research use only. Not for diagnosis.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from receive_rate import QUICK, write_slices
from sqlalchemy import func, select

from carina.config import load_settings
from carina.database import ARRIVAL, INSTANCE, open_database, read_only
from carina.jobs.places import database_address
from carina.testing.pacs import free_port

LIMIT_MB = 150.0
PATIENCE_S = 300.0
SETTLED = ("quarantined", "queued")
CLI = (sys.executable, "-c", "import sys; from carina.cli.main import main; sys.exit(main())")

SETTINGS = """
[node]
folder = "{folder}/node"
database = "sqlite:///{folder}/node.sqlite"
free_gb = 0.0
[dicom]
port = {dicom}
[web]
port = {web}
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
quiet_s = 2.0
series_rules = "{folder}/rules.toml"
"""

RULES = "min_slices = 10000\n"
"""No series has so many: each is judged, and waits in quarantine."""


@dataclass(frozen=True, kw_only=True)
class MemoryFigures:
    """Resident memory of the server in MB: when it listens, after each tenth of what was sent, and at its highest."""

    series: int
    sent: int
    stored: int
    unsettled: int
    instances_a_second: float
    listening_mb: float
    tenths_mb: tuple[float, ...]
    settled_mb: float
    highest_mb: float


class Gauge(threading.Thread):
    """Reads a process's memory again and again."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.read, self._over = pid, [resident_mb(pid)], threading.Event()

    def run(self) -> None:
        """Until it is told to stop."""
        while not self._over.wait(0.5):
            self.read.append(resident_mb(self.pid))

    def stop(self) -> list[float]:
        """What was read."""
        self._over.set()
        self.join()
        return self.read


def resident_mb(pid: int) -> float:
    """Resident memory of a process (proc(5))."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def _server(folder: Path, port: int) -> Iterator[int]:
    values = {"folder": folder, "dicom": port, "web": free_port()}
    (folder / "carina.toml").write_text(SETTINGS.format(**values))
    (folder / "rules.toml").write_text(RULES)
    with (folder / "server.log").open("wb") as log:
        command = [*CLI, "serve", "--config", str(folder / "carina.toml")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        asked = ["echoscu", "-q", "-aec", "CARINA", "127.0.0.1", str(port)]
        while process.poll() is None and subprocess.run(asked, check=False, capture_output=True).returncode:
            time.sleep(0.2)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _send(folders: list[Path], series: int, port: int) -> None:
    """Send every folder as so many series, all folders at once."""
    slices = len(list(folders[0].iterdir()))
    command = ["storescu", "-aec", "CARINA", "+sd", "+IR", str(slices), "+IS", "1", "--repeat", str(series)]
    command += ["127.0.0.1", str(port)]
    senders = [subprocess.Popen([*command, str(folder)], env=os.environ | QUICK) for folder in folders]
    if any(sender.wait() for sender in senders):
        raise RuntimeError("storescu could not send everything")


def _settled(folder: Path) -> tuple[int, int, int]:
    """Series, instances, and arrivals that are not settled after a while without a change."""
    engine = open_database(database_address(load_settings(folder / "carina.toml", {})))
    end, before = time.monotonic() + PATIENCE_S, -1
    while True:
        with read_only(engine) as connection:
            series = connection.execute(select(func.count(ARRIVAL.c.series_uid.distinct()))).scalar_one()
            instances = connection.execute(select(func.count()).select_from(INSTANCE)).scalar_one()
            open_ones = select(func.count()).select_from(ARRIVAL).where(ARRIVAL.c.state.not_in(SETTLED))
            left = connection.execute(open_ones).scalar_one()
        if not left or time.monotonic() > end:
            engine.dispose()
            return series, instances, left
        end = time.monotonic() + PATIENCE_S if left != before else end
        before = left
        time.sleep(1)


def measure(folder: Path, associations: int, series: int, slices: int) -> MemoryFigures:
    """Send, and read the server's memory meanwhile."""
    folders = [folder / "slices" / str(number + 1) for number in range(associations)]
    for one in folders:
        write_slices(one, slices)
    port = free_port()
    with _server(folder, port) as pid:
        listening = resident_mb(pid)
        gauge = Gauge(pid)
        gauge.start()
        began = time.perf_counter()
        _send(folders, series, port)
        seconds = time.perf_counter() - began
        while_sent = len(gauge.read)
        found, stored, left = _settled(folder)
        settled = resident_mb(pid)
        read = gauge.stop()
    sent = associations * series * slices
    return MemoryFigures(
        series=found,
        sent=sent,
        stored=stored,
        unsettled=left,
        instances_a_second=round(sent / seconds, 1),
        listening_mb=round(listening, 1),
        tenths_mb=tuple(round(read[while_sent * tenth // 10 - 1], 1) for tenth in range(1, 11)),
        settled_mb=round(settled, 1),
        highest_mb=round(max(read), 1),
    )


def main() -> int:
    """Measure; 1 where something is missing or the memory is over the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--associations", type=int, default=20)
    parser.add_argument("--series", type=int, default=10, help="of each association")
    parser.add_argument("--slices", type=int, default=75, help="of each series")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="carina-memory-") as folder:
        figures = measure(Path(folder), given.associations, given.series, given.slices)
    print(json.dumps(asdict(figures)))
    is_whole = figures.stored == figures.sent and not figures.unsettled
    return int(not is_whole or figures.highest_mb > LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main())
