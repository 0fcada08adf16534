"""The server's memory while many send at once: as many series as an hour brings, as fast as they go or over a time.

Usage: python benchmarks/receive_memory.py [--associations 20] [--series 10] [--slices 75] [--minutes 40 --jobs 200]

DCMTK's ``storescu`` sends slices of 512x512 to ``carina serve`` over all associations at once, series after series,
each under UIDs of its own. Every series is judged when it is complete (its headers are read); none is run, since jobs
have processes of their own. With ``--minutes`` they are sent in turns over this time, and ``--jobs`` small series
beside them, which are run (the reader and a writer of slices) and sent to a real Orthanc, while somebody looks at the
worklist every ten seconds. With ``--python`` the server is another environment's: what tests have installed beside it
(``requests``, which pydicom loads where it is there) is in its memory otherwise. For research use only. Not for
diagnosis.
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
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from kill_node import DEFINITION, RULES, SLICES
from receive_rate import QUICK, write_slices
from sqlalchemy import func, select

from carina.config import load_settings
from carina.database import ARRIVAL, DELIVERY, INSTANCE, JOB, open_database, read_only
from carina.jobs.places import database_address
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.pacs import Pacs, orthanc
from carina.testing.ports import free_port

LIMIT_MB = 150.0
PATIENCE_S = 300.0
SETTLED = ("quarantined", "queued", "kept")
LOOKS_S = 10.0
CLI = ("-c", "import sys; from carina.cli.main import main; sys.exit(main())")

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
series_rules = "{folder}/none.toml"
[sources.run]
kind = "dicom"
ae_title = "RUN"
quiet_s = 2.0
pipelines = ["{folder}/slices.yaml"]
series_rules = "{folder}/rules.toml"
destinations = ["PACS"]
[destinations.PACS]
kind = "dicom"
host = "127.0.0.1"
port = {pacs}
ae_title = "ORTHANC"
"""

TAKES_NONE = "min_slices = 10000\n"
"""No series has so many: each is judged, and waits in quarantine."""


