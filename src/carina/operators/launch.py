"""One run of somebody else's program: its inputs as folders, its outputs taken up, its words in a log.

The variables ``NVIDIA_CLARA_...`` are those that operators of Clara Deploy read; a list of paths is
``NAME:PATH;NAME:PATH``.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from carina.errors import BadConfig, ModelFailed, one_line, unwritable
from carina.operators.containers import Contained, ContainerEngine, Mount, container_user
from carina.operators.growth import MOST_FILES
from carina.operators.ports import SourcePort
from carina.operators.programs import Over, Program, ProgramBounds, last_lines, run_program, why_over
from carina.pipeline import ports
from carina.pipeline.definition import Definition, Requests, Step
from carina.pipeline.folder import WRITING
from carina.pipeline.foreign import UNASKED_MB
from carina.pipeline.operator import Context, holds
from carina.pipeline.places import below
from carina.pipeline.trees import remove_tree
from carina.pipeline.values import Files
from carina.sections import OperatorSettings

NAMING = (".mhd", ".nhdr")
"""Files that name others, so that they are stored last and opened first."""

DEEPEST_OUTPUT = 64
"""Folders in each other below an output."""

KILLED = 137
"""Exit code of what was killed, as by an engine when memory runs out."""

ENGINES_OWN = (125, 126, 127)
"""Exit codes by which an engine says that it, and not the program, failed."""

RLIMITS = "The engine may not set its limits here: name lower ones as default_ulimits in its containers.conf."


@dataclass(frozen=True, kw_only=True)
class InContainer:
    """A container of an engine."""

    engine: ContainerEngine
    image: str
    command: Sequence[str]
    requests: Requests
    settings: OperatorSettings

    @property
    def has_network(self) -> bool:
        """Whether the settings give this image a network."""
        return self.image in self.settings.networked

    @property
    def told(self) -> str:
        """How it is run, in words."""
        network = "with a network ([operators] networked)" if self.has_network else "without network"
        return f"in a container of {self.engine.name}, image {self.image}, {network}"

    def program(self, call: Call) -> Program:
        """The engine's command; the engine itself has our environment, the container only the call's variables."""
        name = f"carina-{secrets.token_hex(8)}"
        inputs = [Mount(folder=folder, path=path, is_output=False) for path, folder in call.inputs.items()]
        outputs = [Mount(folder=folder, path=path, is_output=True) for path, folder in call.outputs.items()]
        memory_mb = self.requests.memory_mb or UNASKED_MB
        what = Contained(
            name=name,
            image=self.image,
            command=self.command,
            variables=call.variables,
            mounts=[*inputs, *outputs],
            memory_mb=memory_mb,
            tmp_mb=max(1, min(round(1000 * self.settings.tmp_gb), memory_mb // 2)),
            cpus=self.requests.cpu,
            time_s=call.bounds.time_s,
            has_network=self.has_network,
        )
        words = self.engine.run(what)
        return Program(words=words, environment=None, folder=call.work, bounds=call.bounds, stop=self.engine.stop(name))

    def make_room(self, folder: Path) -> None:
        """Let the container's user write into an output's folder, where it isn't ours."""
        if os.getuid() == 0:
            os.chown(folder, *container_user())


@dataclass(frozen=True, kw_only=True)
class InProcess:
    """A process of this machine, started in ``home``: the folder of the definition."""

    command: Sequence[str]
    home: Path

    @property
    def told(self) -> str:
        """How it is run, in words."""
        return f"as a process of this machine, without a container: {' '.join(self.command)}"

    @property
    def search_path(self) -> str:
        """Where programs are looked for: beside our Python first."""
        return os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])

    def program(self, call: Call) -> Program:
        """The command, with folders in place of the paths that the definition names; nothing of our environment."""
        folders = {**call.inputs, **call.outputs}
        own = {"PATH": self.search_path, "HOME": str(call.work), "TMPDIR": str(call.work), "LANG": "C.UTF-8"}
        variables = {name: _with_folders(text, folders) for name, text in call.variables.items()}
        words = [_with_folders(word, folders) for word in self.command]
        return Program(words=words, environment={**own, **variables}, folder=self.home, bounds=call.bounds)

    def make_room(self, folder: Path) -> None:
        """Nothing: the process is ours."""


