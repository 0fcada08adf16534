"""What stands against TLS while the node runs: files that nobody can use or takes now, and those that end soon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from carina.certificates import Finding, TlsFiles, Validity, ending, file_findings, held_still, lapsed
from carina.service.check_tls import tls_places
from carina.service.node import RunningNode
from carina.service.source_files import FileVersion, version_of

_NOT_SHOWN = "TLS to a destination that is not shown to you does not work; whoever sees the whole node is told which"


@dataclass(frozen=True, kw_only=True)
class TlsState:
    """One sentence each: what does not work now, and what soon won't or not after the next start."""

    troubles: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def tls_state(node: RunningNode) -> TlsState:
    """Look at the files of every listener and destination, and at the certificates that the listeners hold.

    Of destinations that the node as it is seen doesn't show, only that there is something is said.
    """
    now = node.now()
    troubles: dict[str, None] = {}
    warnings: list[str] = []
    for files in tls_places(node.every_setting):
        found = _looked_at(files, node.held_certificates.get(files.table[0]), now)
        if files.table[0] != "destinations" or files.table[1] in node.settings.destinations:
            troubles |= dict.fromkeys(found.troubles)
            warnings += found.warnings
        elif found.troubles:
            troubles[_NOT_SHOWN] = None
    return TlsState(troubles=tuple(troubles), warnings=tuple(warnings))


def _looked_at(files: TlsFiles, held: Validity | None, now: datetime) -> TlsState:
    """As of one table. Files of a listener that can't be used are of its next start: it has read them."""
    is_listener = files.table[0] != "destinations"
    broken, over = _broken(files, _versions(files)), list(lapsed(files, now))
    kept = held_still(files, held, now) if held else None
    is_over = held is not None and not held.begins <= now <= held.ends
    old = [kept] if kept else []
    troubles = [*over, *([] if is_listener else broken), *(old if is_over else [])]
    warnings = [*ending(files, now), *(broken if is_listener else []), *([] if is_over else old)]
    return TlsState(troubles=tuple(_said(files, troubles)), warnings=tuple(_said(files, warnings)))


@lru_cache(maxsize=256)
def _broken(files: TlsFiles, _: tuple[FileVersion, ...]) -> tuple[Finding, ...]:
    return tuple(file_findings(files))


def _said(files: TlsFiles, findings: list[Finding]) -> Iterator[str]:
    """Sentences with names of files, and not where they lie: strangers may ask too."""
    paths = sorted({files.certificate, files.key, files.trusted} - {""}, key=len, reverse=True)
    for found in findings:
        text = f"{'.'.join(files.key_of(found.part))}: {found}"
        for path in paths:
            text = text.replace(path, Path(path).name)
        yield text


def _versions(files: TlsFiles) -> tuple[FileVersion, ...]:
    return tuple(version_of(Path(one)) for one in (files.certificate, files.key, files.trusted) if one)
