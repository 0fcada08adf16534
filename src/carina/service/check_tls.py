"""Files of TLS in the settings: what is wrong with them, and what has expired of them or soon will."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from carina.certificates import Finding, TlsFiles, ending, file_findings, lapsed
from carina.config import DicomDestination, DicomwebDestination, Settings
from carina.deliver.tls import peer_files
from carina.receive.tls import listener_files
from carina.toml import Mistake


def tls_mistakes(settings: Settings) -> Iterator[Mistake]:
    """Every file that can't be used, whatever the day; and names of some where others are missing."""
    yield from listening_mistakes(settings)
    yield from unusable_mistakes(settings)


def listening_mistakes(settings: Settings) -> Iterator[Mistake]:
    """Files of a listener that can't be used, whatever the day; and names of some where others are missing."""
    for files in tls_places(settings):
        if files.prefix and not files.trusted and (files.certificate or files.key):
            words = "is empty, so no TLS is spoken, and a certificate is given; name who signs the peer's"
            yield Mistake(key=files.key_of("trusted"), words=words)
        for found in file_findings(files):
            if not _may_pass(files, found):
                yield Mistake(key=files.key_of(found.part), words=str(found))


def unusable_mistakes(settings: Settings) -> Iterator[Mistake]:
    """Files of a destination that can't be used now: what is for it waits, and they are read anew each time."""
    for files in tls_places(settings):
        for found in file_findings(files):
            if _may_pass(files, found):
                yield Mistake(key=files.key_of(found.part), words=str(found))


def _may_pass(files: TlsFiles, found: Finding) -> bool:
    """Whether it is of a file that is named, and of a destination: a listener reads its own at the start alone."""
    return bool(files.prefix and getattr(files, found.part))


def lapsed_mistakes(settings: Settings, now: datetime) -> Iterator[Mistake]:
    """Certificates that nobody takes now. A node starts with them all the same: what needs none of them works."""
    for files in tls_places(settings):
        for found in lapsed(files, now):
            yield Mistake(key=files.key_of(found.part), words=str(found))


def ending_remarks(settings: Settings, now: datetime) -> Iterator[str]:
    """Certificates that nobody will take soon."""
    for files in tls_places(settings):
        for found in ending(files, now):
            yield f"{'.'.join(files.key_of(found.part))}: {found}"


def date_remarks(settings: Settings, now: datetime) -> Iterator[str]:
    """What a running node says of its certificates' dates."""
    yield from (f"{'.'.join(one.key)}: {one.words}" for one in lapsed_mistakes(settings, now))
    yield from ending_remarks(settings, now)


def tls_places(settings: Settings) -> Iterator[TlsFiles]:
    """The files of each listener and destination that names some."""
    for name, listener in (("dicom", settings.dicom.tls), ("web", settings.web.tls)):
        if listener:
            yield listener_files(name, listener)
    for name, peer in settings.destinations.items():
        if isinstance(peer, DicomDestination | DicomwebDestination):
            files = peer_files(name, peer)
            if files.certificate or files.key or files.trusted:
                yield files
