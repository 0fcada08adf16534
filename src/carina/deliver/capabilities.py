"""What a DICOM node accepts of what the sender asks it for."""

from __future__ import annotations

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.sop_class import StorageCommitmentPushModel

from carina.config import DicomDestination
from carina.deliver.association import accepts, associated
from carina.deliver.find_scu import FIND
from carina.deliver.proof import Proof
from carina.deliver.store_scu import ECHO_CONTEXT


def proof_of_node(name: str, peer: DicomDestination) -> Proof:
    """How the node will know that a peer has what was sent: as ``commitment`` of its settings and the peer allow.

    Raises:
        DeliveryFailed: the peer can't be reached.
    """
    contexts = [(one, (ImplicitVRLittleEndian,)) for one in (StorageCommitmentPushModel, FIND)]
    with associated(name, peer, [*contexts, ECHO_CONTEXT]) as association:
        if peer.commitment and accepts(association, StorageCommitmentPushModel):
            return Proof.COMMITMENT
        return Proof.QUERY if accepts(association, FIND) else Proof.STATUS
