"""What a worker takes for its own: the machine's, less by cgroups of either version, by affinity, by Slurm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from carina.config import NodeSettings, Settings
from carina.jobs import machine
from carina.jobs.machine import granted_cores, granted_memory_bytes, whole_machine, within_slurm
from carina.jobs.queue import Room

MACHINE = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
CORES = float(len(os.sched_getaffinity(0)))


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = "sys/fs/cgroup"
STEP = "system.slice/slurmstepd.scope/job_7/step_batch"


@pytest.mark.parametrize(
    ("files", "memory", "cores"),
    [
        ({}, MACHINE, CORES),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/memory.max": "max\n", f"{V2}/cpu.max": "max 100000\n"}, MACHINE, CORES),
        (
            {"proc/self/cgroup": "0::/\n", f"{V2}/memory.max": "64000000\n", f"{V2}/cpu.max": "50000 100000\n"},
            64e6,
            0.5,
        ),
        (
            {
                "proc/self/cgroup": f"0::/{STEP}\n",
                f"{V2}/{STEP}/memory.max": "max\n",
                f"{V2}/system.slice/slurmstepd.scope/job_7/memory.max": "32000000\n",
                f"{V2}/system.slice/memory.max": "64000000\n",
            },
            32e6,
            CORES,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/of/the/host\n3:cpu,cpuacct:/\n0::/\n",
                f"{V2}/memory/memory.limit_in_bytes": "48000000\n",
                f"{V2}/cpu/cpu.cfs_quota_us": "25000\n",
                f"{V2}/cpu/cpu.cfs_period_us": "100000\n",
            },
            48e6,
            0.25,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/\n3:cpu:/\n",
                f"{V2}/memory/memory.limit_in_bytes": "9223372036854771712\n",
                f"{V2}/cpu/cpu.cfs_quota_us": "-1\n",
                f"{V2}/cpu/cpu.cfs_period_us": "100000\n",
            },
            MACHINE,
            CORES,
        ),
    ],
    ids=["no cgroup", "no limit", "container", "a parent's limit", "version 1 in a container", "version 1, no limit"],
)
def test_cgroups_hold(tmp_path: Path, files: dict[str, str], memory: float, cores: float) -> None:
    root = tree(tmp_path, files)
    assert (granted_memory_bytes(root), granted_cores(root)) == (memory, cores)


def test_the_affinity_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert granted_cores() <= 1


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Room(48_000, 16)),
        ({"SLURM_CPUS_PER_TASK": "4"}, Room(48_000, 16)),  # of an allocation that is somebody else's
        ({"SLURM_JOB_ID": "7"}, Room(48_000, 16)),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "8", "SLURM_MEM_PER_NODE": "16000"}, Room(12_582.912, 8)),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "8"}, Room(48_000, 4)),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "2", "SLURM_MEM_PER_CPU": "4000"}, Room(6291.456, 2)),
        (
            {
                "SLURM_JOB_ID": "7",
                "SLURM_CPUS_PER_TASK": "2",
                "SLURM_MEM_PER_NODE": "16000",
                "SLURM_NTASKS_PER_NODE": "2",
            },
            Room(6291.456, 2),
        ),
        ({"SLURM_JOB_ID": "7", "SLURM_MEM_PER_NODE": "0", "SLURM_CPUS_ON_NODE": "64"}, Room(48_000, 16)),
    ],
)
def test_slurm_gives_no_more_than_it_granted(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: Room
) -> None:
    monkeypatch.setattr(machine, "granted_memory_bytes", lambda: 64e9)
    monkeypatch.setattr(machine, "granted_cores", lambda: 16.0)
    seen = whole_machine(within_slurm(Settings(), environment))
    assert seen.memory_mb == pytest.approx(expected.memory_mb)
    assert seen.cores == expected.cores


def test_what_is_set_is_a_bound_under_slurm_too() -> None:
    settings = Settings(node=NodeSettings(memory_gb=4, cores=2))
    granted = {"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "8", "SLURM_MEM_PER_NODE": "64000"}
    assert whole_machine(within_slurm(settings, granted)) == Room(4000, 2)
