"""TLS towards the peers of the settings."""

from __future__ import annotations

import ssl


def peer_tls(trusted: str, certificate: str = "", key: str = "") -> ssl.SSLContext:
    """TLS 1.2 or later to a peer whose certificate the PEM file ``trusted`` signs; ``certificate`` is what we show.

    Raises:
        ValueError: a file can't be read, or is no PEM file of its kind.
    """
    try:
        context = ssl.create_default_context(cafile=trusted)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate:
            context.load_cert_chain(certificate, key or None)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(one for one in (trusted, certificate, key) if one)
        raise ValueError(f"{files} can't be used for TLS ({error.strerror or error})") from error
    return context
