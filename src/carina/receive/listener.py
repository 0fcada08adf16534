"""The DICOM listener: C-ECHO and C-STORE under every AE title of the settings' sources, storage commitment.

Every storage class and every transfer syntax is taken, and stored as it came. A caller is let in by the AE title that
it calls, its own AE title and its address; it is told 0000H only for what is on the disk for good.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
from collections.abc import Callable, Iterator, Mapping

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
    uid_to_service_class,
)

from carina.config import DicomDestination, DicomSource, Settings
from carina.database import FOLDER_AWAY, Outages
from carina.deliver.answers import CLASS_NOT_SUPPORTED, NO_SUCH_OBJECT, SUCCESS
from carina.deliver.reported import PeerReport, hear_report
from carina.errors import BadConfig
from carina.receive.commitment import read_request
from carina.receive.instance import NO_ROOM, TAKEN_LATER, Arriving, NotAccepted
from carina.receive.messages import tell_wrong
from carina.receive.moves import AskedBy
from carina.receive.refused import RefusalLog
from carina.receive.reports import NOT_AUTHORISED, CommitmentReports
from carina.receive.store import Accepted, InstanceStore, SentBy
from carina.receive.tls import listener_files, tls_context
from carina.receive.transport import LARGEST_PDU, BoundedServer

FIRST_WORD_S = 15.0
"""Time for a caller, once it is connected, until its request for an association is whole, with TLS before that."""

NO_SUCH_ACTION = 0x0123
REQUEST_COMMITMENT = 1
"""The action type of a request for storage commitment (PS3.4 table J.3.2-1)."""

REJECTED = {"called": (0x01, 0x01, 0x07), "calling": (0x01, 0x01, 0x03)}
"""Result, source and reason of a refused association (PS3.8 table 9-21)."""

STORING = (StorageServiceClass, ServiceClass)
"""What a presentation context may be for in which something is stored; the last is that of classes nobody knows."""

_LOG = logging.getLogger(__name__)

TakeReport = Callable[[PeerReport], None]


class DicomListener:
    """Listens from ``start`` to ``stop``; ``take_report`` is given the storage commitment reports that peers send."""

    def __init__(self, store: InstanceStore, take_report: TakeReport = lambda report: None) -> None:
        self.store, self.settings, self.engine, self.take_report = store, store.settings, store.engine, take_report
        self.sources = {one.ae_title: (name, one) for name, one in _dicom_sources(self.settings).items()}
        self.reporters = frozenset(_reporters(self.settings))
        self._reports = CommitmentReports(self.settings, self.engine)
        self._server: BoundedServer | None = None
        self.outages = Outages("dicom: instances are refused", store.folder)
        self._refusals: dict[Association, RefusalLog] = {}
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._server.server_address[1] if self._server else self.settings.dicom.port

    @property
    def is_listening(self) -> bool:
        """Whether new connections are taken."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Listen, in threads of its own.

        Raises:
            BadConfig: the port is taken, or a certificate can't be read.
        """
        _config.UNRESTRICTED_STORAGE_SERVICE = True
        wanted = self.settings.dicom
        node = AE(ae_title="CARINA")
        node.maximum_pdu_size = LARGEST_PDU
        node.acse_timeout, node.dimse_timeout, node.network_timeout = FIRST_WORD_S, wanted.idle_s, wanted.idle_s
        node.maximum_associations = wanted.associations
        node.add_supported_context(Verification)
        syntaxes = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
        node.add_supported_context(StorageCommitmentPushModel, syntaxes, scu_role=True, scp_role=True)
        bounds = {"idle_s": wanted.idle_s, "connections": wanted.associations, "instance_mb": wanted.instance_mb}
        more = {"first_s": FIRST_WORD_S, "begin_part": staticmethod(self.store.begin)}
        limits = type("Limits", (BoundedServer,), bounds | more)
        try:
            self._server = node.make_server(
                (wanted.host, wanted.port),
                ssl_context=tls_context(listener_files("dicom", wanted.tls)) if wanted.tls else None,
                evt_handlers=[
                    (evt.EVT_CONN_CLOSE, self._forget),
                    (evt.EVT_REQUESTED, self._let_in),
                    (evt.EVT_PDU_RECV, self._measure),
                    (evt.EVT_C_STORE, self._take),
                    (evt.EVT_N_ACTION, self._commit),
                    (evt.EVT_N_EVENT_REPORT, self._hear_report),
                ],
                server_class=limits,
            )
        except OSError as error:
            words = f"dicom.port: {wanted.host}:{wanted.port} can't be listened on ({error.strerror or error})."
            raise BadConfig("dicom.port", f"{words} Stop what uses it, or choose another.") from error
        node._servers.append(self._server)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), daemon=True, name="dicom")
        self._thread.start()
        self._reports.start()
        _LOG.info("listening for DICOM on %s:%d as %s.", wanted.host, self.port, ", ".join(self.sources) or "nobody")

    def stop(self) -> None:
        """Take no more connections and abort those that are open; what was accepted stays."""
        self._reports.stop()
        if self._server is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        for association in server.open_connections:
            if association.is_alive():
                association.abort()

    def _let_in(self, event: Event) -> None:
        """Refuse an association whose called title, calling title or address no source allows."""
        requestor = event.assoc.requestor
        called, calling = _title(requestor.primitive.called_ae_title), _title(requestor.primitive.calling_ae_title)
        found = self.sources.get(called)
        if (called, calling) in self.reporters:
            return
        if found is None:
            _reject(event, "called", f"association of {calling} refused: no source is called {called}")
        elif not allows(found[1], calling, requestor.address_info.address):
            _reject(event, "calling", f"association of {calling} refused by source {found[0]}")

    def _forget(self, event: Event) -> None:
        """Say what was not told of a connection that closes.

        One that closes without having asked for anything has its thread ended; the original waits on.
        """
        if (refusals := self._refusals.pop(event.assoc, None)) is not None:
            refusals.end()
        if event.assoc.requestor.primitive is None:
            event.assoc.dul.to_user_queue.put(None)

    def _measure(self, event: Event) -> None:
        """Abort where a message under way is larger than it may be, or too many wait."""
        if isinstance(event.pdu, P_DATA_TF) and (why := event.assoc.dimse.measure(event.pdu)):
            tell_wrong(event.assoc, why, f"{why}: association aborted")
            event.assoc.dimse.let_go()
            event.assoc.abort()

    def _take(self, event: Event) -> int:
        request = event.request
        calling, address = _caller(event)
        if (found := self._source(event)) is None:
            return NOT_AUTHORISED
        origin = SentBy(found[0], f"{calling}@{address}", asked=_asked(request, calling))
        refusals = self._refusals.setdefault(event.assoc, RefusalLog(_LOG, origin.who))
        try:
            became = self._accept(event, origin)
        except NotAccepted as error:
            if error.code in TAKEN_LATER:
                if error.code != FOLDER_AWAY:  # which is told once for the whole node
                    self.outages.tell(error)
                return error.status
            refusals.tell(error)
            return error.status
        except Exception as error:  # noqa: BLE001 - the network edge: the sender is told, and tries again
            if refusals.has_room(type(error).__name__):
                _LOG.exception("from %s: an instance could not be accepted.", origin.who)
            return NO_ROOM
        self.outages.is_over()
        if became is Accepted.REPEATED:
            _LOG.debug("from %s: an instance came again.", origin.who)
        return SUCCESS

    def _accept(self, event: Event, origin: SentBy) -> Accepted:
        """Have the store take a data set: one that is small from memory, else the file that it was written into."""
        request = event.request
        _check_service(event)
        if (part := request.DataSet.part) is not None:
            return self.store.accept_part(part, origin)
        arriving = Arriving(
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            is_agreed=True,
            data=request.DataSet.getbuffer(),
        )
        return self.store.accept(arriving, origin)

    def _source(self, event: Event) -> tuple[str, DicomSource] | None:
        """The source that was called, with its name; None where the caller was let in for its reports alone."""
        found = self.sources.get(_title(event.assoc.requestor.primitive.called_ae_title))
        return found if found is not None and allows(found[1], *_caller(event)) else None

    def _commit(self, event: Event) -> tuple[int, None]:
        """Answer a request for storage commitment: what it asks about is looked at afterwards."""
        if event.action_type != REQUEST_COMMITMENT:
            return NO_SUCH_ACTION, None
        if event.request.RequestedSOPInstanceUID != StorageCommitmentPushModelInstance:
            return NO_SUCH_OBJECT, None
        if (found := self._source(event)) is None:
            return NOT_AUTHORISED, None
        calling, address = _caller(event)
        try:
            asked = event.request.ActionInformation.getvalue() if event.request.ActionInformation else b""
            is_implicit = event.context.transfer_syntax == ImplicitVRLittleEndian
            request = read_request(asked, found[1].project, is_implicit=is_implicit)
            self._reports.owe(calling, address, request)
        except NotAccepted as error:
            _LOG.warning("from %s@%s: %s [%s]", calling, address, error.message, error.code)
            return error.status, None
        return SUCCESS, None

    def _hear_report(self, event: Event) -> tuple[int, None]:
        return hear_report(event, self.take_report)


def _reject(event: Event, title: str, words: str) -> None:
    """Refuse an association, say so, and wait until the peer has been told."""
    tell_wrong(event.assoc, title, words)
    event.assoc.acse.send_reject(*REJECTED[title])
    event.assoc.kill()


def _dicom_sources(settings: Settings) -> Mapping[str, DicomSource]:
    return {name: one for name, one in settings.sources.items() if isinstance(one, DicomSource)}


def _reporters(settings: Settings) -> Iterator[tuple[str, str]]:
    """Called and calling titles of the nodes that report on storage commitment, which the node asks them for."""
    for one in settings.destinations.values():
        if isinstance(one, DicomDestination) and one.commitment:
            yield one.calling_ae_title.strip(), one.ae_title.strip()


def _check_service(event: Event) -> None:
    """See that a C-STORE comes in a presentation context for storage; of which class counts less, the data set says it.

    Raises:
        NotAccepted: it comes in that of another service.
    """
    agreed = event.context.abstract_syntax
    if uid_to_service_class(agreed) in STORING:
        return
    words = f"instance {event.request.AffectedSOPInstanceUID}: it is sent in a presentation context for {agreed.name}"
    raise NotAccepted(CLASS_NOT_SUPPORTED, "receive.no-storage", f"{words}; the sender has to propose its SOP class.")


def _asked(request: C_STORE, calling: str) -> AskedBy:
    """What a request says of the C-MOVE that set it off."""
    originator = _title(request.MoveOriginatorApplicationEntityTitle or "")
    return AskedBy(sender=calling, originator=originator, message_id=request.MoveOriginatorMessageID)


def _caller(event: Event) -> tuple[str, str]:
    """The AE title and the address of who called."""
    requestor = event.assoc.requestor
    return _title(requestor.primitive.calling_ae_title), requestor.address_info.address


def _title(title: str | bytes) -> str:
    return (title.decode("ascii", "replace") if isinstance(title, bytes) else title).strip()


def allows(source: DicomSource, calling: str, address: str) -> bool:
    """Whether a source takes from a caller; an address that is mapped into IPv6 counts as what it is."""
    if source.callers and calling not in source.callers:
        return False
    if not source.addresses:
        return True
    found = ipaddress.ip_address(address)
    plain = getattr(found, "ipv4_mapped", None) or found
    return any(plain in ipaddress.ip_network(network, strict=False) for network in source.addresses)
