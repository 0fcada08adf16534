"""Replies to C-STORE that are encoded here: byte for byte pynetdicom's, and its own where there is more to say."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_ECHO, C_STORE

from carina.receive.replies import QuickReplies

_ANY_UID = st.lists(st.integers(1, 99999), min_size=2, max_size=10).map(lambda parts: ".".join(map(str, parts)))


def reply(of_class: str = "1.2.3", uid: str = "1.2.3.4", message: int = 7, status: int = 0) -> C_STORE:
    made = C_STORE()
    made.MessageID = made.MessageIDBeingRespondedTo = message
    made.AffectedSOPClassUID, made.AffectedSOPInstanceUID, made.Status = of_class, uid, status
    return made


def sent(provider: type[DIMSEServiceProvider], message: object, largest_pdu: int = 16384) -> list[object]:
    """The fragments that are sent for a message."""
    fragments: list[object] = []
    dul = SimpleNamespace(send_pdu=lambda pdu: fragments.extend(pdu.presentation_data_value_list))
    ends = SimpleNamespace(maximum_length=largest_pdu)
    association = SimpleNamespace(
        dul=dul, is_requestor=False, requestor=ends, acceptor=ends, get_handlers=lambda _: [], _handlers={}
    )
    provider(association).send_msg(message, 3)
    return fragments


@settings(deadline=None)  # no test measures time
@given(of_class=_ANY_UID, uid=_ANY_UID, message=st.integers(0, 65535), status=st.sampled_from([0, 0xA700, 0xC211]))
def test_replies_are_pynetdicoms_own(of_class: str, uid: str, message: int, status: int) -> None:
    one = reply(of_class, uid, message, status)
    assert sent(QuickReplies, one) == sent(DIMSEServiceProvider, one)


@pytest.mark.parametrize("largest_pdu", [0, 64, 512])
def test_replies_fit_into_the_peers_pdus(largest_pdu: int) -> None:
    assert sent(QuickReplies, reply(), largest_pdu) == sent(DIMSEServiceProvider, reply(), largest_pdu)


def test_what_says_more_is_left_to_pynetdicom() -> None:
    told = reply(status=0xC211)
    told.ErrorComment = "no"
    echo = C_ECHO()
    echo.MessageID = echo.MessageIDBeingRespondedTo = 1
    echo.Status = 0
    for message in (told, echo):
        assert sent(QuickReplies, message) == sent(DIMSEServiceProvider, message)
        assert sent(QuickReplies, message)
