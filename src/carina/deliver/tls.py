"""TLS towards the peers of the settings, which notes what it failed of."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from carina.certificates import BadTlsFile, TlsFiles, client_context
from carina.config import DicomwebDestination, Peer
from carina.deliver.receipt import unreachable
from carina.deliver.tls_trouble import EndedAfterHandshake, PeerAsked, sentence, tls_trouble


def peer_files(name: str, peer: Peer) -> TlsFiles:
    """The files of a destination of the settings."""
    table, prefix = ("destinations", name), "tls_"
    if isinstance(peer, DicomwebDestination):
        return TlsFiles(table=table, prefix=prefix, trusted=peer.tls_trusted)
    own = {"certificate": peer.tls_certificate, "key": peer.tls_key}
    return TlsFiles(table=table, prefix=prefix, trusted=peer.tls_trusted, **own)


class PeerTls:
    """TLS of one connection; of what it fails between being connected and the first word of an answer is noted."""

    def __init__(self, asked: PeerAsked) -> None:
        """Read the files.

        Raises:
            BadTlsFile: one can't be used.
        """
        self.asked = asked
        self.failed: OSError | None = None
        self._is_answered = False
        self.context = client_context(asked.files)
        self.context.sslsocket_class = _noting(self)

    def trouble(self) -> tuple[str, str] | None:
        """What was seen of the peer, and what to do; None where nothing was noted."""
        return tls_trouble(self.failed, self.asked, datetime.now(UTC)) if self.failed else None

    @contextmanager
    def noted(self, *kinds: type[OSError], is_agreed: bool = True) -> Iterator[None]:
        """Note what is raised, unless the peer has answered before: then it is nothing of TLS."""
        try:
            yield
        except kinds as error:
            if not self._is_answered and self.failed is None:
                is_end = is_agreed and not isinstance(error, ssl.SSLError)
                self.failed = EndedAfterHandshake() if is_end else error
            raise

    def heard(self, count: int) -> None:
        """So many bytes of an answer came; none: the peer has ended the connection."""
        self._is_answered |= count > 0
        if not self._is_answered and self.failed is None:
            self.failed = EndedAfterHandshake()


def peer_tls(name: str, where: str, peer: Peer) -> PeerTls | None:
    """TLS to a destination, ``where`` it is; None where its settings want none.

    Raises:
        DeliveryFailed: a file can't be used.
    """
    wanted = _asked(name, peer)
    try:
        return PeerTls(wanted) if wanted else None
    except BadTlsFile as error:
        found = error.finding
        raise unreachable(name, where, f"{error.key[-1]}: {found.words}", sentence(found.remedy)) from error


def _asked(name: str, peer: Peer) -> PeerAsked | None:
    files = peer_files(name, peer)
    if isinstance(peer, DicomwebDestination):
        url = urlsplit(peer.url)
        is_wanted = url.scheme == "https"
        return PeerAsked(files=files, name=url.hostname or "", name_key="url", can_show=False) if is_wanted else None
    return PeerAsked(files=files, name=peer.tls_name or peer.host, name_key="tls_name") if files.trusted else None


def _noting(tls: PeerTls) -> type[ssl.SSLSocket]:
    """Sockets that tell ``tls`` what they meet: who uses them here keeps an error to itself."""

    class Noting(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - as the standard library has it
            with tls.noted(OSError, is_agreed=False):
                super().do_handshake(block)

        def send(self, data: Any, flags: int = 0) -> int:
            try:
                return super().send(data, flags)
            except (ssl.SSLError, ConnectionError):
                with suppress(OSError):  # why the peer ended it may have come already, and be read still
                    self.recv(1)
                raise

        def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
            with tls.noted(ssl.SSLError, ConnectionError):
                came = super().recv(buflen, flags)
            tls.heard(len(came))
            return came

        def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
            with tls.noted(ssl.SSLError, ConnectionError):
                count = super().recv_into(buffer, nbytes, flags)
            tls.heard(count)
            return count

    return Noting
