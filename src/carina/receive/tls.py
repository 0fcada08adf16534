"""TLS for the node's listeners, DICOM and web alike."""

from __future__ import annotations

import ssl

from carina.certificates import BadTlsFile, TlsFiles, server_context
from carina.errors import BadConfig
from carina.web_settings import TlsSettings


def listener_files(name: str, settings: TlsSettings) -> TlsFiles:
    """The files of a listener, ``dicom`` or ``web``."""
    own = {"certificate": settings.certificate, "key": settings.key}
    return TlsFiles(table=(name, "tls"), trusted=settings.trusted, **own)


def tls_context(files: TlsFiles, *, needs_certificate: bool = True) -> ssl.SSLContext:
    """The context of a listener (``server_context``).

    Raises:
        BadConfig: a file can't be used.
    """
    try:
        return server_context(files, needs_certificate=needs_certificate)
    except BadTlsFile as error:
        raise BadConfig("tls.files", f"{error}.") from error