def _with_folders(text: str, folders: Mapping[str, Path]) -> str:
    """A text in which paths of a container, whole or in front of a slash, are folders of this machine."""
    if not folders:
        return text
    paths = "|".join(re.escape(path) for path in folders)
    return re.sub(rf"(?<![\w./-])({paths})(?![\w.-])", lambda found: str(folders[found[1]]), text)


@dataclass(frozen=True, kw_only=True)
class Call:
    """A working folder, and in it the folders of inputs and outputs by their paths."""

    work: Path
    inputs: Mapping[str, Path]
    outputs: Mapping[str, Path]
    variables: Mapping[str, str]
    bounds: ProgramBounds


@dataclass(frozen=True)
class Launch:
    """A step of a definition and how its program is started."""

    definition: Definition
    step: Step
    how: InContainer | InProcess
    settings: OperatorSettings

    def run(self, *, context: Context, **inputs: object) -> Mapping[str, Files]:
        """Run the program on the values of its inputs; what it left at its outputs.

        Raises:
            BadConfig: ``operator.failed``, it can't be started, or ended badly; ``operator.time``, it took too long;
                ``operator.output-size``, it wrote too much.
            ModelFailed: ``operator.output``, it left something else than plain files.
        """
        # step names have no dot; the program has a working folder of its own, so that nothing relative reaches it
        work = Path(mkdtemp(prefix=f"{context.step}.", dir=context.folder / WRITING)).resolve()
        try:
            call = self._call(work, context, inputs)
            log = self._log(context)
            ended = self._ended(call, log, context)
            if ended is Over.OUTPUT:
                remove_tree(work)
            self._check(ended, log)
            return {path: self._taken(path, folder, context) for path, folder in call.outputs.items()}
        except OSError as error:
            raise unwritable(error, work) from error
        finally:
            for folder in work.glob("in-*"):
                remove_tree(folder)

    def _call(self, work: Path, context: Context, values: Mapping[str, object]) -> Call:
        work.chmod(0o755)
        inputs = {path: work / f"in-{number}" for number, path in enumerate(values)}
        outputs = {output.path: work / f"out-{number}" for number, output in enumerate(self.step.outputs)}
        for path, folder in inputs.items():
            _hand_over(values[path], folder, context)
        for folder in outputs.values():
            folder.mkdir(mode=0o755)
            self.how.make_room(folder)
        texts = {name: value.text for name, value in self.step.container.variables.items()}
        variables = {**texts, **self._clara(context)}
        most = 1e9 * self.settings.output_gb
        bounds = ProgramBounds(time_s=self.settings.time_s, writes_to=work, output_bytes=most)
        return Call(work=work, inputs=inputs, outputs=outputs, variables=variables, bounds=bounds)

    def _clara(self, context: Context) -> dict[str, str]:
        named = [f"{entry.name or entry.source or 'input'}:{entry.path}" for entry in self.step.inputs]
        return {
            "NVIDIA_CLARA_JOBID": context.folder.resolve().name,
            "NVIDIA_CLARA_JOBNAME": self.definition.name,
            "NVIDIA_CLARA_STAGENAME": self.step.name,
            "NVIDIA_CLARA_INPUTPATHS": ";".join(named),
            "NVIDIA_CLARA_OUTPUTPATHS": ";".join(f"{one.name or 'output'}:{one.path}" for one in self.step.outputs),
            "NVIDIA_CLARA_RUNSIMPLE": "TRUE",
            "NVIDIA_CLARA_NOSYNCLOCK": "TRUE",
        }

    def _log(self, context: Context) -> Path:
        name = f"steps/{context.step}.log"
        log = below(context.folder, name)
        log.parent.mkdir(exist_ok=True)
        context.record("files", [name])
        return log

    def _ended(self, call: Call, log: Path, context: Context) -> int | Over:
        program = self.how.program(call)
        context.record("program", {"how": self.how.told, "words": list(self.step.container.command)})
        return run_program(program, log, lambda: context.progress(0.0))

    def _check(self, ended: int | Over, log: Path) -> None:
        if ended == 0:
            return
        told, seen = f"operator '{self.step.name}': its program", f"{log} has all it said"
        if isinstance(ended, Over):
            raise why_over(ended, told, self.settings, log)
        memory = self.step.requests.memory_mb or (UNASKED_MB if isinstance(self.how, InContainer) else 0)
        killed = f" (killed; it may use {memory} MB of memory)" if ended == KILLED and memory else ""
        said = one_line(last_lines(log))
        hint = f" {RLIMITS}" if ended in ENGINES_OWN and isinstance(self.how, InContainer) and "rlimit" in said else ""
        failure = BadConfig("operator.failed", f"{told} ended with exit code {ended}{killed}; {seen}.{hint}")
        failure.said = said
        raise failure

    def _taken(self, path: str, folder: Path, context: Context) -> Files:
        told = f"operator '{self.step.name}' {path}"
        try:
            names = sorted(_plain_files(folder, told), key=_opened_first)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # of folders that were made one by one, each in the last
                raise
            words = "has folders in each other whose path is too long; expected at most 4096 bytes"
            raise _not_taken(told, words) from error
        if not names:
            context.warn(f"The program of operator '{self.step.name}' wrote nothing to {path}.")
        return Files(folder=folder, names=tuple(names))


