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
from carina.database import identity_in
from carina.errors import FULL, BadConfig, LastingTrouble, unwritable
from carina.jobs.places import make_private
from carina.jobs.signs import GONE_AFTER_S, SIGNED, ages_of, has_one_host, host_of, other_host

SIGN_EVERY_S = 5.0

_LOG = logging.getLogger(__name__)


@contextmanager
def worked_on_here(settings: Settings, host: str = "") -> Iterator[None]:
    """Work on a node for the block; where its database is SQLite, only while no other host does.

    A process that stood still, and finds that another host has taken the node over, is asked to end (SIGTERM).

    Raises:
        BadConfig: another host works on it, or its folder can't be written.
    """
    if not has_one_host(settings):
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
    now, ours = _signed_at(sign), host_of(sign)
    for other, age_s in ages_of(folder, now):
        if abs(age_s) > GONE_AFTER_S:
            with suppress(FileNotFoundError):
                other.unlink()
                if host_of(other) != ours:
                    _LOG.warning("taken over from host %s, which was last seen %.0f s ago", host_of(other), age_s)
        elif host_of(other) != ours:
            sign.unlink(missing_ok=True)
            raise other_host(folder, host_of(other), abs(age_s))


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


def _keep_signing(folder: Path, sign: Path, ended: threading.Event) -> None:
    trouble, ours = LastingTrouble(), ""
    while not ended.wait(SIGN_EVERY_S):
        try:
            if not _signed_again(folder, sign, ours):
                os.kill(os.getpid(), signal.SIGTERM)
                return
        except OSError as error:
            if trouble.is_news(str(error.strerror)):
                _LOG.warning("%s: can't be signed (%s)", sign, error.strerror)
            continue
        ours = ours or identity_in(folder)
        if after := trouble.over():
            _LOG.info("%s: signed again %s.", sign, after)


def _signed_again(folder: Path, sign: Path, ours: str) -> bool:
    """Sign, in the folder of this identity and in no other in its place; whether this process may go on.

    Raises:
        OSError: the folder can't be written.
    """
    try:
        os.utime(sign)
    except FileNotFoundError:  # it was removed, by somebody who took us for gone, or the node's disk was
        is_away = bool(ours) and identity_in(folder) != ours
        return is_away or not sign.parent.is_dir() or _may_sign_again(folder, sign)
    return True


def _may_sign_again(folder: Path, sign: Path) -> bool:
    try:
        check_one_host(folder, sign)
    except BadConfig as error:
        _LOG.error("this process ends: %s", error.message)
        return False
    return True
