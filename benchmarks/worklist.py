"""The worklist of a node with many jobs, asked for by several browsers at once: by percentile.

    python benchmarks/worklist.py [--jobs 100000] [--clients 20] [--pages 20]

The node is a real server in a process of its own, on SQLite in a temporary folder. Each client asks for another part
of the worklist, then waits for half a second on average, as people do.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Engine, insert

from carina.config import load_settings
from carina.database import ARRIVAL, DELIVERY, INSTANCE, JOB, PROJECT
from carina.jobs.places import open_node
from carina.testing.ports import free_port
from carina.web_settings import DEFAULT_PROJECT

OBJECTS = 5
TICKS = os.sysconf("SC_CLK_TCK")
AT_ONCE = 10_000
TRIAL = "trial"
DESCRIBED = "Thorax 1.0"
DECISIONS = '[{"layer": "lesion", "decision": "accepted", "reader": "Ann Reader", "at": "2026-05-04T12:00:00Z"}]'


def fill(engine: Engine, count: int) -> None:
    """Put ended jobs into the tables, nine in ten on a series that came, the tenth of these faulted.

    The others have five confirmed deliveries, and readers have decided about all of these but one in a thousand. One
    series in a hundred is of a project of its own, one in ten thousand waits in quarantine.
    """
    now = datetime.now(UTC)
    with engine.begin() as connection:
        connection.execute(insert(PROJECT), {"name": TRIAL, "created_at": now})
    for first in range(1, count + 1, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, count + 1))
        with engine.begin() as connection:
            came = [number for number in numbers if number % 10]
            connection.execute(insert(ARRIVAL), [arrival(number, now) for number in came])
            connection.execute(insert(INSTANCE), [instance(number, now) for number in came])
            connection.execute(insert(JOB), [job(number, now) for number in numbers])
            rows = [delivery(number, object_, now) for number in numbers if number % 9 for object_ in range(OBJECTS)]
            connection.execute(insert(DELIVERY), rows)


def project(number: int) -> str:
    """The project of a series and its job."""
    return TRIAL if number % 100 == 1 else DEFAULT_PROJECT


def arrival(number: int, now: datetime) -> dict[str, object]:
    """A row of the table of arrivals."""
    named = {"id": number, "series_uid": f"2.25.{number}", "study_uid": f"2.25.{number}", "project": project(number)}
    state = "quarantined" if number % 10_000 == 5 else "queued"
    said = {"studied": "20260504", "modality": "CT", "series_description": DESCRIBED}
    return {**named, **said, "source": "scanner", "sender": "CT1", "state": state, "first_at": now, "last_at": now}


def instance(number: int, now: datetime) -> dict[str, object]:
    """A row of the table of instances; its file is not there."""
    named = {"arrival_id": number, "source": "scanner", "sop_instance_uid": f"2.25.{number}.1", "sop_class_uid": "1.2"}
    file = {"transfer_syntax_uid": "1.2", "sha256": str(number), "bytes": 1, "path": f"incoming/{number}/1.dcm"}
    return {**named, **file, "accepted_at": now}


def job(number: int, now: datetime) -> dict[str, object]:
    """A row of the job table."""
    times = {"created_at": now, "started_at": now, "stopped_at": now + timedelta(minutes=2)}
    asked = {"source": f"incoming/{number}", "pipeline": "default", "folder": f"runs/{number}", "priority": 2}
    asked |= {"arrival_id": number if number % 10 else None, "project": project(number)}
    asked |= {"described": f"2026-05-04, {DESCRIBED}" if number % 10 else "", "series_uid": f"2.25.{number}"}
    ended: dict[str, object] = {"state": "stopped", "ended": "healthy" if number % 9 else "faulted"}
    ended |= {"memory_mb": 3000.0, "cores": 2.0, "reading": "", "decisions": "[]"}
    if number % 9:
        ended["reading"] = "unread" if number % 1000 == 1 else ("accepted", "rejected", "corrected")[number % 3]
        ended["decisions"] = DECISIONS if number % 1000 != 1 else "[]"
    return {**times, **asked, **ended, "error": "" if number % 9 else "slices 12 and 13 are 7.5 mm apart."}


def delivery(number: int, object_: int, now: datetime) -> dict[str, object]:
    """A row of the delivery ledger."""
    uid = f"2.25.{number}.{object_}"
    named = {"job_id": number, "destination": "PACS", "sop_class_uid": "1.2", "sop_instance_uid": uid, "path": "x"}
    return {**named, "state": "confirmed", "created_at": now}


def ask(url: str, pages: int, count: int, times: list[float]) -> None:
    """What one client does."""
    for _ in range(pages):
        time.sleep(random.random())
        before = random.randint(100, count)
        parts = [
            "/",
            "/?state=faulted",
            f"/?before={before}",
            "/?reading=unread",
            f"/?reading=rejected&before={before}",
            f"/projects/{TRIAL}",
        ]
        part = random.choice(parts)
        began = time.perf_counter()
        with urllib.request.urlopen(url + part) as answer:
            answer.read()
        times.append(1000 * (time.perf_counter() - began))


def processor_s(process_id: int) -> float:
    """Processor seconds that a process has taken so far, all threads together; for Linux."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def wait_for(url: str) -> None:
    """Come back when a node can work."""
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"{url}/health/ready").close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(url)


def main() -> None:
    """Fill, serve, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--pages", type=int, default=20)
    args = parser.parse_args()
    with TemporaryDirectory() as name:
        file, port = Path(name) / "carina.toml", free_port()
        file.write_text(f'[node]\nfolder = "{name}/node"\nfree_gb = 0.0\n[web]\nport = {port}\n')
        engine = open_node(load_settings(file, {}))
        fill(engine, args.jobs)
        engine.dispose()
        program = Path(sys.executable).with_name("carina")
        with subprocess.Popen([program, "serve", "--config", str(file)], stderr=subprocess.DEVNULL) as process:
            url = f"http://127.0.0.1:{port}"
            wait_for(url)
            times: list[float] = []
            clients = [
                threading.Thread(target=ask, args=(url, args.pages, args.jobs, times)) for _ in range(args.clients)
            ]
            before = processor_s(process.pid)
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            taken_ms = 1000 * (processor_s(process.pid) - before) / len(times)
            memory = Path(f"/proc/{process.pid}/status").read_text().split("VmRSS:")[1].split()[0]
            process.terminate()
    half, most = statistics.median(times), statistics.quantiles(times, n=20)[-1]
    answered = f"{args.jobs} jobs, {args.clients} clients: median {half:.0f} ms, p95 {most:.0f} ms"
    print(f"{answered}; {taken_ms:.1f} ms of the processor a page; server {memory} kB")


if __name__ == "__main__":
    main()
