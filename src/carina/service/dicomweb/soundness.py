"""Whether a stored file still holds what was recorded of it: disks lose bytes, and people tidy up.

Searches look at its size, whatever gives its content at its SHA-256 too, once for each state of the file. What does not
agree is given by nothing: it is said with the answer, in the log, and in health until it is right again.
"""

from __future__ import annotations

import logging
import stat
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from carina.database.intact import LARGEST_HEAD, LOST, ends_with
from carina.deliver.identity import file_digest
from carina.errors import BadConfig
from carina.pipeline.folder import MANIFEST
from carina.pipeline.manifest import read_manifest
from carina.service.dicomweb.reach import changed_ns, check_reached
from carina.service.node import RunningNode

MOST_DAMAGED = 1000
"""Damaged files that are kept in mind, and named in the log; health counts no further."""

LOST_RESULT = "%s, made by job %s, is damaged or missing on the node's disk: run the series again."

_LOG = logging.getLogger(__name__)


class Recorded(NamedTuple):
    """What was recorded of a file: its bytes and their SHA-256, ``has_head`` those of its data set, behind our head."""

    size: int
    sha256: str
    has_head: bool


def is_of_size(path: Path, recorded: Recorded | None) -> bool:
    """Whether a file is there, and as long as it was; of one of which nothing was recorded, whether it is there.

    Raises:
        OutOfReach: the system can't say.
    """
    try:
        seen = path.stat()
    except OSError as error:
        check_reached(error, path)
        return False
    if recorded is None or not stat.S_ISREG(seen.st_mode):
        return stat.S_ISREG(seen.st_mode)
    before = seen.st_size - recorded.size
    return 0 < before <= LARGEST_HEAD if recorded.has_head else before == 0


def holds_recorded(path: Path, recorded: Recorded | None) -> bool:
    """The same of its bytes.

    Raises:
        OutOfReach: it is there and can't be read.
    """
    if recorded is None or not is_of_size(path, recorded):
        return is_of_size(path, recorded)
    try:
        seen = path.stat()
        return _holds(path, (seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns), recorded)
    except OSError as error:
        check_reached(error, path)
        return False


@lru_cache(maxsize=20_000)
def _holds(path: Path, _: tuple[int, int, int, int], recorded: Recorded) -> bool:
    if not recorded.has_head:
        return file_digest(path) == recorded.sha256
    with path.open("rb") as stream:
        return ends_with(stream, recorded.size, recorded.sha256)


def recorded_results(run: Path, below: str) -> dict[Path, Recorded]:
    """What a run's manifest recorded of the objects that it has in a folder and in folders of that.

    Raises:
        OutOfReach: the manifest is there and can't be read.
    """
    manifest = run / MANIFEST
    return {run / name: recorded for name, recorded in _recorded_results(run, below, changed_ns(manifest))}


@lru_cache(maxsize=2000)
def _recorded_results(run: Path, below: str, _: int) -> tuple[tuple[str, Recorded], ...]:
    try:
        manifest = read_manifest(run)
    except BadConfig as error:  # nothing is known of them
        check_reached(error, run)
        return ()
    files = [one for operator in manifest.operators.values() for one in operator.files.items()] if manifest else []
    return tuple(
        (name, Recorded(digest.bytes, digest.sha256, has_head=False))
        for name, digest in files
        if name.startswith(f"{below}/") and name.endswith(".dcm")
    )


def note_damaged(node: RunningNode, path: Path, whose: str, *, is_ours: bool) -> None:
    """Say in the log, once, that a file does not hold what was recorded of it, and have health count it.

    ``whose`` is the SOP Instance UID of what came, of what is ours the job that made it.
    """
    if path not in node.damaged and len(node.damaged) < MOST_DAMAGED:
        node.damaged[path] = whose
        place = path.relative_to(node.folder).as_posix()
        _LOG.warning(LOST_RESULT if is_ours else LOST, *((place, whose) if is_ours else (whose, place)))
