"""pynetdicom's acceptor with bounds on what a stranger controls before anything is known about it.

The original reads as many bytes as a PDU announces, waits for them without end, and makes two threads for a connection
that says nothing. Here a PDU has a largest size, all of it must come within a time, connections have a largest number,
and the TLS handshake takes place in the connection's own thread. Its threads wait where the original's poll.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.fsm import InvalidEventError, StateMachine
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from carina.receive.association_waits import LOOKS_UP_AFTER_S, Bell, RingingQueue
from carina.receive.handshake import PEEKED, wrong_in_handshake
from carina.receive.messages import BeginPart, BoundedMessages, serve_steadily
from carina.receive.strangers import ABORT_ASKED, AWAITS_CLOSE, PDU_TYPES, SLOW, Strangers, Wrong, wrong_on_event

LARGEST_PDU = 131_072
"""What we offer to take in one PDU (PS3.8 D.1)."""

LARGEST_READ = LARGEST_PDU + 65_536
"""More than any PDU that keeps to the offer; association requests with many contexts come first, and are smaller."""

READ_AT_ONCE = 65_536

HEAD = 6
"""Bytes before a PDU's content: its type, and how long it is (PS3.8 9.3.1)."""

NOTHING_TO_WAIT_FOR_S = 0.001

SOON_S = 0.001
"""What is left of a time that is over; with 0 a socket does not wait at all, and fails in another way."""

MOST_HALF_OPEN = 4
"""Where no connection is left, an address keeps a quarter of them without having asked for an association."""


class _UnacceptableError(OSError):
    """A PDU that is not waited for, or a handshake that failed."""

    def __init__(self, wrong: Wrong) -> None:
        super().__init__(wrong.words)
        self.wrong = wrong


class _SilentError(OSError):
    """A connection that ends before anything came."""


class BoundedSocket(AssociationSocket):  # type: ignore[misc] # pynetdicom has no types
    """Reads at most ``LARGEST_READ`` bytes, all of them within ``idle_s`` seconds.

    The first PDU has to be whole by ``whole_by`` (of the monotonic clock), however its bytes come; after the last one,
    the peer has ``first_s`` seconds to close.
    """

    idle_s = 60.0
    first_s = 15.0
    whole_by: float | None = None
    head = b""
    wrong: Wrong | None = None
    _awaits_content = False

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.bell = Bell()

    @property
    def ready(self) -> bool:
        """Whether there is something to read; waited for a little while, or until there is something to send."""
        connection = self.socket
        if connection is None or not self._is_connected:
            time.sleep(NOTHING_TO_WAIT_FOR_S)
            return False
        if self._is_late():
            self.event_queue.put("Evt18")
            return False
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True
        is_ending = self.assoc.dul.state_machine.current_state == AWAITS_CLOSE or not self.event_queue.empty()
        try:
            return self.bell.wait(connection, 0.0 if is_ending else LOOKS_UP_AFTER_S)
        except (OSError, ValueError):  # it is closed, or broken
            self.event_queue.put("Evt17")
            return False

    def _is_late(self) -> bool:
        """Whether the time for the first PDU is over; who waits is told as by the state machine's own timer."""
        if self.whole_by is None and self.assoc.dul.state_machine.current_state == AWAITS_CLOSE:
            self.whole_by = time.monotonic() + self.first_s
        return self.whole_by is not None and time.monotonic() > self.whole_by and self.event_queue.empty()

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self.bell.close()

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes: a PDU's head, then its content. ``head`` and ``wrong`` tell how far it came.

        Raises:
            OSError: they are too many, the peer is too slow, or the connection is broken.
        """
        is_content, self._awaits_content = self._awaits_content, False
        cut = Wrong(kind="cut", words="it ended within a PDU")
        try:
            read = self._read(nr_bytes)
        except _UnacceptableError as error:
            self.wrong = error.wrong
            raise
        except OSError:
            self.wrong = self.wrong or (cut if is_content else None)
            raise
        if len(read) < nr_bytes:
            self.wrong = self.wrong or (cut if is_content or read else None)
        elif not is_content:
            self._begin(bytes(read))
        else:
            self.whole_by = None
        return read

    def _begin(self, head: bytes) -> None:
        """Keep a PDU's head; that of the first which is none stays, since what was read is acted on a little later."""
        if not self.head or self.head[0] in PDU_TYPES:
            self.head = head
        self._awaits_content = len(head) == HEAD and head[0] in PDU_TYPES

    def _read(self, nr_bytes: int) -> bytearray:
        if nr_bytes > LARGEST_READ:
            words = f"it announced a PDU of {nr_bytes} bytes, and at most {LARGEST_PDU} were agreed on: closed"
            raise _UnacceptableError(Wrong(kind="size", words=words))
        connection = self.socket
        if connection is None:
            return bytearray()
        read = bytearray(nr_bytes)
        filled, idle_by = 0, time.monotonic() + self.idle_s
        deadline = min(idle_by, self.whole_by or idle_by)
        is_first = deadline < idle_by
        with memoryview(read) as view:
            while filled < nr_bytes:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._slow(is_first=is_first)
                connection.settimeout(left)
                try:
                    size = connection.recv_into(view[filled : filled + READ_AT_ONCE])
                except TimeoutError as error:
                    raise self._slow(is_first=is_first) from error
                if not size:
                    break
                filled += size
        connection.settimeout(self.idle_s)
        del read[filled:]
        return read

    def _slow(self, *, is_first: bool) -> _UnacceptableError:
        words = f"a PDU did not come within {self.idle_s:g} s (dicom.idle_s): closed"
        if is_first:
            words = f"its request for an association was not whole after {self.first_s:g} s: closed"
        return _UnacceptableError(Wrong(kind=SLOW, words=words))


