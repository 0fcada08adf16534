"""An association with a DICOM node as its user, and why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event

from pydicom.uid import UID
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import EventHandlerType

from carina.config import DicomDestination
from carina.deliver.pause import pause_surely
from carina.deliver.receipt import unreachable
from carina.deliver.tls import PeerTls, peer_tls
from carina.errors import DeliveryFailed

LAST_PORT = 65535

NO_CONTEXT = "delivery.no-context"
"""The code where a peer accepts the association and nothing that is to be done on it."""

Contexts = Sequence[tuple[str, Sequence[UID]]]


@contextmanager
def associated(
    name: str,
    peer: DicomDestination,
    contexts: Contexts,
    handlers: Sequence[EventHandlerType] = (),
    taken: Sequence[str] = (),
) -> Iterator[Association]:
    """An association that is open when the block begins, and released after it.

    It is the only one that the node opens, so that TLS is spoken wherever the settings say so. ``taken`` are the SOP
    classes of ``contexts`` whose provider we are on it: storage (C-GET), storage commitment (reports).

    Raises:
        DeliveryFailed: nobody answers, the peer refuses, or it accepts none of the contexts.
    """
    tls, connected = peer_tls(name, address(peer), peer), Event()
    told = [*handlers, (evt.EVT_CONN_OPEN, lambda _: connected.set())]
    try:
        association = pause_surely(_associate(peer, contexts, told, taken, tls))
    except (OSError, ValueError) as error:  # a host that nobody knows; a port or an AE title that can't be
        raise unreachable(name, address(peer), str(error)) from error
    if not association.is_established:
        raise _refused(name, peer, association, tls, is_open=connected.is_set())
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def address(peer: DicomDestination) -> str:
    """A peer as people write it."""
    return f"{peer.ae_title}@{peer.host}:{peer.port}"


def accepts(association: Association, sop_class: str) -> bool:
    """Whether the peer accepted a context for an abstract syntax."""
    return any(context.abstract_syntax == sop_class for context in association.accepted_contexts)


def _associate(
    peer: DicomDestination,
    contexts: Contexts,
    handlers: Sequence[EventHandlerType],
    taken: Sequence[str],
    tls: PeerTls | None,
) -> Association:
    if not 0 < peer.port <= LAST_PORT:
        raise ValueError(f"its port must be 1 to {LAST_PORT}")
    entity = AE(ae_title=peer.calling_ae_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = peer.timeout_s
    entity.connection_timeout = peer.timeout_s
    for abstract_syntax, syntaxes in contexts:
        entity.add_requested_context(abstract_syntax, list(syntaxes))
    roles = [build_role(UID(sop_class), scp_role=True) for sop_class in taken]
    return entity.associate(
        peer.host,
        peer.port,
        ae_title=peer.ae_title,
        ext_neg=roles,
        evt_handlers=list(handlers),
        tls_args=(tls.context, tls.asked.name) if tls else None,
    )


def _refused(
    name: str, peer: DicomDestination, association: Association, tls: PeerTls | None, *, is_open: bool
) -> DeliveryFailed:
    answer = association.acceptor.primitive
    if association.is_rejected:
        reason = getattr(answer, "reason_str", "") or "no reason given"
        refusal = f"it refused the association of {peer.calling_ae_title} ({reason})"
        return unreachable(name, address(peer), refusal)
    if answer is None:
        return unreachable(name, address(peer), *_unanswered(tls, is_open=is_open))
    return DeliveryFailed(NO_CONTEXT, f"{name} ({address(peer)}) accepts nothing of what was proposed: see what it is.")


def _unanswered(tls: PeerTls | None, *, is_open: bool) -> tuple[str, ...]:
    """What was seen where nothing was answered, and what to do where that is not to look at the address."""
    if tls and (seen := tls.trouble()):
        return seen
    if tls or not is_open:
        return ("nothing answers there",)
    how = "It may want TLS (tls_trusted), or be no DICOM node: check its port"
    return "its port is open, but no DICOM association is answered there", how
