"""C-FIND at IMAGE level: which of some objects a DICOM node has (PS3.4 annex C, study root)."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from carina.config import DicomDestination
from carina.deliver.answers import CLASS_NOT_SUPPORTED, SUCCESS, status_words
from carina.deliver.association import NO_CONTEXT, accepts, address, associated
from carina.deliver.identity import ObjectIdentity
from carina.deliver.store_scu import ECHO_CONTEXT, NO_ANSWER
from carina.errors import DeliveryFailed

FIND = StudyRootQueryRetrieveInformationModelFind
PENDING = {0xFF00, 0xFF01}

KNOWS_NO_QUERY = {CLASS_NOT_SUPPORTED, 0x0211, 0xA900}
"""Statuses of a peer that takes no query like ours, whenever it is asked (PS3.4 table C.4-1)."""


def found_by_query(objects: Sequence[ObjectIdentity], name: str, peer: DicomDestination) -> frozenset[str] | None:
    """The SOP Instance UIDs of those that the peer has; None where it answers no queries.

    Raises:
        DeliveryFailed: the peer can't be reached, or the query failed this time.
    """
    try:
        with associated(name, peer, [(FIND, (ImplicitVRLittleEndian,)), ECHO_CONTEXT]) as association:
            if not accepts(association, FIND):
                return None
            answers = [_has(association, one, f"{name} ({address(peer)})") for one in objects]
    except DeliveryFailed as error:
        if error.code == NO_CONTEXT:
            return None
        raise
    if None in answers:
        return None
    return frozenset(one.sop_instance_uid for one, has in zip(objects, answers, strict=True) if has)


def _has(association: Association, wanted: ObjectIdentity, where: str) -> bool | None:
    found = False
    status = None
    try:
        for response, identifier in association.send_c_find(_identifier(wanted), FIND):
            status = response.get("Status")
            if status in PENDING and identifier is not None:  # a peer that ignores a key answers with more than it
                found = found or identifier.get("SOPInstanceUID") == wanted.sop_instance_uid
    except RuntimeError as error:  # the association has ended
        raise _failed(where, str(error)) from error
    if status in KNOWS_NO_QUERY:
        return None
    if status != SUCCESS:
        raise _failed(where, NO_ANSWER if status is None else status_words(int(status)))
    return found


def _identifier(wanted: ObjectIdentity) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "IMAGE"
    identifier.StudyInstanceUID = wanted.study_uid
    identifier.SeriesInstanceUID = wanted.series_uid
    identifier.SOPInstanceUID = wanted.sop_instance_uid
    return identifier


def _failed(where: str, reason: str) -> DeliveryFailed:
    return DeliveryFailed("delivery.query", f"{where} did not answer what it has: {reason}. It will be asked again.")
