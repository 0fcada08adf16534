"""The reply to a C-STORE request, encoded here: pynetdicom takes a millisecond for its sixty bytes, three times over.

Every other message, and a reply that says more than its status, is left to pynetdicom.
"""

from __future__ import annotations

import struct

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

C_STORE_REPLY = 0x8001
NO_DATA_SET = 0x0101
LAST_OF_COMMAND = b"\x03"
"""Command field, data set type and fragment header of a reply (PS3.7 E.1, 9.3.1.2; PS3.8 E.2)."""

SMALLEST_PDU = 512
"""A reply fits into every PDU that is no smaller."""


class QuickReplies(DIMSEServiceProvider):  # type: ignore[misc] # pynetdicom has no types
    """The messages of an association."""

    def send_msg(self, primitive: object, context_id: int) -> None:
        """Send a message."""
        if not isinstance(primitive, C_STORE) or not _is_plain(primitive) or 0 < self.maximum_pdu_size < SMALLEST_PDU:
            super().send_msg(primitive, context_id)
            return
        fragment = P_DATA()
        fragment.presentation_data_value_list.append((context_id, LAST_OF_COMMAND + command_set(primitive)))
        self.dul.send_pdu(fragment)


def _is_plain(reply: C_STORE) -> bool:
    """Whether it is a reply, and says whose and with which status, and nothing more."""
    said = (reply.MessageIDBeingRespondedTo, reply.Status, reply.AffectedSOPClassUID, reply.AffectedSOPInstanceUID)
    return None not in said and reply.ErrorComment is None and reply.OffendingElement is None


def command_set(reply: C_STORE) -> bytes:
    """A reply's command elements, in implicit VR little endian (PS3.7 6.3.1)."""
    elements = b"".join(
        (
            _uid(0x0002, reply.AffectedSOPClassUID),
            _number(0x0100, C_STORE_REPLY),
            _number(0x0120, reply.MessageIDBeingRespondedTo),
            _number(0x0800, NO_DATA_SET),
            _number(0x0900, reply.Status),
            _uid(0x1000, reply.AffectedSOPInstanceUID),
        )
    )
    return struct.pack("<HHII", 0, 0, 4, len(elements)) + elements


def _number(element: int, value: int) -> bytes:
    return struct.pack("<HHIH", 0, element, 2, value)


def _uid(element: int, uid: str) -> bytes:
    value = uid.encode("ascii") + b"\x00" * (len(uid) % 2)
    return struct.pack("<HHI", 0, element, len(value)) + value
