"""What this process may use: the machine's memory and cores, less where a cgroup, an affinity or Slurm gives less."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from carina.config import Settings
from carina.jobs.queue import Room

SHARE = 0.75
"""Of the memory that is granted, for jobs; the rest is for the worker, for caches, and for estimates that are off."""


@dataclass(frozen=True)
class _Controller:
    """Where a controller's files are: its mount below ``/sys/fs/cgroup``, and where in it this process is."""

    folders: tuple[Path, ...]
    unified: bool


def granted_cores(root: Path = Path("/")) -> float:
    """The cores that this process may use: its affinity, less where a cgroup has a quota."""
    mine = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    return min([mine, *_quotas(root)])


def granted_memory_bytes(root: Path = Path("/")) -> float:
    """The memory that this process may use: the machine's, less where a cgroup has a limit."""
    machine = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min([machine, *_limits(root)])


def whole_machine(settings: Settings) -> Room:
    """What the jobs of a worker share: as set, else three quarters of the memory and every core that is granted."""
    memory = settings.node.memory_gb * 1000 or SHARE * granted_memory_bytes() / 1e6
    return Room(memory, float(settings.node.cores or granted_cores()))


def within_slurm(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """The settings of a worker that Slurm started: what its jobs share is no more than what Slurm granted.

    Not every cluster confines a job by cgroups, so Slurm's own variables are read (``sbatch``, output environment
    variables). A task of several on a machine has its part of the memory.
    """
    if "SLURM_JOB_ID" not in environment:
        return settings
    cores = _number(environment, "SLURM_CPUS_PER_TASK") or _number(environment, "SLURM_CPUS_ON_NODE")
    tasks = _number(environment, "SLURM_NTASKS_PER_NODE") or 1
    node_mib, core_mib = _number(environment, "SLURM_MEM_PER_NODE"), _number(environment, "SLURM_MEM_PER_CPU")
    granted_gb = SHARE * (node_mib / tasks or core_mib * cores) * 2**20 / 1e9
    whole = whole_machine(settings)
    node = msgspec.structs.replace(
        settings.node,
        memory_gb=min(whole.memory_mb / 1000, granted_gb or whole.memory_mb),
        cores=max(1, int(min(whole.cores, cores or whole.cores))),
    )
    return msgspec.structs.replace(settings, node=node)


def _number(environment: Mapping[str, str], name: str) -> int:
    """A count of Slurm's, 0 where it says none: in a job on several machines some are lists."""
    text = environment.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else 0


def _controller(root: Path, name: str) -> _Controller:
    """A controller's folders, this process's own first: a limit of any parent holds as well.

    In a container, the path that ``/proc/self/cgroup`` gives may not be there; the mount is then the container's own.
    """
    mounts, below = root / "sys/fs/cgroup", {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        below.update(dict.fromkeys(controllers.split(","), path.strip("/")))
    unified = name not in below
    mount = mounts if unified else mounts / name
    own = mount / below.get("" if unified else name, "")
    return _Controller((own, *(parent for parent in own.parents if parent.is_relative_to(mount))), unified)


def _limits(root: Path) -> Iterator[float]:
    controller = _controller(root, "memory")
    name = "memory.max" if controller.unified else "memory.limit_in_bytes"
    for folder in controller.folders:
        text = _text(folder / name).strip()
        if text.isdecimal():
            yield float(text)


def _quotas(root: Path) -> Iterator[float]:
    controller = _controller(root, "cpu")
    for folder in controller.folders:
        if controller.unified:
            words = _text(folder / "cpu.max").split()
        else:
            words = [_text(folder / f"cpu.cfs_{which}_us").strip() for which in ("quota", "period")]
        if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):  # no quota: "max", or -1
            yield int(words[0]) / int(words[1])


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
