"""Definitions with programs of others, and engines that run them: a script in Podman's place, and Podman itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from carina.api.study import RunSettings, run
from carina.config import Settings
from carina.operators.others import with_others
from carina.pipeline.check import check_text
from carina.sections import EngineChoice, OperatorSettings

FROM_CT = "[{from: ct, path: /input}]"
READER = "- {name: ct, container: {image: carina/dicom-reader}, input: [{path: /input}], output: [{path: /output}]}\n"


def definition(file: Path, *steps: str) -> Path:
    """A definition file of these steps."""
    file.write_text("api-version: 0.4.0\nname: theirs\noperators:\n" + "".join(steps))
    return file


def foreign(name: str, command: list[str], inputs: str, outputs: str = "[{path: /output}]", more: str = "") -> str:
    """A step of somebody else's."""
    container = f"{{image: example/{name}, command: {json.dumps(command)}{more}}}"
    return f"- {{name: {name}, container: {container}, input: {inputs}, output: {outputs}}}\n"


SHOW = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1] + '/environment.json', 'w'))"


def trusting(*files: Path, **more: Any) -> OperatorSettings:
    """Settings without an engine that trust these definitions."""
    return OperatorSettings(engine=EngineChoice.NONE, trusted=tuple(map(str, files)), **more)


def go(scan: Path, out: Path, file: Path, operators: OperatorSettings | None = None) -> Path:
    settings = Settings(operators=operators or trusting(file))
    return run(scan, out, RunSettings(settings=settings, pipeline=file)).folder


def python(code: str, *words: str) -> list[str]:
    return ["python", "-c", code, *words]


def problems(file: Path, operators: OperatorSettings) -> list[str]:
    return [problem.message for problem in check_text(file.read_text(), str(file), with_others(operators))]


FAKE = '''#!{python}
"""In Podman's place: notes its words; of 'run' it starts the entry point with mounted folders for paths."""
import csv, json, os, subprocess, sys
words = sys.argv[1:]
with open({notes!r}, "a") as notes:
    notes.write(json.dumps(words) + "\\n")
if words[:2] == ["image", "inspect"]:
    known = words[-1] in {images!r}
    print("sha256:" + "ab" * 32 if known else "no such image", file=sys.stdout if known else sys.stderr)
    sys.exit(0 if known else 125)
if words[0] != "run":
    sys.exit(0)
mounts, env, rest = {{}}, {{}}, words[1:]
flags = {{"--rm", "--read-only"}}
while rest[0].startswith("--"):
    flag = rest.pop(0)
    value = "" if flag in flags or "=" in flag else rest.pop(0)
    if flag == "--mount":
        fields = dict(one.split("=", 1) for one in next(csv.reader([value])) if "=" in one)
        mounts[fields["target"]] = fields["source"]
    elif flag == "--env":
        name, _, text = value.partition("=")
        env[name] = text
    elif flag == "--entrypoint":
        entry = value
words = [entry, *rest[1:]]
for path, folder in mounts.items():
    words = [word.replace(path, folder) for word in words]
sys.exit(subprocess.run(words, env={{"PATH": os.environ["PATH"], **env}}).returncode)
'''


class FakeEngine:
    """A ``podman`` on the search path that runs what it is told without a container, and notes its words."""

    def __init__(self, folder: Path, *images: str) -> None:
        self.folder, self.notes = folder, folder / "notes.jsonl"
        folder.mkdir()
        program = folder / "podman"
        program.write_text(FAKE.format(python=sys.executable, notes=str(self.notes), images=list(images)))
        program.chmod(0o755)

    def asked(self, verb: str) -> list[list[str]]:
        """The words of each call of a verb."""
        calls = [json.loads(line) for line in self.notes.read_text().splitlines()]
        return [words for words in calls if words[0] == verb]


class RealEngine:
    """Podman with a store of its own and an image that holds nothing but a static busybox."""

    IMAGE = "localhost/example/shell"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "CONTAINERS_CONF": str(self._write("containers.conf", _CONTAINERS)),
            "CONTAINERS_STORAGE_CONF": str(self._write("storage.conf", _STORAGE.format(folder=folder))),
        }

    def _write(self, name: str, text: str) -> Path:
        self.folder.mkdir(exist_ok=True)
        (self.folder / name).write_text(text)
        return self.folder / name

    def why_not(self) -> str:
        """Why containers can't be run here; empty where one ran."""
        busybox, podman = shutil.which("busybox"), shutil.which("podman")
        if not busybox or not podman:
            return "podman or busybox is not installed"
        archive = self.folder / "shell.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(Path(busybox).resolve(), "bin/busybox")
            for name in ("sh", "cat", "cp", "id", "sleep", "ls", "env", "wc", "ip", "touch"):
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
            closed = tarfile.TarInfo("tmp")  # where its user can't write
            closed.type, closed.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(closed)
        run = [
            podman,
            "run",
            "--rm",
            "--network",
            "none",
            "--memory",
            "64m",
            "--cpus",
            "1",
            self.IMAGE,
            "/bin/sh",
            "-c",
            ":",
        ]
        for words in ([podman, "import", str(archive), self.IMAGE], run):
            done = subprocess.run(words, capture_output=True, text=True, check=False, env=self.environment, timeout=60)
            if done.returncode:
                return f"podman can't run a container here: {done.stderr.strip().splitlines()[-1]}"
        return ""


_CONTAINERS = """[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""
_STORAGE = """[storage]
driver = "vfs"
graphroot = "{folder}/store"
runroot = "{folder}/run"
"""
