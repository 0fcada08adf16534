"""What of a backup's folder is brought into a node: what was saved, and nothing that came to lie beside it.

A file of SQLite's beside the database (``node.sqlite-wal``) would be applied to it, and a run that nobody saved be
taken for one of the node's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from pathlib import Path, PurePosixPath

from carina.jobs.places import DATABASE
from carina.keeping.backup import BACKUP_FILE, LISTED
from carina.keeping.copied import COPIED, Copier
from carina.keeping.dumps import DUMP
from carina.keeping.saved import SavedNode

OF_THE_BACKUP = frozenset({BACKUP_FILE, COPIED, DUMP, LISTED})
"""Files of a backup that no node has."""


def bring(saved: SavedNode, part: Path, copier: Copier) -> tuple[str, ...]:
    """Copy what was saved; gives what lies beside it and was left out, folders as one.

    Of a backup of an earlier version nobody knows what was saved: all is copied but what SQLite would apply.
    """
    if not saved.is_listed:
        return tuple(_all(saved.folder, part, copier))
    names = {one.path for one in saved.files}
    if not saved.is_dump:
        names.add(DATABASE)
    for name in sorted(names - OF_THE_BACKUP):
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        copier.tree(saved.folder / name, part / name)
    known = names | {BACKUP_FILE, COPIED}
    return tuple(sorted(_beside(saved.folder, PurePosixPath(), part, known, _folders_of(known))))


def _all(folder: Path, part: Path, copier: Copier) -> Iterator[str]:
    for one in sorted(folder.iterdir()):
        if one.name.startswith(DATABASE) and one.name != DATABASE:
            yield one.name
        elif one.name not in OF_THE_BACKUP:
            copier.tree(one, part / one.name)


def _folders_of(names: Iterable[str]) -> Set[str]:
    return {str(parent) for name in names for parent in PurePosixPath(name).parents}


def _beside(folder: Path, below: PurePosixPath, part: Path, names: Set[str], folders: Set[str]) -> Iterator[str]:
    """What is none of ``names``; a folder that holds no file was saved as one, and is made."""
    for one in (folder / below).iterdir():
        name = below / one.name
        if str(name) in folders:
            if not one.is_symlink():
                yield from _beside(folder, name, part, names, folders)
        elif str(name) not in names:
            if _holds_no_file(one):
                _make_folders(one, part / name)
            else:
                yield str(name)


def _holds_no_file(place: Path) -> bool:
    if place.is_symlink() or not place.is_dir():
        return False
    return all(one.is_dir() and not one.is_symlink() for one in place.rglob("*"))


def _make_folders(place: Path, to: Path) -> None:
    for one in (place, *place.rglob("*")):
        (to / one.relative_to(place)).mkdir(parents=True, exist_ok=True)