def _opened_first(name: str) -> tuple[bool, str]:
    return not name.lower().endswith(NAMING), name


def _plain_files(folder: Path, told: str) -> Iterator[str]:
    """The files below a folder, which is a stranger's: a link is never followed, and nothing special is opened.

    ``folder`` is absolute and was made by us, so that it leads elsewhere only if the program put a link in its way.

    Raises:
        ModelFailed: ``operator.output``, there is a link (a hard one too), a device or the like, a name that is none,
            no end of files or of folders in each other; or the folder itself is no longer the one that was made.
    """
    if not folder.is_dir() or folder.resolve() != folder:
        raise _not_taken(told, "its folder is gone, or a link has its place; expected that it is left there")
    count, waiting = 0, [(folder, 0)]
    while waiting:
        above, depth = waiting.pop()
        if depth > DEEPEST_OUTPUT:
            raise _not_taken(told, f"has more than {DEEPEST_OUTPUT} folders in each other; no operator's has")
        for path in above.iterdir():
            _check_plain(path, told)
            if path.is_dir():
                waiting.append((path, depth + 1))
                continue
            count += 1
            if count > MOST_FILES:
                raise ModelFailed("operator.output", f"{told}: has more than {MOST_FILES} files; no operator's has.")
            yield path.relative_to(folder).as_posix()


def _check_plain(path: Path, told: str) -> None:
    """See that a path is a folder or a file of its own, which is made readable."""
    found = path.lstat()
    if one_line(path.name) != path.name:
        raise _not_taken(told, f"{one_line(path.name)} is no name for a file; expected printable text")
    if not stat.S_ISDIR(found.st_mode):
        if not stat.S_ISREG(found.st_mode):
            raise _not_taken(told, f"{path.name} is a link or a device; expected plain files and folders")
        if found.st_nlink > 1:  # moved away, changed or made readable, it would be so under its other name too
            raise _not_taken(told, f"{path.name} has another name elsewhere (a hard link); expected a file of its own")
    if not found.st_mode & stat.S_IRUSR:
        path.chmod(found.st_mode | stat.S_IRWXU)


def _not_taken(told: str, why: str) -> ModelFailed:
    return ModelFailed("operator.output", f"{told}: {why}.")


def _hand_over(value: object, folder: Path, context: Context) -> None:
    """Copy the files of a value into a folder that any user may read; not links, which a process could write to."""
    files = context.saved(value)
    if not files:
        ports.save_value(SourcePort if holds(SourcePort, value) else type(value), value, folder)
    else:
        home = Path(os.path.commonpath([path.parent for path in files]))
        for path in files:
            target = folder / path.relative_to(home)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
