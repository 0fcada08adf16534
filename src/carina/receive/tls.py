"""TLS for the node's listeners, DICOM and web alike."""

from __future__ import annotations

import ssl

from carina.errors import BadConfig
from carina.web_settings import TlsSettings


def tls_context(settings: TlsSettings, *, needs_certificate: bool = True) -> ssl.SSLContext:
    """TLS 1.2 or later for a listener; with ``trusted``, peers must show a certificate that these sign.

    Where one is not needed, a peer may show none, but no other.

    Raises:
        BadConfig: a file can't be read, or is no certificate or key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.certificate, settings.key)
        if settings.trusted:
            context.load_verify_locations(settings.trusted)
            context.verify_mode = ssl.CERT_REQUIRED if needs_certificate else ssl.CERT_OPTIONAL
    except (OSError, ValueError) as error:
        words = f"tls: {settings.certificate}, {settings.key} or {settings.trusted or 'no trusted file'}"
        raise BadConfig("tls.files", f"{words}: can't be used ({error}); expected PEM files.") from error
    return context