@dataclass(frozen=True, kw_only=True)
class MemoryFigures:
    """Resident memory of the server in MB: when it listens, after each tenth of what was sent, and at its highest."""

    series: int
    sent: int
    stored: int
    unsettled: int
    healthy: int
    delivered: int
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
def _server(folder: Path, port: int, web: int, pacs: int, python: str) -> Iterator[int]:
    values = {"folder": folder, "dicom": port, "web": web, "pacs": pacs}
    (folder / "carina.toml").write_text(SETTINGS.format(**values))
    (folder / "none.toml").write_text(TAKES_NONE)
    (folder / "rules.toml").write_text(RULES)
    (folder / "slices.yaml").write_text(DEFINITION)
    with (folder / "server.log").open("wb") as log:
        command = [python, *CLI, "serve", "--config", str(folder / "carina.toml")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        asked = ["echoscu", "-q", "-aec", "CARINA", "127.0.0.1", str(port)]
        while process.poll() is None and subprocess.run(asked, check=False, capture_output=True).returncode:
            time.sleep(0.2)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What is sent: series of ``slices`` over each association, and small series that are run, over so many seconds."""

    associations: int
    series: int
    slices: int
    jobs: int
    seconds: float

    @property
    def instances(self) -> int:
        """All that is sent."""
        return self.associations * self.series * self.slices + self.jobs * SLICES


def _send(folders: list[Path], traffic: Traffic, port: int) -> None:
    """Send every folder as so many series, all folders at once: in one go, or each turn at its time."""
    turns = traffic.series if traffic.seconds else 1
    began = time.monotonic()
    for turn in range(turns):
        time.sleep(max(0.0, began + turn * traffic.seconds / turns - time.monotonic()))
        command = ["storescu", "-aec", "CARINA", "+sd", "+IR", str(traffic.slices), "+IS", "1"]
        command += ["--repeat", str(traffic.series // turns), "127.0.0.1", str(port)]
        senders = [subprocess.Popen([*command, str(folder)], env=os.environ | QUICK) for folder in folders]
        if any(sender.wait() for sender in senders):
            raise RuntimeError("storescu could not send everything")
    time.sleep(max(0.0, began + traffic.seconds - time.monotonic()))


def _send_to_be_run(folder: Path, traffic: Traffic, port: int) -> None:
    began = time.monotonic()
    for number in range(traffic.jobs):
        time.sleep(max(0.0, began + number * traffic.seconds / traffic.jobs - time.monotonic()))
        series = folder / f"run{number}"
        write_ct_series(chest_phantom(shape=(SLICES, 64, 64), lesions=0, seed=number).volume, series)
        command = ["storescu", "-aec", "RUN", "+sd", "127.0.0.1", str(port), str(series)]
        subprocess.run(command, env=os.environ | QUICK, check=True)


def _look(web: int, is_over: threading.Event) -> None:
    while not is_over.wait(LOOKS_S):
        for path in ("/", "/metrics"):
            with urllib.request.urlopen(f"http://127.0.0.1:{web}{path}", timeout=PATIENCE_S) as answer:
                answer.read()


def _settled(folder: Path) -> dict[str, int]:
    """Series, instances, what is not settled after a while without a change, healthy jobs, confirmed objects."""
    engine = open_database(database_address(load_settings(folder / "carina.toml", {})))
    counts = {
        "series": select(func.count(ARRIVAL.c.series_uid.distinct())),
        "stored": select(func.count()).select_from(INSTANCE),
        "open": select(func.count()).select_from(ARRIVAL).where(ARRIVAL.c.state.not_in(SETTLED)),
        "waiting": select(func.count()).select_from(JOB).where(JOB.c.state != "stopped"),
        "unconfirmed": select(func.count()).select_from(DELIVERY).where(DELIVERY.c.state.in_(["waiting", "sent"])),
        "healthy": select(func.count()).select_from(JOB).where(JOB.c.ended == "healthy"),
        "delivered": select(func.count()).select_from(DELIVERY).where(DELIVERY.c.state == "confirmed"),
    }
    end, before = time.monotonic() + PATIENCE_S, {"open": -1}
    while True:
        with read_only(engine) as connection:
            now = {name: connection.execute(asked).scalar_one() for name, asked in counts.items()}
        unsettled = now["open"] + now["waiting"] + now["unconfirmed"]
        if not unsettled or time.monotonic() > end:
            engine.dispose()
            kept = {name: now[name] for name in ("series", "stored", "healthy", "delivered")}
            return kept | {"unsettled": unsettled}
        end = time.monotonic() + PATIENCE_S if now != before else end
        before = now
        time.sleep(1)


def measure(folder: Path, traffic: Traffic, pacs: Pacs, python: str) -> MemoryFigures:
    """Send, and read the server's memory meanwhile."""
    folders = [folder / "slices" / str(number + 1) for number in range(traffic.associations)]
    for one in folders:
        write_slices(one, traffic.slices)
    port, web, is_over = free_port(), free_port(), threading.Event()
    beside = [
        threading.Thread(target=_send_to_be_run, args=(folder / "small", traffic, port)),
        threading.Thread(target=_look, args=(web, is_over)),
    ]
    with _server(folder, port, web, pacs.dicom_port, python) as pid:
        listening = resident_mb(pid)
        gauge = Gauge(pid)
        gauge.start()
        began = time.perf_counter()
        for thread in beside:
            thread.start()
        _send(folders, traffic, port)
        beside[0].join()
        seconds = time.perf_counter() - began
        while_sent = len(gauge.read)
        counted = _settled(folder)
        is_over.set()
        beside[1].join()
        settled = resident_mb(pid)
        read = gauge.stop()
    return MemoryFigures(
        **counted,
        sent=traffic.instances,
        instances_a_second=round(traffic.instances / seconds, 1),
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
    parser.add_argument("--jobs", type=int, default=0, help="small series that are run")
    parser.add_argument("--minutes", type=float, default=0.0, help="over which all is sent; 0: as fast as it goes")
    parser.add_argument("--python", default=sys.executable, help="the server's; default: this one")
    given = vars(parser.parse_args())
    python = given.pop("python")
    traffic = Traffic(seconds=60 * given.pop("minutes"), **given)
    with tempfile.TemporaryDirectory(prefix="carina-memory-") as folder, orthanc(timeout_s=120.0) as pacs:
        figures = measure(Path(folder), traffic, pacs, python)
        arrived = len(pacs.instances())
    print(json.dumps(asdict(figures) | {"in_orthanc": arrived}))
    is_whole = figures.stored == figures.sent and not figures.unsettled
    is_whole &= figures.healthy == traffic.jobs and figures.delivered == arrived == traffic.jobs * SLICES
    return int(not is_whole or figures.highest_mb > LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main())
