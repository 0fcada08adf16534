"""Operators of others: a step whose image Carina doesn't know becomes a container, or, where allowed, a process."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from carina.operators.containers import ContainerEngine, FoundImage, find_engine
from carina.operators.launch import InContainer, InProcess, Launch
from carina.operators.ports import SourcePort
from carina.pipeline.definition import Container, Definition, Step
from carina.pipeline.foreign import OWN_IMAGES, ForeignOperator
from carina.pipeline.operator import Setting
from carina.pipeline.places import NAME_BYTES
from carina.pipeline.table import OperatorTable
from carina.sections import OperatorSettings

IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
MOUNTED = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def with_others(settings: OperatorSettings) -> OperatorTable:
    """The operators that are known, and those of others as the settings let them run."""
    from carina.operators.apart import with_packages_apart
    from carina.operators.table import known_operators

    return replace(with_packages_apart(known_operators(), settings), foreigners=Others(settings))


class Others:
    """Makes an operator of a step of somebody else's, or says why it can't be run."""

    def __init__(self, settings: OperatorSettings) -> None:
        self.settings = settings
        self._images: dict[str, FoundImage] = {}

    def __call__(self, definition: Definition, step: Step) -> ForeignOperator | str:
        """The operator of a step; empty where the image is a name of Carina's own."""
        if step.container.image.startswith(OWN_IMAGES) or not step.container.image:
            return ""
        if mistake := next(_mistakes(step), ""):
            return f"as an operator of somebody else's it can't be run: {mistake}"
        engine = find_engine(self.settings.engine)
        if isinstance(engine, ContainerEngine):
            return self._container(engine, definition, step)
        return self._process(engine, definition, step)

    def _container(self, engine: ContainerEngine, definition: Definition, step: Step) -> ForeignOperator | str:
        image = _reference(step.container)
        if image not in self._images:
            self._images[image] = engine.find_image(image)
        found = self._images[image]
        if not found.id:
            why = f"{engine.name} has no image {image} on this machine ({found.why_not})"
            return f"{why}, and Carina fetches none: build it there, or pull it by {engine.name}"
        command, asked = step.container.command, step.requests
        how = InContainer(engine=engine, image=image, command=command, requests=asked, settings=self.settings)
        return self._operator(Launch(definition, step, how, self.settings), f"{engine.name} {image}", found.id)

    def _process(self, why: str, definition: Definition, step: Step) -> ForeignOperator | str:
        if not _is_trusted(definition.file, self.settings):
            return (
                f"{why}, and its command is started as a process of this machine only if [operators] trusted in the "
                f"settings (CARINA_OPERATORS_TRUSTED) names the definition's file: {definition.file}"
            )
        words, home = step.container.command, Path(definition.file).resolve().parent
        if not words:
            return f"{why}, and it has no command that could be started as a process"
        how = InProcess(command=words, home=home)
        if not shutil.which(words[0], path=how.search_path) and not _is_file(home / words[0]):
            return f"its command can't be started: there is no program '{words[0]}' on this machine"
        return self._operator(Launch(definition, step, how, self.settings), " ".join(words), _digest(how))

    def _operator(self, launch: Launch, told: str, mark: str) -> ForeignOperator:
        step = launch.step
        return ForeignOperator(
            name=step.name,
            images=(step.container.image,),
            function=launch.run,
            inputs={entry.path: entry.path for entry in step.inputs},
            outputs={entry.path: entry.path for entry in step.outputs},
            variables={name: Setting(parameter="") for name in step.container.variables},
            package=told,
            types={entry.path: Any if entry.source else SourcePort for entry in step.inputs},
            how=launch.how.told,
            mark=mark,
        )


def _mistakes(step: Step) -> Iterator[str]:
    """What no engine and no process could run."""
    container = step.container
    yield from _name_mistakes(step)
    yield from _path_mistakes([*(entry.path for entry in step.inputs), *(entry.path for entry in step.outputs)])
    yield from (f"'{name}' is no name of a variable" for name in container.variables if not VARIABLE.fullmatch(name))
    if "\0" in "".join([*container.command, *(value.text for value in container.variables.values())]):
        yield "its command or a variable has a zero byte"
    if step.requests.gpu:
        yield "it asks for a GPU, which Carina gives to no program of others"


def _name_mistakes(step: Step) -> Iterator[str]:
    image, tag = step.container.image, step.container.tag
    if not IMAGE.fullmatch(image) or not TAG.fullmatch(tag):
        yield f"'{image}:{tag}' is no image name"
    if len(step.name) > NAME_BYTES:
        yield f"its name has {len(step.name)} characters, and files are called by it; expected at most {NAME_BYTES}"


def _path_mistakes(paths: list[str]) -> Iterator[str]:
    for path in paths:
        if not MOUNTED.fullmatch(path):
            yield f"'{path}' is no path that a folder can be mounted at (letters, digits, '.', '_' and '-')"
    for one, other in combinations(paths, 2):
        if f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/"):
            yield f"its paths '{one}' and '{other}' lie in each other"


def _reference(container: Container) -> str:
    """The image as an engine names it: with its tag, unless the name says which one."""
    has_own = "@" in container.image or ":" in container.image.rpartition("/")[2]
    return container.image if has_own else f"{container.image}:{container.tag}"


def _is_trusted(file: str, settings: OperatorSettings) -> bool:
    path = os.path.realpath(file)
    return any(os.path.realpath(trusted) == path for trusted in settings.trusted)


def _digest(how: InProcess) -> str:
    """A hash of the files that a command names, and of the interpreter's version."""
    digest = hashlib.sha256(sys.version.encode())
    for word in how.command:
        file = how.home / word
        if _is_file(file):
            digest.update(f"\0{word}\0".encode("utf-8", "surrogatepass") + file.read_bytes())
    return digest.hexdigest()


def _is_file(path: Path) -> bool:
    """Whether there is such a file; a word of a command may be no path at all, as a script of many lines."""
    with suppress(OSError, ValueError):
        return path.is_file()
    return False
