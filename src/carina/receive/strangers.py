"""What the log says of connections that are no DICOM association, or break off as one: who it was, and what was wrong.

Of an address each kind is told once in a while, so that whoever tries ports can't fill the log. A connection that
closes without a word, as that of a health check, is not told.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from pynetdicom.association import Association
from pynetdicom.fsm import TRANSITION_TABLE

from carina.errors import LastingTrouble

PDU_NAMES = {
    "Evt3": "A-ASSOCIATE-AC",
    "Evt4": "A-ASSOCIATE-RJ",
    "Evt6": "A-ASSOCIATE-RQ",
    "Evt10": "P-DATA-TF",
    "Evt12": "A-RELEASE-RQ",
    "Evt13": "A-RELEASE-RP",
}
"""What a PDU of the peer is to the state machine (PS3.8 table 9-10)."""

PDU_TYPES = range(1, 8)
ABORTS = ("AA-1", "AA-8")
"""What the state machine does where a PDU may not come."""

ABORT_ASKED, ENDED, TIME_IS_UP, INVALID = "Evt15", "Evt17", "Evt18", "Evt19"
AWAITS_REQUEST, AWAITS_CLOSE = "Sta2", "Sta13"
"""States in which nothing was asked for yet, and only the end of the connection is awaited (PS3.8 table 9-7)."""

SLOW = "slow"
"""The kind of what the node closes because it does not come in time."""

TLS_BEGINS = b"\x16\x03"
HTTP_BEGINS = (b"GET ", b"HEAD", b"POST", b"PUT ", b"OPTI", b"DELE", b"CONN", b"PRI ")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """What was wrong with a connection: a word of few for its kind, and the clause that is told."""

    kind: str
    words: str


class Strangers:
    """Tells of connections, each kind once for an address while it goes on."""

    def __init__(self) -> None:
        self._trouble, self._one_at_a_time = LastingTrouble(), threading.Lock()

    def tell(self, address: str, wrong: Wrong) -> None:
        """Say it, unless it was said lately."""
        with self._one_at_a_time:
            is_news = self._trouble.is_news(f"{address} {wrong.kind}")
        if is_news:
            _LOG.warning("connection from %s: %s.", address, wrong.words)


def wrong_on_event(event: str, state: str, association: Association) -> Wrong | None:
    """What an event says is wrong with a connection in a state; None where nothing is, or it was told already."""
    connection = association.dul.socket
    if state == AWAITS_CLOSE:
        return None
    if event == ENDED:
        return _ended(association)
    if event == INVALID:
        return None if association.dimse.is_broken else _unread(connection.head)
    if event == TIME_IS_UP and state == AWAITS_REQUEST:
        return Wrong(kind="silent", words="it asked for no association in time: closed")
    if event in PDU_NAMES and TRANSITION_TABLE.get((event, state)) in ABORTS:
        when = "before an association was asked for" if state == AWAITS_REQUEST else "where none may come"
        return Wrong(kind="order", words=f"its {PDU_NAMES[event]} PDU came {when}: aborted")
    return None


def _ended(association: Association) -> Wrong | None:
    """What was wrong with a connection that has ended; a slow one within a message is told with that."""
    found: Wrong | None = association.dul.socket.wrong
    is_told_there = found is not None and found.kind == SLOW and association.dimse.message is not None
    return None if is_told_there else found


def _unread(head: bytes) -> Wrong:
    """What is wrong with a PDU that begins so."""
    if head[:2] == TLS_BEGINS:
        return Wrong(kind="tls", words="it began TLS, and this port has none (dicom.tls): aborted")
    if head[:4] in HTTP_BEGINS:
        return Wrong(kind="http", words="it spoke HTTP, and this port speaks DICOM (the web's is web.port): aborted")
    if head[:1] and head[0] not in PDU_TYPES:
        return Wrong(kind="type", words=f"a PDU of type {head[0]:02X}H came, which DICOM does not know: aborted")
    return Wrong(kind="content", words=f"its PDU of type {head[:1].hex() or '00'}H can't be read: aborted")