class SteadyMachine(StateMachine):  # type: ignore[misc]
    """The state machine of a connection (PS3.8 9.2): what a state does not allow ends the connection.

    So does what can't be followed. In the original it ends the thread that reads, with a traceback, and the connection
    stays open.
    """

    def do_action(self, event: str) -> None:
        """Act on an event, which a peer may bring about at any time."""
        association = self.dul.assoc
        asked, strangers = association.requestor.address_info, association._server.strangers
        address = asked.address if asked else "a peer that is gone"
        if wrong := wrong_on_event(event, self.current_state, association):
            strangers.tell(address, wrong)
        if event == ABORT_ASKED and self.dul.idle_timer_expired():  # here it has not begun anew with what comes after
            association.dimse.cut(is_idle=True)
        try:
            super().do_action(event)
        except Exception as error:  # noqa: BLE001 - the network edge: a PDU whose content means nothing, too
            said = str(error) if isinstance(error, InvalidEventError) else type(error).__name__
            strangers.tell(address, Wrong(kind="meaning", words=f"it ended: what came can't be followed ({said})"))
            association.is_aborted, association.is_established = True, False
            association._kill = self.dul._kill_thread = True
            self.dul.socket.close()


class BoundedHandler(RequestHandler):  # type: ignore[misc]
    """Makes associations on bounded sockets."""

    server: BoundedServer

    def _create_association(self) -> Association:
        whole_by = time.monotonic() + self.server.first_s
        self.request.settimeout(self.server.first_s)
        if isinstance(self.request, ssl.SSLSocket):
            begins = socket.socket.recv(self.request, PEEKED, socket.MSG_PEEK)
            if not begins:
                raise _SilentError
            self.request.settimeout(max(whole_by - time.monotonic(), SOON_S))
            try:
                self.request.do_handshake()
            except OSError as error:
                raise _UnacceptableError(wrong_in_handshake(error, begins, self.server.first_s)) from error
        self.request.settimeout(self.server.idle_s)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        association = super()._create_association()
        bounded = BoundedSocket(association, client_socket=self.request)
        bounded.idle_s, bounded.first_s, bounded.whole_by = self.server.idle_s, self.server.first_s, whole_by
        association.dul.event_queue.get_nowait()  # the original socket's word that there is a connection
        association.dul.socket = bounded
        association.dul.to_provider_queue = RingingQueue(bounded.bell)
        association.dul._run_loop_delay = 0  # the socket waits
        association.dimse = BoundedMessages(association, self.server.begin_part, self.server.instance_mb)
        association.dul.state_machine = SteadyMachine(association.dul)
        serve_steadily(association)
        self.server.take_in(self.request, association)
        return association


