"""Parts of pages that are made once for everybody who is shown the same, and again once what they show has changed.

What is of one person alone is in none of them: a part is made for somebody without a name who may do the same, and
where their forms carry a token there is a mark, in place of which each is given their own.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from carina.database import DataVersion
from carina.service.access.caller import Caller

MOST_PAGE_PARTS = 100

_TOKEN = secrets.token_urlsafe(24)
"""Stands where a token comes; nobody knows it, so that nothing else in a part is taken for it."""


@dataclass(frozen=True, kw_only=True)
class PagePart:
    """A part as it was made; ``values`` are what the page around it shows of the same.

    ``look`` sees, of a version of the database, what the part shows that is not in there; ``seen`` is that as shown.
    """

    html: str
    values: Mapping[str, Any] = field(default_factory=dict)
    seen: object = None
    look: Callable[[object], object] = lambda _: None

    def of(self, caller: Caller) -> str:
        """It as somebody is shown it."""
        return self.html.replace(_TOKEN, caller.form_token)


class SharedParts:
    """The parts that were shown last; each is made by one thread, for which those wait who are to show the same."""

    def __init__(self, version: DataVersion) -> None:
        self._version = version
        self._lock = Lock()
        self._places: OrderedDict[Hashable, _Place] = OrderedDict()

    def part(self, key: Hashable, make: Callable[[object], PagePart], at_most_old_s: float = 0.0) -> PagePart:
        """The part of a key, which says what is asked for and what whoever asks may do; made where it is no more true.

        ``make`` is told the version of the database that was seen before; it may see a later one.
        """
        place = self._place(key)
        with place.lock:
            version = self._version.now(at_most_old_s)
            part = place.part
            if part is None or place.version != version or part.look(version) != part.seen:
                part = place.part = make(version)
                place.version = version
            return part

    def _place(self, key: Hashable) -> _Place:
        with self._lock:
            place = self._places.setdefault(key, _Place())
            self._places.move_to_end(key)
            while len(self._places) > MOST_PAGE_PARTS:
                self._places.popitem(last=False)
            return place


@dataclass(kw_only=True)
class _Place:
    lock: Lock = field(default_factory=Lock)
    part: PagePart | None = None
    version: object = None


def rights_of(caller: Caller) -> Hashable:
    """All that decides what somebody is shown, as a part of a key."""
    return caller.role, frozenset(caller.roles.items())


def nameless(caller: Caller) -> Caller:
    """Somebody who may do the same, and of whom nothing else is known."""
    return Caller(name="", role=caller.role, roles=caller.roles, form_token=_TOKEN)
