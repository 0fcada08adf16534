"""QIDO-RS at instance level: which of some objects a DICOMweb server has (PS3.18 section 10.6)."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from carina.config import DicomwebDestination
from carina.deliver.answers import code_words
from carina.deliver.dicomweb import WebAnswer, exchange, first_value, found_items
from carina.deliver.identity import ObjectIdentity
from carina.errors import DeliveryFailed

SOP_INSTANCE_UID = "00080018"

NO_SERVICE = {HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}


def found_by_qido(objects: Sequence[ObjectIdentity], name: str, server: DicomwebDestination) -> frozenset[str] | None:
    """The SOP Instance UIDs of those that the server has; None where it answers no queries.

    Raises:
        DeliveryFailed: the server can't be reached, or the query failed this time.
    """
    found = set()
    for one in objects:
        path = f"/studies/{one.study_uid}/series/{one.series_uid}/instances?SOPInstanceUID={one.sop_instance_uid}"
        response = exchange(name, server, path)
        if response.code in NO_SERVICE or (response.code == HTTPStatus.NOT_FOUND and _is_no_service(name, server)):
            return None
        if response.is_fine and one.sop_instance_uid in _uids(found_items(name, server, response)):
            found.add(one.sop_instance_uid)
        elif not response.is_fine and response.code != HTTPStatus.NOT_FOUND:
            raise _failed(name, server, response)
    return frozenset(found)


def _is_no_service(name: str, server: DicomwebDestination) -> bool:
    """Whether 404 means that the server takes no queries, and not that it doesn't know the study."""
    return not exchange(name, server, "/studies?limit=1").is_fine


def _uids(content: Any) -> set[str]:
    return {str(first_value(item, SOP_INSTANCE_UID)) for item in content} if isinstance(content, list) else set()


def _failed(name: str, server: DicomwebDestination, response: WebAnswer) -> DeliveryFailed:
    seen = f"{code_words(response.code)}"
    words = f"{name} ({server.url}) did not answer what it has: {seen}. It will be asked again."
    return DeliveryFailed("delivery.query", words)