class BoundedServer(ThreadedAssociationServer):  # type: ignore[misc]
    """Listens, with at most ``connections`` open ones, whatever state they are in."""

    daemon_threads = True
    request_queue_size = 64
    idle_s = 60.0
    first_s = 15.0
    connections = 50
    begin_part: BeginPart
    instance_mb: int

    def __init__(self, *args: Any, **more: Any) -> None:
        self.open_connections: list[Association] = []
        self._counting = threading.Lock()
        self._starting: dict[Any, str] = {}
        self.strangers = Strangers()
        super().__init__(*args, request_handler=BoundedHandler, **more)

    def _bind_defaults(self) -> None:
        """Bind what answers requests, and not what writes every PDU into pynetdicom's own log."""
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Take a connection; its TLS handshake waits for its thread."""
        if self.socket is None:
            raise OSError("the listener is closed")
        connection, address = self.socket.accept()
        if self.ssl_context:
            connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for one more connection."""
        with self._counting:
            self._forget_ended()
            is_full = len(self.open_connections) + len(self._starting) >= self.connections
            if is_full and not self._makes_room(client_address[0]):
                full = Wrong(kind="full", words=f"it was refused: {self.connections} are open (dicom.associations)")
                self.strangers.tell(client_address[0], full)
                return False
            self._starting[request] = client_address[0]
            return True

    def take_in(self, request: Any, association: Association) -> None:
        """Count a connection as what it has become."""
        with self._counting:
            self._starting.pop(request, None)
            self.open_connections.append(association)

    def _makes_room(self, address: str) -> bool:
        """Close, for another address, the oldest connection of that which has most without an association.

        An address keeps ``1 / MOST_HALF_OPEN`` of the room: whoever begins many associations at once is not disturbed.
        """
        half_open = {one: _address(one) for one in self.open_connections if one.requestor.primitive is None}
        counted = Counter((*half_open.values(), *self._starting.values()))
        hog, number = max(counted.items(), key=lambda item: item[1], default=("", 0))
        if hog == address or number <= self.connections // MOST_HALF_OPEN:
            return False
        words = f"{number} of {self.connections} connections (dicom.associations) ask for nothing: the oldest is closed"
        self.strangers.tell(hog, Wrong(kind="half-open", words=words))
        for association in [one for one, whose in half_open.items() if whose == hog][:1]:
            self.open_connections.remove(association)
            _cut(association.dul.socket.socket)
            return True
        request = next(one for one, whose in self._starting.items() if whose == hog)  # TLS is not agreed on yet
        del self._starting[request]
        _cut(request)
        return True

    def shutdown_request(self, request: Any) -> None:
        """End a connection, whose association has ended; nothing is kept of what came by half."""
        super().shutdown_request(request)
        for one in self.open_connections:
            if one.dul.socket.socket is request:
                one.dimse.let_go()

    def _forget_ended(self) -> None:
        ended = [one for one in self.open_connections if one.ident is not None and not one.is_alive()]
        self.open_connections = [one for one in self.open_connections if one not in ended]
        for one in ended:
            one.dimse.let_go()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Begin an association; what a peer can break here is the connection's own."""
        try:
            self.finish_request(request, client_address)
        except OSError as error:  # a handshake that fails, a peer that is gone
            if isinstance(error, _UnacceptableError):
                self.strangers.tell(client_address[0], error.wrong)
            self.shutdown_request(request)
        finally:
            with self._counting:
                self._starting.pop(request, None)


def _address(association: Association) -> str:
    asked = association.requestor.address_info
    return str(asked.address) if asked else ""


def _cut(connection: socket.socket | None) -> None:
    """End a connection under whoever waits for it, who then ends; of TLS too, without its words of farewell."""
    if connection is not None:
        with suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
