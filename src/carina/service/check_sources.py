"""What of a source doesn't fit together: its pipelines, where its results go, whom it asks, what it watches."""

from __future__ import annotations

import ipaddress
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import combinations
from typing import assert_never

from carina.config import (
    AnySource,
    Destination,
    DicomDestination,
    DicomSource,
    DicomwebDestination,
    FolderDestination,
    FolderSource,
    Peer,
    Settings,
)
from carina.deliver.routes import SENDER
from carina.service.web_address import LOOPBACK_NAMES, is_address, split_address, usual_port
from carina.toml import Mistake


def source_mistakes(settings: Settings) -> Iterator[Mistake]:
    """Every mistake of the sources, and of the names that they give."""
    if SENDER in settings.destinations:
        words = "is what a source's `destinations` call whoever sent the series; give this one another name"
        yield _mistake(f"destinations/{SENDER}", words)
    known = f"known: {', '.join(settings.destinations) or 'none'}"
    for name, source in settings.sources.items():
        for destination in source.destinations:
            if destination not in (*settings.destinations, SENDER):
                yield _mistake(f"sources/{name}/destinations", f"no destination is called {destination!r}; {known}")
        yield from _one_source(name, source)
        yield from _named_twice(f"sources/{name}/pipelines", source.pipelines, os.path.realpath)
        yield from _named_twice(f"sources/{name}/destinations", source.destinations)
        yield from _sent_twice(name, source, settings)
        yield from _peers_of(name, source, settings)


def _named_twice(key: str, names: Sequence[str], what: Callable[[str], str] = str) -> Iterator[Mistake]:
    """Names of a list that stand for the same; ``what`` gives what a name stands for."""
    counts = Counter(map(what, names))
    for name in dict.fromkeys(names):
        if (count := counts.pop(what(name), 1)) > 1:
            yield _mistake(key, f"{name!r} is in it {count} times; expected once")


def _sent_twice(name: str, source: AnySource, settings: Settings) -> Iterator[Mistake]:
    """Two destinations of a source that are one PACS, and both take what the other takes.

    Whoever sent a series may be any of kind dicom: results go back to each name that it has. Who put it into a folder
    is none (``sender_mistakes``).
    """
    may_call = _has_callers(source)
    known = [
        key
        for key, one in settings.destinations.items()
        if key in source.destinations or (may_call and isinstance(one, DicomDestination))
    ]
    for first, second in combinations(known, 2):
        one, other = settings.destinations[first], settings.destinations[second]
        if _who(one) == _who(other) and (not one.takes or not other.takes or {*one.takes} & {*other.takes}):
            words = f"{first} and {second} are both {_who(one)}: what both take is sent there twice"
            yield _mistake(f"sources/{name}/destinations", f"{words}; keep one, or part their `takes`")


def _has_callers(source: AnySource) -> bool:
    """Whether results of a source go back to who calls."""
    return SENDER in source.destinations and not isinstance(source, FolderSource)


def sender_mistakes(settings: Settings) -> Iterator[Mistake]:
    """Where results can't go back to whoever sent a series: then none are sent back, and the rest of the node works."""
    for name, source in settings.sources.items():
        if SENDER not in source.destinations:
            continue
        if isinstance(source, FolderSource):
            words = f"what is put into a watched folder has no AE title that called, so that nothing goes to `{SENDER}`"
            yield _mistake(f"sources/{name}/destinations", f"{words}; name the destination instead")
        else:
            yield from _senders_alike(name, settings)


def _senders_alike(name: str, settings: Settings) -> Iterator[Mistake]:
    """Two destinations that results may go back to, and that neither an AE title nor an address tells apart."""
    peers = [(key, one) for key, one in settings.destinations.items() if isinstance(one, DicomDestination)]
    for (first, one), (second, other) in combinations(peers, 2):
        title = one.ae_title.strip()
        is_alike = (title, _host(one.host)) == (other.ae_title.strip(), _host(other.host))
        if is_alike and one.port != other.port:
            words = f"{first} and {second} are both {title} at one host: which of them is `{SENDER}` can't be told"
            remedy = "nothing is sent back to either; give one another ae_title, or name one instead"
            yield _mistake(f"sources/{name}/destinations", f"{words}, and {remedy}")


def _who(destination: Destination) -> str:
    """Where a destination is, in words that are the same for two names of one."""
    match destination:
        case DicomDestination():
            return f"{destination.ae_title.strip()}@{_host(destination.host)}:{destination.port}"
        case DicomwebDestination():
            return _url(destination.url)
        case FolderDestination():
            return os.path.realpath(destination.path)
        case _:
            assert_never(destination)


def _host(host: str) -> str:
    """A host in the words that all its spellings share, as far as they tell without asking for its address."""
    plain = host.strip("[]").rstrip(".").lower()
    with suppress(ValueError):
        plain = str(ipaddress.ip_address(plain))
    return "localhost" if plain in LOOPBACK_NAMES else plain


def _url(url: str) -> str:
    """As ``_host``, of a service root."""
    if not is_address(url):
        return url
    found = split_address(url)
    return f"{found.scheme}://{_host(found.hostname or '')}:{usual_port(found)}{found.path.rstrip('/')}"


def _peers_of(name: str, source: AnySource, settings: Settings) -> Iterator[Mistake]:
    """What is wrong with the peers that are asked about a series, and from which earlier scans are fetched."""
    peers = [key for key, one in settings.destinations.items() if isinstance(one, Peer)]
    wrong = {key: peer for key, peer in (("ask", source.ask), ("earlier", source.earlier)) if peer not in ("", *peers)}
    for key, peer in wrong.items():
        words = f"no destination of kind dicom or dicomweb is called {peer!r}; known: {', '.join(peers) or 'none'}"
        yield _mistake(f"sources/{name}/{key}", words)
    found = settings.destinations.get(source.earlier)
    if isinstance(found, Peer) and source.earlier_by == "move" and not _can_move(source, found):
        words = "is move: this needs a source and a destination of kind dicom; say get"
        yield _mistake(f"sources/{name}/earlier_by", words)


def _can_move(source: AnySource, peer: Destination | None) -> bool:
    return isinstance(source, DicomSource) and isinstance(peer, DicomDestination)


def _one_source(name: str, source: AnySource) -> Iterator[Mistake]:
    for network in source.addresses if isinstance(source, DicomSource) else ():
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            yield _mistake(f"sources/{name}/addresses", f"{network!r} is no address or network; expected 192.0.2.0/24")


def _mistake(key: str, words: str) -> Mistake:
    return Mistake(key=tuple(key.split("/")), words=words)
