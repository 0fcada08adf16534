"""A Slurm of our own for tests: munged, slurmctld and slurmd on loopback, one machine, all in a temporary folder."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp

import pytest

from carina.testing.ports import free_port

CORES = 8
MEMORY_MIB = 24_576
"""What is said to be there: two workers as the shipped script asks for them, whatever this machine has."""

SETTINGS = """
ClusterName=carina
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=30
MaxArraySize=100001
MaxJobCount=110000
SchedulerParameters=sched_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """A running cluster of one machine; ``call`` runs one of Slurm's commands on it."""

    def __init__(self, folder: Path) -> None:
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def call(self, *words: str | Path, cwd: Path | None = None, **more: str) -> str:
        done = subprocess.run(
            words, cwd=cwd, env={**self.environment, **more}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def states(self, job: str) -> list[str]:
        """The states of a job's elements that Slurm still knows, each as ``STATE REASON``."""
        return self.call("squeue", "--noheader", "--array", "--states=all", "--format=%T", "--jobs", job).split()

    def wait(self, job: str) -> list[str]:
        """Until every element of a job has ended; gives their states."""
        while set(states := self.states(job)) & {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING"}:
            time.sleep(0.2)
        return states


def _programs() -> None:
    if os.geteuid() != 0:
        pytest.skip("a Slurm of our own takes root")
    for name in ("munged", "slurmctld", "slurmd", "sbatch"):
        if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
            pytest.skip(f"{name} is not installed; on Debian: apt-get install slurm-wlm munge")


@contextmanager
def _serving(folder: Path, *words: str | Path) -> Iterator[None]:
    """A daemon in the foreground for as long as the block runs."""
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    with (folder / f"{words[0]}.out").open("wb") as told:
        process = subprocess.Popen(words, env=environment, cwd=folder, stdout=told, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def slurm_cluster() -> Iterator[Slurm]:
    """A cluster that takes jobs; skips where Slurm or munge is absent, or this isn't root."""
    _programs()
    folder = Path(mkdtemp(prefix="carina-slurm-"))
    folder.chmod(0o755)
    host = socket.gethostname().partition(".")[0]
    made = {"folder": folder, "host": host, "controller": free_port(), "daemon": free_port()}
    (folder / "slurm.conf").write_text(SETTINGS.format(cores=CORES, memory=MEMORY_MIB, **made))
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o600)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    munge = [f"--{name}-file={folder}/munge.{end}" for name, end in (("key", "key"), ("pid", "pid"), ("log", "log"))]
    with ExitStack() as daemons:
        daemons.callback(shutil.rmtree, folder, ignore_errors=True)
        seed = f"--seed-file={folder}/munge.seed"
        daemons.enter_context(
            _serving(folder, "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", seed, *munge)
        )
        daemons.enter_context(_serving(folder, "slurmctld", "-D", "-i"))
        daemons.enter_context(_serving(folder, "slurmd", "-D", "-N", host))
        cluster = Slurm(folder)
        _until_idle(cluster, folder)
        yield cluster


def _until_idle(cluster: Slurm, folder: Path) -> None:
    for _ in range(300):
        seen = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"],
            env=cluster.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if seen.stdout.strip() == "idle":
            return
        time.sleep(0.1)
    told = "\n".join((folder / f"{name}.out").read_text()[-2000:] for name in ("munged", "slurmctld", "slurmd"))
    raise RuntimeError(f"Slurm did not start: {seen.stdout} {seen.stderr}\n{told}")
