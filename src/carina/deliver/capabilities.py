"""What a DICOM node accepts of what the sender asks it for, and what it then answers."""

from __future__ import annotations

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.sop_class import EncapsulatedPDFStorage, StorageCommitmentPushModel

from carina.config import DicomDestination
from carina.deliver.association import accepts, associated
from carina.deliver.find_scu import found_by_query
from carina.deliver.identity import ObjectIdentity
from carina.deliver.proof import Proof
from carina.deliver.store_scu import ECHO_CONTEXT

NOBODYS_UID = "2.25.211837463409842376543219870654321098765"
"""A UID under which nobody has anything, to see whether a query is answered at all."""


def proof_of_node(name: str, peer: DicomDestination) -> Proof:
    """How the node will know that a peer has what was sent: as ``commitment`` of its settings and the peer allow.

    A peer may accept queries and then answer none, as Orthanc does for titles that it doesn't know; so one is made.

    Raises:
        DeliveryFailed: the peer can't be reached, or doesn't answer the query.
    """
    if peer.commitment:
        with associated(name, peer, [(StorageCommitmentPushModel, (ImplicitVRLittleEndian,)), ECHO_CONTEXT]) as opened:
            if accepts(opened, StorageCommitmentPushModel):
                return Proof.COMMITMENT
    nobodys = ObjectIdentity(
        transfer_syntax_uid=ImplicitVRLittleEndian,
        sop_class_uid=EncapsulatedPDFStorage,
        sop_instance_uid=NOBODYS_UID,
        series_uid=NOBODYS_UID,
        study_uid=NOBODYS_UID,
    )
    return Proof.STATUS if found_by_query([nobodys], name, peer) is None else Proof.QUERY
