"""A node whose database or folder is not there yet: after a power cut, or in a cluster, either may come up after it.

What lasts waits for them (``carina serve``, ``carina worker``); a command that is over soon says so and ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from carina.config import Settings
from carina.database import DatabaseAway, FolderAway, Outages
from carina.jobs.places import check_folder, open_node
from carina.jobs.signs import has_one_host

FIRST_PAUSE_S, MOST_PAUSE_S = 1.0, 30.0

Opened = TypeVar("Opened")


def await_folder(settings: Settings, who: str, pause: Callable[[float], object] = time.sleep) -> None:
    """Wait until the folder that is there is the database's own, as when its disk is mounted; nothing is written.

    It is said as in ``open_node_once_there``, and a server that can't be reached is waited for as well.

    Raises:
        BadConfig: as ``check_folder``.
    """
    _once_there(check_folder, (DatabaseAway, FolderAway), settings, who, pause)


def open_node_once_there(settings: Settings, who: str, pause: Callable[[float], object] = time.sleep) -> Engine:
    """As ``open_node``, but while the database's server can't be reached it is tried again, for as long as it takes.

    The log says so when it begins, now and then while it lasts, and when it is over; each line begins with ``who``. The
    pause between two attempts doubles from one second to half a minute.

    Raises:
        BadConfig: as ``open_node``, but for a server that can't be reached.
    """
    return _once_there(open_node, (DatabaseAway,), settings, who, pause)


def _once_there(
    opens: Callable[[Settings], Opened],
    passing: tuple[type[DatabaseAway | FolderAway], ...],
    settings: Settings,
    who: str,
    pause: Callable[[float], object],
) -> Opened:
    outages = Outages(who, settings.node.folder)
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            opened = opens(settings)
        except passing as error:
            outages.tell(error)
        except DBAPIError as error:  # it has gone again before its tables were looked at
            if has_one_host(settings) or outages.met(error) is None:
                raise
        else:
            outages.is_over()
            return opened
        pause(pause_s)
        pause_s = min(2 * pause_s, MOST_PAUSE_S)
