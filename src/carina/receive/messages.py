"""The messages of an association, bounded: data sets to store go to the disk as they come, all others stay small.

pynetdicom keeps all of a message in memory, and as many messages as a peer sends without waiting for an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA

from carina.receive.association_waits import PatientQueue
from carina.receive.instance import Announced
from carina.receive.part import IncomingDataSet, PartFile
from carina.receive.replies import QuickReplies
from carina.receive.strangers import SLOW, Wrong

LARGEST_COMMAND = 65_536
"""Bytes of a command set: a dozen numbers, names and UIDs (PS3.7 annex E)."""

LARGEST_OTHER = 32_000_000
"""Bytes of a data set that is not to be stored: a request for the commitment of 100,000 instances has 16 million."""

REQUESTS_AHEAD = 16
"""Requests of one peer that wait for their turn; who negotiated nothing else may have one (PS3.7 annex D.3.3.3)."""


class _OutOfOrderError(Exception):
    """A fragment that can't be where it is; its words say why."""


BeginPart = Callable[[Announced], PartFile]


class RequestQueue(PatientQueue):
    """What waits to be answered; a C-CANCEL is none, and pynetdicom puts the eleventh among them."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002
        """Put in what is a request."""
        if not isinstance(item[1], C_CANCEL):
            super().put(item, block, timeout)


class BoundedMessages(QuickReplies):
    """Takes the messages of an association; ``begin`` gives a file for a data set that is to be stored."""

    def __init__(self, association: Association, begin: BeginPart, instance_mb: int) -> None:
        self.message: DIMSEMessage | None
        super().__init__(association)
        self.msg_queue = RequestQueue()
        self._begin, self._instance_mb = begin, instance_mb
        self._size, self._is_over = 0, False
        self._context_id, self._is_broken, self._is_command = 0, False, 0

    @property
    def is_broken(self) -> bool:
        """Whether a message could not be followed, which was told."""
        return self._is_broken

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take a part of a message, or the end of one and the beginning of the next."""
        items = primitive.presentation_data_value_list
        try:
            for item in items if not self._is_broken else ():
                self._follow(*item)
                super().receive_primitive(primitive if len(items) == 1 else _alone(item))
        except Exception as error:  # noqa: BLE001 - the network edge; in the original it ends the thread that reads
            said = str(error) if isinstance(error, _OutOfOrderError) else type(error).__name__
            tell_wrong(self.assoc, "message", f"a message can't be followed ({said}): aborted")
            self._is_broken = True
            self.let_go_of_part()
            self.dul.event_queue.put("Evt19")  # an invalid PDU (PS3.8 table 9-10)

    def _follow(self, context_id: int, fragment: bytes) -> None:
        """See that a fragment goes on with the message under way, or begins one: a command, then its data set.

        All of one message is of one presentation context, which says how the data set is encoded (PS3.8 annex E).
        """
        if self.message is None:
            if context_id not in self.assoc._accepted_cx:
                raise _OutOfOrderError(f"presentation context {context_id} was not agreed on")
            message = DIMSEMessage()
            message.data_set = IncomingDataSet(partial(self._part_of, message))
            self.message, self._context_id = message, context_id
        is_command, is_complete = bool(fragment[0] & 0x01), self.message.context_id is not None
        if context_id != self._context_id:
            raise _OutOfOrderError(f"it begins in presentation context {self._context_id}, and is in {context_id} now")
        if is_command and is_complete:
            raise _OutOfOrderError("a second command comes before the end of the first one's data set")
        if not is_command and not is_complete:
            raise _OutOfOrderError("a data set comes before its command")

    def measure(self, pdu: P_DATA_TF) -> str:
        """Why an association is to end whose next PDU is this one; empty where it may go on, or was told already."""
        if self._is_over:
            return ""
        why = self._why_over(pdu)
        self._is_over = bool(why)
        return why

    def _why_over(self, pdu: P_DATA_TF) -> str:
        if self.msg_queue.qsize() > REQUESTS_AHEAD:
            return f"more than {REQUESTS_AHEAD} requests are sent before the first is answered"
        for item in pdu.presentation_data_value_items:
            fragment = item.presentation_data_value
            is_command, is_last = bool(fragment[:1]) and fragment[0] & 0x01, bool(fragment[:1]) and fragment[0] & 0x02
            self._size = len(fragment) + (self._size if is_command == self._is_command else 0)
            self._is_command = is_command
            if why := self._over(is_command=bool(is_command)):
                return why
            if is_last:  # the last fragment of a command or data set (PS3.8 E.2)
                self._size = 0
        return ""

    def let_go_of_part(self) -> None:
        """Keep nothing of a message that will not be whole."""
        if self.message is not None:
            _let_go(self.message.data_set)

    def let_go(self) -> None:
        """Keep nothing: nobody will answer the messages that wait either."""
        self.cut()
        self.let_go_of_part()
        with suppress(Empty):
            for _ in range(self.msg_queue.qsize()):
                _let_go(getattr(self.msg_queue.get(block=False)[1], "DataSet", None))

    def cut(self, *, is_idle: bool = False) -> None:
        """Say of a message that is under way that it will not be whole, and who ended it; it is said once."""
        if self.message is None or self._is_broken or self._is_over:
            return
        self._is_broken = True
        wrong = getattr(self.assoc.dul.socket, "wrong", None)
        if is_idle or (wrong is not None and wrong.kind == SLOW):
            limit = f"no whole PDU came for {self.assoc.network_timeout:g} s (dicom.idle_s)"
            tell_wrong(self.assoc, "slow message", f"{limit} within a message, of which nothing is kept: closed")
        else:
            tell_wrong(self.assoc, "cut message", "it ended within a message, of which nothing is kept")

    def _over(self, *, is_command: bool) -> str:
        if is_command:
            return "" if self._size <= LARGEST_COMMAND else f"a command set of over {LARGEST_COMMAND} bytes"
        on_disk = self.message is not None and getattr(self.message.data_set, "part", None) is not None
        if not on_disk:
            return "" if self._size <= LARGEST_OTHER else f"a message of over {LARGEST_OTHER // 1_000_000} MB"
        is_over = self._size > self._instance_mb * 1_000_000
        return f"a data set of over {self._instance_mb} MB (dicom.instance_mb)" if is_over else ""

    def _part_of(self, message: DIMSEMessage) -> PartFile | None:
        """A file for a message's data set, once it is known to be one that is to be stored."""
        context = self.assoc._accepted_cx.get(message.context_id)
        if not isinstance(message, C_STORE_RQ) or context is None:
            return None
        said = Announced(
            sop_class_uid=_said(message, "AffectedSOPClassUID"),
            sop_instance_uid=_said(message, "AffectedSOPInstanceUID"),
            transfer_syntax_uid=str(context.transfer_syntax[0]),
            is_agreed=True,
        )
        return self._begin(said)


