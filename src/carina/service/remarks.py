"""What is no mistake in settings, and is said all the same: who can read or send what."""

from __future__ import annotations

from collections.abc import Iterator

from carina.config import DicomSource, DicomwebDestination, Settings
from carina.service.web_address import is_loopback, split_address


def settings_remarks(settings: Settings) -> Iterator[str]:
    """Remarks by key."""
    yield from _shown_to_others(settings)
    yield from _open_to_all(settings)


def _shown_to_others(settings: Settings) -> Iterator[str]:
    web = {name: one for name, one in settings.destinations.items() if isinstance(one, DicomwebDestination)}
    for name, one in web.items():
        found = split_address(one.url)
        if found.scheme == "http" and (one.user or one.token) and not is_loopback(found.hostname or ""):
            yield f"destinations.{name}.url: {one.url} is plain HTTP: what is shown to log in can be read on its way"


def _open_to_all(settings: Settings) -> Iterator[str]:
    """Sources to which everybody may send who reaches the DICOM listener, where that asks for no certificate."""
    dicom = settings.dicom
    if is_loopback(dicom.host) or (dicom.tls and dicom.tls.trusted):
        return
    for name, one in settings.sources.items():
        if isinstance(one, DicomSource) and not one.callers and not one.addresses:
            who = f"empty, so whoever reaches {dicom.host}:{dicom.port} may send"
            yield f"sources.{name}.callers: {who}; name AE titles, or networks (addresses), or ask for certificates"
