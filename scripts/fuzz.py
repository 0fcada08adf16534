"""Damaged inputs by the thousand: what is no refusal in one line, hangs, ends the process or takes memory is reported.

Usage: scripts/fuzz [--count 100000] [--kind dicom] [--first 0] [--workers 2]

Each worker is a process that goes through seeds; it is watched, so that a hang or a crash is a finding too, and the
next worker takes up the seed after it. Exit code 1 where anything was found.
"""

from __future__ import annotations

import argparse
import os
import resource
import select
import subprocess
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from carina.operators.table import BUILT_IN
from carina.testing.hostile import Sample
from carina.testing.hostile_reading import read_hostile

PATIENCE_S = 20
"""Silence of a worker, which tells of each seed, after which its seed is tried once more, alone."""

MORE_PATIENCE = 5
"""How many times as long the second try may take: on a busy machine a process may stand still for no fault of ours."""

MEMORY_BYTES = 2_000_000_000
SHARES = {Sample.DICOM: 0.6, Sample.VOLUME: 0.2, Sample.DEFINITION: 0.08, Sample.MANIFEST: 0.06, Sample.SETTINGS: 0.06}
"""What part of the inputs is of each kind."""


Batch = tuple[Sample, int, int]
"""A kind with its first seed and the one after its last."""


@dataclass
class Findings:
    """What came out: counts of outcomes, and a line for each input that was not refused or read as it should."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Take up a worker's line: ``kind seed outcome ...``."""
        kind, _, outcome, *rest = line.split(" ", 3)
        self.outcomes[f"{kind} {outcome}"] += 1
        if outcome not in ("read", "refused"):
            self.faults.append(line)
            print(line, flush=True)
        del rest


def work(kind: Sample, first: int, count: int) -> None:
    """Go through seeds, a line before and after each; runs in a process of its own, which a peak of memory ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for seed in range(first, first + count):
        print(f"start {seed}", flush=True)
        with TemporaryDirectory(prefix="carina-fuzz-") as name:
            outcome = _outcome(kind, seed, Path(name))
        print(f"{kind} {seed} {outcome}", flush=True)
        if outcome.startswith("memory"):
            return  # the peak is the process's: those that follow would be blamed for it


def _outcome(kind: Sample, seed: int, folder: Path) -> str:
    try:
        words = read_hostile(kind, seed, folder, BUILT_IN)
    except Exception as error:  # noqa: BLE001 - the finding that this script is for
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"traceback {type(error).__name__} {str(error)[:150]!r} {Path(last.filename).name}:{last.lineno}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if peak > MEMORY_BYTES:
        return f"memory {peak / 1e6:.0f} MB"
    return words


class Watched:
    """A worker process with what is left of its seeds."""

    def __init__(self, batch: Batch, findings: Findings, patience_s: float) -> None:
        self.kind, self.seed, self.end = batch
        self.findings, self.patience_s = findings, patience_s
        self.since = time.monotonic()
        self.begun = b""
        self.process = self._start(self.seed)

    def _command(self, first: int, count: int) -> list[str]:
        return [sys.executable, __file__, "--work", self.kind, "--first", str(first), "--count", str(count)]

    def _start(self, first: int) -> subprocess.Popen[bytes]:
        command = self._command(first, self.end - first)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)

    @property
    def output(self) -> IO[bytes]:
        """The worker's output, unbuffered: a line that waited in a buffer would put a hang down to an older seed."""
        if self.process.stdout is None:
            raise RuntimeError("a worker is started with a pipe")
        return self.process.stdout

    def step(self) -> bool:
        """Take what the worker said, or see that it said nothing; False when every seed is done."""
        ready, _, _ = select.select([self.output], [], [], 1.0)
        if ready:
            said = self.output.read(1 << 16)
            if not said:
                return self._ended(self.process.wait())
            *lines, self.begun = (self.begun + said).split(b"\n")
            for line in lines:
                self._take(line.decode())
        elif time.monotonic() - self.since > self.patience_s:
            self.process.kill()
            self.process.wait()
            self._try_again()
            return self._next()
        return True

    def _try_again(self) -> None:
        """The seed that was silent, alone: what it says then counts, or that it hangs."""
        patience_s = MORE_PATIENCE * self.patience_s
        try:
            done = subprocess.run(self._command(self.seed, 1), capture_output=True, timeout=patience_s, check=False)
        except subprocess.TimeoutExpired:
            self.findings.add(f"{self.kind} {self.seed} hang over {patience_s:.0f} s")
            return
        self.findings.add(
            done.stdout.decode().splitlines()[-1] if done.returncode == 0 else self._crash(done.returncode)
        )

    def _crash(self, code: int) -> str:
        return f"{self.kind} {self.seed} crash with code {code}"

    def _take(self, line: str) -> None:
        self.since = time.monotonic()
        if line.startswith("start "):
            self.seed = int(line.removeprefix("start "))
        else:
            self.findings.add(line)

    def _ended(self, code: int) -> bool:
        if code != 0:
            self.findings.add(self._crash(code))
        return self._next()

    def _next(self) -> bool:
        if self.seed + 1 >= self.end:
            return False
        self.since = time.monotonic()
        self.process = self._start(self.seed + 1)
        return True


def _batches(kinds: list[Sample], first: int, count: int, workers: int) -> list[Batch]:
    shares = {kind: SHARES[kind] / sum(SHARES[one] for one in kinds) for kind in kinds}
    found = []
    for kind, share in shares.items():
        ends = [first + round(count * share * part / workers) for part in range(workers + 1)]
        found += [(kind, start, end) for start, end in pairwise(ends) if end > start]
    return found


def watch(batch: Batch, findings: Findings, patience_s: float) -> None:
    """Have a batch worked through, by one worker after another where one ends or hangs."""
    watched = Watched(batch, findings, patience_s)
    while watched.step():
        pass


def main() -> int:
    """Share the seeds among workers and say what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kind", type=Sample, choices=list(Sample), help="only this kind (default: all)")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--count", type=int, default=100_000, help="inputs in all")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds of silence that count as a hang")
    parser.add_argument("--work", type=Sample, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.first, given.count)
        return 0
    findings, started = Findings(), time.monotonic()
    batches = _batches([given.kind] if given.kind else list(Sample), given.first, given.count, given.workers)
    with ThreadPoolExecutor(given.workers) as pool:
        list(pool.map(lambda batch: watch(batch, findings, given.patience), batches))
    for outcome, count in sorted(findings.outcomes.items()):
        print(f"{outcome}: {count}")
    print(
        f"{sum(findings.outcomes.values())} inputs, {len(findings.faults)} findings, {time.monotonic() - started:.0f} s"
    )
    return 1 if findings.faults else 0


if __name__ == "__main__":
    sys.exit(main())