def tell_wrong(association: Association, kind: str, words: str) -> None:
    """Say what is wrong with an association, unless it was said lately of the same address."""
    asked = association.requestor.address_info
    address = asked.address if asked else "a peer that is gone"
    association._server.strangers.tell(address, Wrong(kind=kind, words=words))


def serve_steadily(association: Association) -> None:
    """Have a request that breaks its own answering end its association, in place of the thread alone."""
    original = association._serve_request

    def serve(request: Any, context_id: int) -> None:
        if not request.is_valid_request and request.MessageIDBeingRespondedTo is None:
            tell_wrong(association, "request", "a request lacks what it must say: aborted")
            association.abort()
            return
        try:
            original(request, context_id)
        except Exception as error:  # noqa: BLE001 - the network edge
            tell_wrong(association, "answer", f"a request can't be answered ({type(error).__name__}): aborted")
            association.abort()

    association._serve_request = serve


def _alone(item: tuple[int, bytes]) -> P_DATA:
    """One fragment of several that came together: a message may end among them."""
    primitive = P_DATA()
    primitive.presentation_data_value_list.append(item)
    return primitive


def _said(message: DIMSEMessage, keyword: str) -> str:
    return str(message.command_set.get(keyword) or "")


def _let_go(data_set: Any) -> None:
    if isinstance(data_set, IncomingDataSet):
        data_set.let_go()
