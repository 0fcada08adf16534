"""What is said of a TLS handshake that fails: each of OpenSSL's reasons is a kind, so that the next one is told too."""

from __future__ import annotations

import ssl

from carina.receive.strangers import HTTP_BEGINS, Wrong

ASKS_FOR_ASSOCIATION = b"\x01\x00"
"""How an A-ASSOCIATE-RQ PDU begins (PS3.8 9.3.2)."""

PEEKED = 4
"""Bytes of a connection's beginning that tell what it speaks."""

SAID = {
    "HTTP_REQUEST": "it spoke HTTP, and this port takes DICOM by TLS (the web's is web.port): closed",
    "NO_SHARED_CIPHER": "it offers no cipher that OpenSSL's default allows: update the sender, or its cipher list",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate, and dicom.tls.trusted asks for one: give it one",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not take our certificate (dicom.tls.certificate): see the sender's log",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that our certificate (dicom.tls.certificate) has expired: renew it",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not take our certificate (dicom.tls.certificate): see the sender's log",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it ended the handshake: its versions and ciphers are not ours (TLS 1.2 or later)",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it does not take TLS 1.2 or later, which this port asks for: update the sender",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust our certificate (dicom.tls.certificate): give the sender its issuer's",
    "UNEXPECTED_EOF_WHILE_READING": "it ended within the TLS handshake",
    "UNSUPPORTED_PROTOCOL": "it offers no TLS 1.2 or later, which this port asks for: update the sender",
}
"""What is said of OpenSSL's reasons that have a remedy, or a plain word."""

DATED = {
    9: "the sender needs one that is valid already, or a clock is wrong: the sender's, or this machine's",
    10: "the sender needs a new one (or what signs it, in dicom.tls.trusted, has expired)",
}
"""What to do by OpenSSL's code of a certificate whose time it is not (openssl-verification-options, DIAGNOSTICS)."""


def wrong_in_handshake(error: OSError, begins: bytes, first_s: float) -> Wrong:
    """What is wrong with a connection that began so, and whose handshake failed, for which it had ``first_s``."""
    if isinstance(error, TimeoutError):
        return Wrong(kind="tls slow", words=f"TLS was not agreed on within {first_s:g} s: closed")
    if not isinstance(error, ssl.SSLError):
        return Wrong(kind=f"failed {error.errno}", words=f"it failed ({error.strerror or type(error).__name__})")
    if begins.startswith(ASKS_FOR_ASSOCIATION):
        words = "it asked for an association without TLS, and this port takes TLS alone (dicom.tls): closed"
        return Wrong(kind="tls none", words=words)
    if begins in HTTP_BEGINS:
        return Wrong(kind="tls HTTP_REQUEST", words=SAID["HTTP_REQUEST"])
    reason = error.reason or type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = DATED.get(error.verify_code, "dicom.tls.trusted has to hold what signs it")
        words = f"its certificate is not taken ({error.verify_message}): {advice}"
        return Wrong(kind=f"tls {reason} {error.verify_code}", words=words)
    plain = f"its TLS handshake failed ({reason.replace('_', ' ').lower()})"
    return Wrong(kind=f"tls {reason}", words=SAID.get(reason, plain))
