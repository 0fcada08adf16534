"""A node on SQLite works on one machine: who works on it signs in its folder, and from another host nobody joins.

SQLite's write-ahead log lies in memory that processes of one machine share; from two, over shared storage, the database
would be damaged without a word.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from carina.config import Settings
from carina.errors import FULL, BadConfig, unwritable
from carina.jobs.places import make_private

SIGNED = "alive"
"""The folder of a node with an empty file, HOST:PID, for each process that works on it."""

SIGN_EVERY_S = 5.0
GONE_AFTER_S = 60.0
"""A process that has not signed for so long counts as gone."""

_LOG = logging.getLogger(__name__)


@contextmanager
def worked_on_here(settings: Settings, host: str = "") -> Iterator[None]:
    """Work on a node for the block; where its database is SQLite, only while no other host does.

    A process that stood still, and finds that another host has taken the node over, is asked to end (SIGTERM).

    Raises:
        BadConfig: another host works on it, or its folder can't be written.
    """
    if settings.node.database and not settings.node.database.startswith("sqlite"):
        yield
        return
    folder = Path(settings.node.folder)
    sign = folder / SIGNED / f"{host or platform.node()}:{os.getpid()}"
    try:
        make_private(folder)
        check_one_host(folder, sign)
        ended = threading.Event()
        signer = threading.Thread(target=_keep_signing, args=(folder, sign, ended), daemon=True, name="signs")
        signer.start()
    except OSError as error:
        raise unwritable(error, folder) from error
    try:
        yield
    finally:
        ended.set()
        signer.join()
        sign.unlink(missing_ok=True)


def check_one_host(folder: Path, sign: Path) -> None:
    """Sign, then see that no other host has done so lately; signs of who is gone are removed.

    Who signs first and looks then never overlooks another that does the same. Times are those of the file system,
    which hosts have in common.

    Raises:
        BadConfig: another host has; our sign is taken back.
        OSError: the folder can't be written.
    """
    now, ours = _signed_at(sign), _host(sign)
    for other in sorted(sign.parent.glob("*:*")):
        with suppress(FileNotFoundError):
            age_s = now - other.stat().st_mtime
            if abs(age_s) > GONE_AFTER_S:
                other.unlink()
                if _host(other) != ours:
                    _LOG.warning("taken over from host %s, which was last seen %.0f s ago", _host(other), age_s)
            elif _host(other) != ours:
                sign.unlink(missing_ok=True)
                raise BadConfig("node.other-host", _refusal(folder, _host(other), abs(age_s)))


def _signed_at(sign: Path) -> float:
    """Sign; gives when. On a full disk, where a node begins all the same to make room, that is this machine's time."""
    try:
        sign.parent.mkdir(exist_ok=True)
        sign.touch()
        return sign.stat().st_mtime
    except OSError as error:
        if error.errno not in FULL:
            raise
        return time.time()


def _refusal(folder: Path, other: str, age_s: float) -> str:
    words = (
        f"host {other} works on this node (seen {age_s:.0f} s ago), and its database is SQLite, which one machine has"
    )
    how = "name a PostgreSQL server (node.database) for more, or end what runs there"
    return f"{folder.absolute()}: {words} alone: {how}; what was killed counts as gone after {GONE_AFTER_S:.0f} s."


def _host(sign: Path) -> str:
    return sign.name.rpartition(":")[0]


def _keep_signing(folder: Path, sign: Path, ended: threading.Event) -> None:
    while not ended.wait(SIGN_EVERY_S):
        try:
            os.utime(sign)
        except FileNotFoundError:  # it was removed, by somebody who took us for gone
            if not _may_sign_again(folder, sign):
                os.kill(os.getpid(), signal.SIGTERM)
                return
        except OSError as error:
            _LOG.warning("%s: can't be signed (%s)", sign, error.strerror)


def _may_sign_again(folder: Path, sign: Path) -> bool:
    try:
        check_one_host(folder, sign)
    except BadConfig as error:
        _LOG.error("this process ends: %s", error.message)
        return False
    except OSError as error:
        _LOG.warning("%s: can't be signed (%s)", sign, error.strerror)
    return True
