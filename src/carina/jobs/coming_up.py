"""A node whose database is not there yet: after a power cut, or in a cluster, its server may come up after the node.

What lasts waits for it (``carina serve``, ``carina worker``); a command that is over soon says so and ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from carina.config import Settings
from carina.database import DatabaseAway, Outages
from carina.jobs.places import open_node
from carina.jobs.signs import has_one_host

FIRST_PAUSE_S, MOST_PAUSE_S = 1.0, 30.0


def open_node_once_there(settings: Settings, who: str, pause: Callable[[float], object] = time.sleep) -> Engine:
    """As ``open_node``, but while the database's server can't be reached it is tried again, for as long as it takes.

    The log says so when it begins, now and then while it lasts, and when it is over; each line begins with ``who``. The
    pause between two attempts doubles from one second to half a minute.

    Raises:
        BadConfig: as ``open_node``, but for a server that can't be reached.
    """
    outages = Outages(who, settings.node.folder)
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            engine = open_node(settings)
        except DatabaseAway as error:
            outages.tell(error)
        except DBAPIError as error:  # it has gone again before its tables were looked at
            if has_one_host(settings) or outages.met(error) is None:
                raise
        else:
            outages.is_over()
            return engine
        pause(pause_s)
        pause_s = min(2 * pause_s, MOST_PAUSE_S)
