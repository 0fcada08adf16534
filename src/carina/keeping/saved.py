"""A backup as it lies there, looked into before anything of it is put in place: whether it is whole.

``backup.json`` has the digest of itself and of the list of files, the list those of all files, and the database names
what there has to be. Backups of earlier versions have no digests: their lists are compared with the rows of the
database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shlex import quote

from msgspec.structs import replace
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from carina.database.upgrade import check_version
from carina.deliver.identity import file_digest
from carina.errors import BadConfig
from carina.jobs.places import DATABASE
from carina.keeping.backup import BACKUP_FILE, LISTED, Backup, Named, NamedFile, named_by, own_digest
from carina.keeping.copied import COPIED, CopiedFile
from carina.keeping.dumped import opened_dump
from carina.keeping.dumps import DUMP
from carina.keeping.own_copy import damage_in, said_by_database, unwritten
from carina.keeping.results import lost_results
from carina.pipeline.json_text import read_json

REMEDY = "restore another backup, or copy this one again from where it was made"
"""What is to be done about a backup that is damaged."""

LONGEST_NAMED = 200
"""Characters of a file's name in a message: a list that was altered may hold any."""


def mend_command(folder: Path) -> str:
    """The command that mends the database in a backup's folder."""
    return f"carina mend {quote(str(folder))}"


@dataclass(frozen=True, kw_only=True)
class SavedNode:
    """A backup in a folder: what it says of itself, and its list of files.

    A database that was damaged when it was saved is not among them: whoever mends it, in the backup, has it altered.
    """

    folder: Path
    said: Backup
    files: tuple[CopiedFile, ...]

    @property
    def is_listed(self) -> bool:
        """Whether it has digests of all files, unlike one of an earlier version."""
        return bool(self.said.files_sha256)

    @property
    def was_damaged(self) -> bool:
        """Whether the node's own SQLite was damaged when it was saved, and so what it should be isn't known."""
        return bool(self.said.database_damage)

    @property
    def is_dump(self) -> bool:
        """Whether it is of a node whose database is a server's."""
        if self.is_listed:
            return any(one.path == DUMP for one in self.files)
        return (self.folder / DUMP).is_file() or (self.folder / LISTED).is_file()

    @property
    def database(self) -> str:
        """The name of the file with the database in it."""
        return DUMP if self.is_dump else DATABASE


def read_backup(folder: Path) -> SavedNode:
    """A backup whose files are all there, as long as they were.

    Raises:
        BadConfig: it is none, was broken off, or lacks files.
    """
    said = said_by_backup(folder)
    saved = SavedNode(folder=folder, said=said, files=_files_of(folder, said))
    needed = [saved.database, *([LISTED] if saved.is_dump else [])]
    missing = [name for name in needed if not (folder / name).is_file()]
    missing += [one.path for one in saved.files if one.path not in missing and not one.is_there(folder)]
    _refuse(folder, missing, "is missing, or not as long as it was", f"all files of {COPIED} with their sizes")
    return saved


def said_by_backup(folder: Path) -> Backup:
    """What a backup says of itself.

    Raises:
        BadConfig: it is none, was broken off, or was altered.
    """
    try:
        text = (folder / BACKUP_FILE).read_bytes()
        said = read_json(text, Backup)
    except (OSError, ValueError) as error:
        words = f"is no backup, or one that was broken off (no {BACKUP_FILE} that can be read): choose another."
        raise BadConfig("restore.no-backup", f"{folder}: {words}") from error
    plain = read_json(text)
    for name in ("files_sha256", "sha256"):
        is_empty = name in plain and not plain[name]
        _refuse(folder, [BACKUP_FILE] * is_empty, f"has an empty {name}", "the SHA-256 that was saved")
    is_other = bool(said.sha256) and own_digest(text) != said.sha256
    _refuse(folder, [BACKUP_FILE] * is_other, "is not what was saved", "the SHA-256 that it has of itself")
    return said


def _files_of(folder: Path, said: Backup) -> tuple[CopiedFile, ...]:
    listed = [CopiedFile.of_line(line) for line in _list_of(folder, said)]
    outside = [one.path for one in listed if not _is_below(one.path)]
    what = f"names what lies outside the backup ({', '.join(outside)[:80]!r})"
    _refuse(folder, [COPIED] * bool(outside), what, "files of the backup's folder alone")
    if any(one.sha256 for one in listed) and not said.files_sha256:
        what = "has no SHA-256 of the list of files"
        _refuse(folder, [BACKUP_FILE], what, f"that of {COPIED}, which has those of all files")
    return tuple(one for one in listed if not (said.database_damage and one.path == DATABASE))


def _list_of(folder: Path, said: Backup) -> list[str]:
    listed = folder / COPIED
    if not listed.is_file():
        if said.files_sha256:
            _refuse(folder, [COPIED], "is missing", f"a list of {said.files} files")
        return []  # of a version that had none
    lines = _lines(listed)
    if said.files_sha256 and file_digest(listed) != said.files_sha256:
        what = f"is not what was saved (lines: {len(lines)})"
        _refuse(folder, [COPIED], what, f"{said.files} lines with the SHA-256 that {BACKUP_FILE} has")
    return lines


def _lines(listed: Path) -> list[str]:
    return [one for one in listed.read_bytes().decode(errors="surrogateescape").split("\n") if one]


