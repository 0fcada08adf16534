"""A small cohort in the simulation of ``benchmarks/many_workers.py``: what it claims of the large one holds here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from many_workers import NO_TROUBLES, Outcome, Troubles, fast_folder, simulate

MORE = Troubles(crash=0.05, may_pass=0.05, bad=0.02, deadly=0.01, die_s=500, stall_s=150)


def simulated(jobs: int, workers: int, troubles: Troubles = NO_TROUBLES) -> Outcome:
    with fast_folder() as folder:
        return simulate(f"sqlite:///{folder}/node.sqlite", jobs, workers, troubles)


def test_every_job_ends_once_whatever_fails() -> None:
    seen = simulated(300, 8, MORE)
    assert set(seen.ends) == {"healthy", "faulted"}
    assert seen.ends.total() == 300
    assert seen.ends["healthy"] == seen.events["healthy"] - seen.events["refused"]
    assert seen.ends["faulted"] < 300 * 2 * (MORE.bad + MORE.deadly)
    assert seen.wrong == 0
    happened = {what for what, number in seen.events.items() if number}
    assert happened >= {"bad", "crash", "may pass", "deaths", "stalls", "refused"}


def test_a_worker_among_many_does_nearly_what_one_alone_does() -> None:
    alone, among = simulated(120, 1), simulated(120, 8)
    assert among.while_jobs_waited >= 0.9 * alone.while_jobs_waited


def test_the_same_arguments_give_the_same_answer() -> None:
    assert simulated(40, 2, MORE) == simulated(40, 2, MORE)
