"""Podman and Docker: which of them is at hand, which images are there, and the command that runs one."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from carina.errors import one_line
from carina.pipeline.guarded import guard_words
from carina.sections import EngineChoice

ANSWER_S = 20
"""Time that an engine has for a question."""

NO_USER = 65534
"""The user of a container that a superuser starts."""

MOST_PROCESSES = 4096

SCRATCH = "/tmp"
"""Where a program may write beside its outputs."""


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder of this machine's at a path of the container's."""

    folder: Path
    path: str
    is_output: bool


@dataclass(frozen=True, kw_only=True)
class Contained:
    """What runs in a container, of which ``name`` is the name; processors None: whatever there are.

    Without a command that of the image runs. ``tmp_mb`` of its memory may be files in ``SCRATCH``.
    """

    name: str
    image: str
    command: Sequence[str]
    variables: Mapping[str, str]
    mounts: Sequence[Mount]
    memory_mb: int
    tmp_mb: int
    cpus: int | None
    time_s: float
    has_network: bool = False


@dataclass(frozen=True, kw_only=True)
class FoundImage:
    """An image's digest; empty, and the engine's words why, where it isn't there."""

    id: str
    why_not: str


@dataclass(frozen=True)
class ContainerEngine:
    """An engine that answers: ``podman`` or ``docker``, and its program."""

    name: str
    program: str

    def find_image(self, image: str) -> FoundImage:
        """An image on this machine. Nothing is ever fetched."""
        asked = _ask(self.program, "image", "inspect", "--format", "{{.Id}}", image)
        found = asked.stdout.strip() if asked.returncode == 0 else ""
        return FoundImage(id=found, why_not="" if found else _last(asked.stderr) or f"exit code {asked.returncode}")

    def run(self, what: Contained) -> list[str]:
        """The command that runs a container: no rights, no superuser, nothing fetched, nothing written elsewhere."""
        words = [self.program, "run", "--rm", "--pull", "never", "--name", what.name]
        words += [] if what.has_network else ["--network", "none"]
        words += ["--read-only", *self._scratch(what)]
        words += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--security-opt", "label=disable"]
        words += ["--pids-limit", str(MOST_PROCESSES), "--stop-timeout", "0", *self._user()]
        words += ["--memory", f"{what.memory_mb}m"]
        words += ["--cpus", str(what.cpus)] if what.cpus else []
        words += ["--timeout", str(int(what.time_s) + 1)] if self.name == "podman" else []  # should nobody end it
        for mount in what.mounts:
            words += ["--mount", _mounted(mount)]
        for name, value in {"HOME": SCRATCH, "TMPDIR": SCRATCH, **what.variables}.items():
            words += ["--env", f"{name}={value}"]
        words += ["--entrypoint", what.command[0]] if what.command else []
        return [*words, what.image, *what.command[1:]]

    def stop(self, name: str) -> list[str]:
        """The command that ends a container, and removes it."""
        return [self.program, "rm", "--force", name]

    def _scratch(self, what: Contained) -> list[str]:
        """A place for temporary files, in memory; Podman by itself would give others as well, without a bound."""
        alone = ["--read-only-tmpfs=false"] if self.name == "podman" else []
        if any(mount.path == SCRATCH for mount in what.mounts):
            return alone
        user, group = container_user()  # its owner, since runc gives it the mode of the image's own
        owned = "notmpcopyup,U" if self.name == "podman" else f"uid={user},gid={group}"
        return [*alone, "--tmpfs", f"{SCRATCH}:rw,noexec,nosuid,nodev,mode=1777,size={what.tmp_mb}m,{owned}"]

    def _user(self) -> list[str]:
        user = container_user()
        kept = ["--userns", "keep-id"] if self.name == "podman" and os.getuid() else []
        return [*kept, "--user", f"{user[0]}:{user[1]}"]


def container_user() -> tuple[int, int]:
    """User and group of a container: ours, or nobody for a superuser."""
    return (os.getuid(), os.getgid()) if os.getuid() else (NO_USER, NO_USER)


def find_engine(choice: EngineChoice) -> ContainerEngine | str:
    """The engine that is at hand, or why there is none."""
    if choice is EngineChoice.NONE:
        return 'there is none to run it ([operators] engine is "none")'
    names = ["podman", "docker"] if choice is EngineChoice.AUTO else [choice.value]
    reasons = []
    for name in names:
        program = shutil.which(name)
        reason = _silence(program) if program else "not found"
        if program and not reason:
            return ContainerEngine(name, program)
        reasons.append(f"{name}: {reason}")
    return f"no container engine answers ({'; '.join(reasons)})"


@cache
def _silence(program: str) -> str:
    """Why an engine can't be used; empty where it answers. A client alone, without its server, doesn't."""
    try:
        asked = _ask(program, "version")
    except OSError as error:
        return str(error.strerror)
    return "" if asked.returncode == 0 else (_last(asked.stderr) or f"exit code {asked.returncode}")


def _ask(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Ask an engine; what it starts for the answer and leaves behind (Podman without root: a pause) is ended."""
    guard = guard_words([program, *words])
    reading, lifeline = os.pipe()
    with subprocess.Popen(
        guard, stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as asked:
        os.close(reading)
        try:
            said, complaint = asked.communicate(timeout=ANSWER_S)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(words, 1, "", f"no answer within {ANSWER_S} s")
        finally:
            os.close(lifeline)  # with which the guard ends whatever still runs
    return subprocess.CompletedProcess(words, asked.returncode, said, complaint)


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return one_line(lines[-1])[:200] if lines else ""


def _mounted(mount: Mount) -> str:
    """The value of ``--mount``, one line of CSV, so that a comma in a folder's name is no border."""
    fields = ["type=bind", f"source={mount.folder}", f"target={mount.path}"]
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(fields if mount.is_output else [*fields, "readonly"])
    return text.getvalue()