def _is_below(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts


def look_into(saved: SavedNode) -> Named:
    """What the database in a backup names, which is what the backup says and its lists have.

    Raises:
        BadConfig: it is damaged, or of a later version.
    """
    if saved.was_damaged:
        return _named_once_mended(saved)
    if saved.is_listed:
        _check_database_files(saved)
    named = _named_in(saved.folder / saved.database)
    if named.version != saved.said.database_version:
        what = f"says that the database has version {saved.said.database_version}"
        _refuse(saved.folder, [BACKUP_FILE], what, f"{named.version}, which {saved.database} has")
    found, expected = (len(named.instances), len(named.runs)), (saved.said.instances, saved.said.runs)
    if found != expected:
        what = f"has instances: {found[0]}, runs: {found[1]}"
        _refuse(saved.folder, [saved.database], what, f"{expected[0]} and {expected[1]}, as {BACKUP_FILE} says")
    if saved.is_dump:
        _compare_list(saved.folder, named)
    missing = [one for one in _to_be_there(saved, named) if not (saved.folder / one.path).is_file()]
    expectation = f"each of the {found[0]} instances that the database names"
    _refuse(saved.folder, [one.path for one in missing], "is missing", expectation)
    return named


def _check_database_files(saved: SavedNode) -> None:
    digests = {one.path: one.sha256 for one in saved.files}
    names = (DUMP, LISTED) if saved.is_dump else (DATABASE,)
    wrong = [name for name in names if file_digest(saved.folder / name) != digests.get(name)]
    _refuse(saved.folder, wrong, "is not what was saved", f"the SHA-256 that {COPIED} has")


def _to_be_there(saved: SavedNode, named: Named) -> Iterator[NamedFile]:
    """The instances that the node had not lost."""
    lost = set(saved.said.lost)
    return (one for one in named.instances if one.path not in lost)


def _compare_list(folder: Path, named: Named) -> None:
    listed = {NamedFile.of_line(line).path for line in _lines(folder / LISTED)}
    if listed != {one.path for one in named.instances}:
        words = f"the {len(named.instances)} instances that the database in {DUMP} names"
        _refuse(folder, [LISTED], f"is not what was saved (lines: {len(listed)})", words)


def _named_in(database: Path) -> Named:
    try:
        return _named_where_whole(database)
    except ValueError as error:
        raise _damaged(f"{database}: can't be read ({error})", "the whole database of a node") from error


def _named_once_mended(saved: SavedNode) -> Named:
    """What a database names that was damaged when it was saved, and was mended since: no longer what was saved."""
    database = saved.folder / saved.database
    try:
        return _named_where_whole(database)
    except ValueError as error:
        words = f"the node's database was damaged when this backup was made ({saved.said.database_damage})"
        how = f"restore an earlier backup, or mend this one and restore it again: {mend_command(saved.folder)}"
        raise BadConfig("restore.damaged", f"{database}: {words}; expected the whole one of a node: {how}") from error


def _named_where_whole(database: Path) -> Named:
    """What a database names.

    Raises:
        BadConfig: it is of a later version.
        ValueError: it is damaged, with what is wrong.
    """
    try:
        with (opened_dump if database.name == DUMP else _opened_file)(database) as connection:
            check_version(connection)
            return named_by(connection)
    except (SQLAlchemyError, sqlite3.Error, ValueError) as error:
        raise ValueError(said_by_database(error)) from error


@contextmanager
def _opened_file(database: Path) -> Iterator[Connection]:
    """A connection that writes nothing, neither into the file nor beside it.

    Raises:
        ValueError: the file is damaged.
    """
    if found := damage_in(database):
        raise ValueError(found)
    with unwritten(database) as connection:
        yield connection


def check_copies(saved: SavedNode, named: Named, part: Path, sums: Mapping[str, str]) -> Backup:
    """See that what was copied is what was saved; gives what the backup says, and what it turned out to lack.

    Of a backup without digests: that each instance is what the node took in, and each result what its run wrote, but
    those that the node had lost before. One that has no list of files either can't say what was, and does without.

    Raises:
        BadConfig: a file is not what was saved.
    """
    if not saved.is_listed:
        return _check_by_rows(saved, named, part)
    copied = (one for one in saved.files if one.path not in (DUMP, LISTED))
    wrong = [one.path for one in copied if sums.get(str(part / one.path)) != one.sha256]
    _refuse(saved.folder, wrong, "is not what was saved", f"the SHA-256 that {COPIED} has")
    return _said_anew(saved, named, part) if saved.was_damaged else saved.said


def _said_anew(saved: SavedNode, named: Named, part: Path) -> Backup:
    """Of a database that was mended: what it names by now, and what of that was not saved."""
    return replace(
        saved.said,
        instances=len(named.instances),
        runs=len(named.runs),
        lost=tuple(one.path for one in named.instances if not one.is_whole(part)),
        lost_results=lost_results(part, named.results),
    )


def _check_by_rows(saved: SavedNode, named: Named, part: Path) -> Backup:
    altered = [one.path for one in _to_be_there(saved, named) if not one.is_whole(part)]
    what = "is not what the node received"
    _refuse(saved.folder, altered, what, "the SHA-256 of its data set that the database has")
    known = saved.said.lost_results
    missing = [one for one in lost_results(part, named.results) if one not in known]
    if saved.files:
        _refuse(saved.folder, missing, "is missing, or not what its run, or a reader, wrote", "all results of runs")
    return replace(saved.said, lost_results=(*known, *missing))


def _refuse(folder: Path, names: list[str], seen: str, expected: str) -> None:
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        first = names[0] if len(names[0]) <= LONGEST_NAMED else f"{names[0][:LONGEST_NAMED]}..."
        raise _damaged(f"{folder / first}{more}: {seen}", expected)


def _damaged(seen: str, expected: str) -> BadConfig:
    return BadConfig("restore.damaged", f"{seen}; expected {expected}: {REMEDY}.")
