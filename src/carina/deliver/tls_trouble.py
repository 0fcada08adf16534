"""What is said of a connection by TLS that came to nothing: what was seen of the peer, and what to do."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime

from carina.certificates import FilePart, TlsFiles, lapsed

WHEN = {9: "is not valid yet", 10: "has expired"}
OTHER_NAME = frozenset({62, 64})
UNSIGNED = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's codes of a certificate that is not taken (openssl-verification-options, DIAGNOSTICS)."""

SEE_LOG = "See its log"

ABOUT_OURS = {
    "SSLV3_ALERT_BAD_CERTIFICATE": ("does not take our certificate", SEE_LOG),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": ("says that our certificate has expired", "Renew tls_certificate"),
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": ("does not take our certificate", SEE_LOG),
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": ("does not take our certificate for its kind or use", SEE_LOG),
    "TLSV1_ALERT_ACCESS_DENIED": ("does not let our certificate in", SEE_LOG),
    "TLSV1_ALERT_DECRYPT_ERROR": ("can't verify our certificate", SEE_LOG),
    "TLSV1_ALERT_UNKNOWN_CA": ("does not trust our certificate (tls_certificate)", "Give it what signs that"),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": ("does not take our certificate", SEE_LOG),
}
"""Alerts on the certificate that we show; where we show none, one is asked for."""

OTHER_PORT = "Give the port on which it speaks TLS"

SAID_OF_PEER = {
    "NO_PROTOCOLS_AVAILABLE": ("speaks no TLS 1.2 or later", "Update it"),
    "TLSV1_ALERT_PROTOCOL_VERSION": ("speaks no TLS 1.2 or later", "Update it"),
    "UNSUPPORTED_PROTOCOL": ("speaks no TLS 1.2 or later", "Update it"),
    "WRONG_VERSION_NUMBER": ("speaks no TLS on this port", OTHER_PORT),
}

HANDSHAKE_FAILURE = "SSLV3_ALERT_HANDSHAKE_FAILURE"
"""How TLS 1.2 tells of a missing certificate, as of ciphers that are not shared."""


class EndedAfterHandshake(ConnectionError):
    """The peer ended the connection without an answer, once TLS was agreed on."""


@dataclass(frozen=True, kw_only=True)
class PeerAsked:
    """As whom a peer was spoken to: ``name`` has to be in its certificate, and is in the settings under ``name_key``.

    ``can_show`` says whether the settings can name a certificate of ours for it.
    """

    files: TlsFiles
    name: str
    name_key: str
    can_show: bool = True


def tls_trouble(error: OSError, asked: PeerAsked, now: datetime) -> tuple[str, str]:
    """What was seen of the peer, as a clause, and what to do, as a sentence without its dot."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _not_taken(error, asked, now)
    reason = str(getattr(error, "reason", None) or "")  # of what is no error of TLS: none
    if reason in ABOUT_OURS:
        return _ours_not_taken(reason, asked, now)
    if said := SAID_OF_PEER.get(reason):
        return f"it {said[0]}", said[1]
    return _ended(error, asked) or (f"the TLS handshake failed ({reason.replace('_', ' ').lower() or error})", SEE_LOG)


def _ended(error: OSError, asked: PeerAsked) -> tuple[str, str] | None:
    """What is said of a peer that did not go on; None where it said why."""
    if isinstance(error, TimeoutError):
        return "it did not answer the TLS handshake in time", "See whether it speaks TLS on this port"
    if isinstance(error, EndedAfterHandshake):
        return "it ended the connection once TLS was agreed on", _may_ask(asked)
    if getattr(error, "reason", "") == HANDSHAKE_FAILURE:
        return "it ended the TLS handshake (handshake failure)", _may_ask(asked)
    if isinstance(error, ConnectionError | ssl.SSLEOFError):
        return "it ended the TLS handshake without a word, as a peer without TLS does", OTHER_PORT
    return None


def _not_taken(error: ssl.SSLCertVerificationError, asked: PeerAsked, now: datetime) -> tuple[str, str]:
    """Why its certificate is not taken."""
    code, trusted = error.verify_code, asked.files.trusted
    if code in OTHER_NAME:
        return f"its certificate is not for {asked.name}", f"Set {asked.name_key} to a name that is in it"
    if code in UNSIGNED:
        who = f"nothing in {trusted} signs" if trusted else "nobody whom this machine trusts signs"
        return f"{who} its certificate", "Put what does into tls_trusted"
    if code in WHEN:
        new = "It needs a new one, or this machine's clock is wrong"
        return _outdated("trusted", asked, now) or (f"its certificate {WHEN[code]}", new)
    return f"its certificate is not taken ({error.verify_message})", "It needs another"


def _ours_not_taken(reason: str, asked: PeerAsked, now: datetime) -> tuple[str, str]:
    """Why it does not take what we show, if we do."""
    if not asked.files.certificate:
        return "it asks for a certificate of ours", _showing(asked)
    said = ABOUT_OURS[reason]
    return _outdated("certificate", asked, now) or (f"it {said[0]}", said[1])


def _outdated(part: FilePart, asked: PeerAsked, now: datetime) -> tuple[str, str] | None:
    """What is said of a file of ours whose time it is not."""
    found = next((one for one in lapsed(asked.files, now) if one.part == part), None)
    return (f"{asked.files.key_of(part)[-1]}: {found.words}", sentence(found.remedy)) if found else None


def _may_ask(asked: PeerAsked) -> str:
    return SEE_LOG if asked.files.certificate else f"It may ask for a certificate of ours. {_showing(asked)}"


def _showing(asked: PeerAsked) -> str:
    if asked.can_show:
        return "Set tls_certificate and tls_key"
    return "A dicomweb destination shows none: have the server take user and password, or a token"


def sentence(clause: str) -> str:
    """A clause as a sentence begins."""
    return f"{clause[:1].upper()}{clause[1:]}"
