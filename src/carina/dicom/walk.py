"""Every file below a path, each once: those to look into, and what is passed by, with the reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carina.dicom.inventory import BrokenFile
from carina.errors import BadSeries, unreadable
from carina.pipeline.json_text import read_json

RUN_FILE = "manifest.json"
RUN_KEYS = frozenset({"carina", "fingerprint", "operators"})
"""What the manifest of a run of Carina's has, and no other tool's."""

RUN_FOLDERS = frozenset({"volume", "lung", "lesion", "saliency", "render", "steps"})
"""Where a run keeps images; one that was killed may not have listed them yet."""

LARGEST_MANIFEST_READ = 1 << 24

FoundPlace = tuple[int, int]
"""Device and inode: what tells two names of one file."""


@dataclass(kw_only=True)
class Walked:
    """What lies below a path.

    ``files`` may hold slices or a volume, in the order of their paths; ``repeated`` are further names (links) of
    them; ``passed_by`` is never opened: hidden files, devices and pipes, the results of earlier runs; ``broken`` are
    links that lead nowhere, and files and folders that can't be looked into.
    """

    files: list[Path] = field(default_factory=list)
    repeated: list[Path] = field(default_factory=list)
    passed_by: list[Path] = field(default_factory=list)
    broken: list[BrokenFile] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many files there are, a folder that can't be looked into being one."""
        return len(self.files) + len(self.repeated) + len(self.passed_by) + len(self.broken)


def walk(path: Path) -> Walked:
    """Every file below a folder, or the one file. Links are followed, each folder and each file counted as one.

    Raises:
        BadSeries: there is nothing of this name, it can't be looked at, or it is neither a file nor a folder.
    """
    walked = Walked()
    is_folder = _is_folder(path)
    try:  # what is asked for by name is refused; below a folder it is one of those that are broken
        (os.scandir(path) if is_folder else path.open("rb")).close()
    except OSError as error:
        raise unreadable(error, path) from error
    if is_folder:
        _Walk(walked).go(path)
    else:
        walked.files.append(path)
    return walked


def _is_folder(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise BadSeries("series.no-path", f"{path}: no such file or folder.") from error
    except OSError as error:
        raise unreadable(error, path) from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise BadSeries("series.no-path", f"{path}: neither a file nor a folder, but a device, pipe or socket.")
    return stat.S_ISDIR(mode)


class _Walk:
    """A walk under way: folders still to be looked into, those that are passed by last."""

    def __init__(self, walked: Walked) -> None:
        self.walked = walked
        self.folders: list[Path] = []
        self.aside: list[Path] = []
        self.seen: set[FoundPlace] = set()
        self.known: set[FoundPlace] = set()
        self.own: set[Path] = set()

    def go(self, path: Path) -> None:
        """Look into every folder; what is seen from two sides is not passed by because of one of them."""
        self.folders.append(path)
        while self.folders or self.aside:
            passed_by = not self.folders
            self._look((self.aside if passed_by else self.folders).pop(), passed_by=passed_by)

    def _look(self, folder: Path, *, passed_by: bool) -> None:
        try:
            place = os.stat(folder)  # noqa: PTH116 - as the entries give it
            if (place.st_dev, place.st_ino) in self.seen:  # a link in a circle, or two to one folder
                return
            self.seen.add((place.st_dev, place.st_ino))
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            self._broken(folder, error)
            return
        if any(entry.name == RUN_FILE for entry in entries):
            self.own |= own_of_run(folder)
        inside: list[Path] = []
        for entry in entries:
            path = folder / entry.name
            hidden = passed_by or entry.name.startswith(".") or path in self.own
            self._enter(path, entry, place.st_dev, inside, passed_by=hidden)
        self.folders += reversed(inside)

    def _enter(self, path: Path, entry: os.DirEntry[str], device: int, inside: list[Path], *, passed_by: bool) -> None:
        try:
            if entry.is_dir():
                (self.aside if passed_by else inside).append(path)
            elif passed_by or (not entry.is_symlink() and not entry.is_file()):
                self.walked.passed_by.append(path)
            else:
                self._file(path, entry, device)
        except OSError as error:
            self._broken(path, error)

    def _file(self, path: Path, entry: os.DirEntry[str], device: int) -> None:
        place = (device, entry.inode())
        if entry.is_symlink():
            target = entry.stat()
            if not stat.S_ISREG(target.st_mode):
                self.walked.passed_by.append(path)
                return
            place = (target.st_dev, target.st_ino)
        (self.walked.repeated if place in self.known else self.walked.files).append(path)
        self.known.add(place)

    def _broken(self, path: Path, error: OSError) -> None:
        reason = "it is a link that leads nowhere" if path.is_symlink() else f"it can't be read ({error.strerror})"
        self.walked.broken.append(BrokenFile(path=path, code="input.unreadable", reason=reason))


def own_of_run(folder: Path) -> frozenset[Path]:
    """What a run of Carina's wrote into a folder, by its manifest there; nothing where the folder is no run's."""
    manifest = _manifest(folder / RUN_FILE)
    if not manifest.keys() >= RUN_KEYS:
        return frozenset()
    return frozenset(folder / name for name in (RUN_FILE, *RUN_FOLDERS, *_outputs(manifest)))


def _manifest(file: Path) -> dict[str, Any]:
    try:
        if not file.is_file() or file.stat().st_size > LARGEST_MANIFEST_READ:
            return {}
        return read_json(file.read_bytes(), dict[str, Any])
    except (OSError, ValueError):
        return {}


def _outputs(manifest: dict[str, Any]) -> Iterator[str]:
    """Files that a manifest lists, as paths relative to its folder."""
    operators = manifest["operators"]
    for record in operators.values() if isinstance(operators, dict) else ():
        outputs = record.get("outputs") if isinstance(record, dict) else None
        for files in outputs.values() if isinstance(outputs, dict) else ():
            yield from (name for name in files if isinstance(name, str))
