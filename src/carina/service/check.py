"""What is wrong with settings that are each right by themselves: names, listeners, places.

These checks are quick, and `carina serve` makes them whenever it starts.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from filelock import FileLock, Timeout

from carina.config import (
    DicomDestination,
    DicomSettings,
    DicomSource,
    DicomwebDestination,
    DicomwebSource,
    FolderDestination,
    FolderSource,
    Settings,
    named_variables,
)
from carina.database.address import address_mistake
from carina.errors import BadConfig
from carina.jobs.places import NODE_LOCK
from carina.pipeline.places import check_place
from carina.sections import INCOMING
from carina.service.check_passing import passing_mistakes
from carina.service.check_secrets import secret_mistakes
from carina.service.check_sources import source_mistakes
from carina.service.check_tls import listening_mistakes
from carina.service.web_address import is_address, is_loopback, split_address, usual_port
from carina.toml import Mistake, read_toml
from carina.web_settings import WebSettings

Listener = DicomSettings | WebSettings

"""Held while a node runs in its folder."""


def check_across(settings: Settings, *, is_running: bool = False) -> list[Mistake]:
    """Every mistake across keys that can be seen without opening a pipeline or a bundle, and what may pass by itself.

    Where the node of the settings is running, the ports that it has are its own, and are not tried.
    """
    return [*start_mistakes(settings, is_running=is_running), *passing_mistakes(settings)]


def start_mistakes(settings: Settings, *, is_running: bool = False) -> list[Mistake]:
    """Those across keys with which no node starts: what the settings say can't be meant, or it could not even listen.

    What a day without a mount or without room brings is none of them (``passing_mistakes``).
    """
    checks: tuple[Callable[[Settings], Iterator[Mistake]], ...] = (
        _database,
        source_mistakes,
        _shared_titles,
        _folders_in_circles,
        _submit_below,
        _addresses,
        _web_host,
        _listeners,
        *(() if is_running else (_ports,)),
        listening_mistakes,
        _places,
        secret_mistakes,
        _retention,
    )
    return [mistake for check in checks for mistake in check(settings)]


def as_error(
    mistakes: Iterable[Mistake], file: Path | None, environment: Mapping[str, str] = MappingProxyType({})
) -> BadConfig:
    """One error with a line for each mistake: its place in the file or the environment, its key, what is wrong."""
    read = read_toml(file, "config") if file else None
    variables = named_variables(environment)
    lines = []
    for one in mistakes:
        place = variables.get(one.key[:2]) or (read.place(one.key) if read else "settings")
        lines.append(f"{place}: {'.'.join(one.key)}: {one.words}")
    return BadConfig("config.invalid", *lines)


def is_running(settings: Settings) -> bool:
    """Whether a node runs in the folder of the settings now."""
    lock = Path(settings.node.folder) / NODE_LOCK
    try:
        if not lock.is_file():  # asking would make it
            return False
        with FileLock(lock).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OSError: the port is taken, or the host is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(256)
    except OSError:
        listener.close()
        raise
    return listener


def _database(settings: Settings) -> Iterator[Mistake]:
    """What is wrong with the database's address, whether its server is there or not."""
    if settings.node.database and (words := address_mistake(settings.node.database, lasts=True)):
        yield _mistake("node/database", words)


def _retention(settings: Settings) -> Iterator[Mistake]:
    room, least = settings.retention.free_gb, settings.node.free_gb
    if 0 < room <= least:
        words = f"{room:g} GB is not above node.free_gb ({least:g}); senders would be refused before room is made"
        yield _mistake("retention/free_gb", words)


def _shared_titles(settings: Settings) -> Iterator[Mistake]:
    titles = {name: one.ae_title.strip() for name, one in settings.sources.items() if isinstance(one, DicomSource)}
    for title, count in Counter(titles.values()).items():
        names = [name for name, given in titles.items() if given == title]
        if count > 1:
            words = f"{title!r} is also that of {', '.join(names[:-1])}; each source needs a title of its own"
            yield _mistake(f"sources/{names[-1]}/ae_title", words)
    web = [name for name, one in settings.sources.items() if isinstance(one, DicomwebSource)]
    if len(web) > 1:
        yield _mistake(f"sources/{web[-1]}/kind", f"{web[0]} is dicomweb already; a node has at most one such source")


def _folders_in_circles(settings: Settings) -> Iterator[Mistake]:
    watched = {name: _whole(one.path) for name, one in settings.sources.items() if isinstance(one, FolderSource)}
    written = {("node", "folder"): _whole(settings.node.folder)} | {
        ("destinations", name, "path"): _whole(one.path)
        for name, one in settings.destinations.items()
        if isinstance(one, FolderDestination)
    }
    for name, folder in watched.items():
        for key, place in written.items():
            if place.is_relative_to(folder):
                yield Mistake(key=key, words=f"lies in the watched folder of source {name}; choose one outside it")


def _submit_below(settings: Settings) -> Iterator[Mistake]:
    for folder in settings.node.submit_below:
        place = _whole(folder)
        if place == place.parent:
            yield _mistake("node/submit_below", f"{folder!r} allows every file of this machine; name the folders")


def _whole(path: str) -> Path:
    return Path(os.path.realpath(path))


def _web_host(settings: Settings) -> Iterator[Mistake]:
    web = settings.web
    if not is_loopback(web.host) and not (web.login and web.tls):
        yield _mistake(
            "web/host",
            f"{web.host!r} can be reached from other machines; expected login = true and [web.tls], or 127.0.0.1 (from "
            "elsewhere, use a tunnel: ssh -L)",
        )
    if web.host in ("0.0.0.0", "::") and not web.names:
        yield _mistake("web/names", "is empty; expected the names by which browsers call this node")
    yield from _proxy(web)
    if web.oidc and not web.login:
        yield _mistake("web/oidc", "is there and login is false; expected login = true, or no [web.oidc]")
    if web.oidc and find_spec("authlib") is None:
        yield _mistake("web/oidc", "needs packages that are not installed; expected: pip install 'carina-ct[oidc]'")


def _addresses(settings: Settings) -> Iterator[Mistake]:
    """Addresses of servers that can't be taken apart."""
    web = [(key, one.url) for key, one in settings.destinations.items() if isinstance(one, DicomwebDestination)]
    oidc = settings.web.oidc
    urls = {f"destinations/{key}/url": url for key, url in web} | {"notices/url": settings.notices.url}
    urls |= {"web/public_url": settings.web.public_url, "web/oidc/issuer": oidc.issuer if oidc else ""}
    for key, url in urls.items():
        try:
            if url:
                split_address(url)
        except ValueError as error:
            yield _mistake(
                key, f"{url!r} is no address of a server ({error}); expected https://NAME or https://NAME:PORT"
            )


def _proxy(web: WebSettings) -> Iterator[Mistake]:
    """What is wrong with a proxy in front: others reach the node by it, and who is believed is an address."""
    if web.public_url and is_address(web.public_url):
        yield from _public_address(web)
    for address in web.proxies:
        try:
            is_everybody = ipaddress.ip_network(address).prefixlen == 0
        except ValueError:
            yield _mistake("web/proxies", f"{address!r} is no address or network; expected 127.0.0.1 or 192.0.2.0/24")
        else:
            if is_everybody:
                words = f"{address!r} is every address: anybody could choose under which one they are known"
                yield _mistake("web/proxies", f"{words}; name proxies one by one")


def _public_address(web: WebSettings) -> Iterator[Mistake]:
    found = split_address(web.public_url)
    host = found.hostname or ""
    if host.endswith("."):
        yield _mistake("web/public_url", f"{web.public_url!r} ends in a dot, as no browser names it; leave the dot out")
    if is_loopback(host):
        return
    if not web.login:
        words = f"{web.public_url!r} lets other machines reach the node, and nobody has to log in"
        yield _mistake("web/public_url", f"{words}; expected login = true")
    if found.scheme != "https":
        words = f"{web.public_url!r} is plain HTTP, by which passwords can be read on their way"
        yield _mistake("web/public_url", f"{words}; expected https://, TLS at the proxy")


def _listeners(settings: Settings) -> Iterator[Mistake]:
    if settings.dicom.port == settings.web.port:
        yield _mistake("web/port", f"{settings.web.port} is that of the DICOM listener; choose another")
    for name, one in settings.destinations.items():
        if isinstance(one, DicomDestination) and one.port == settings.dicom.port and is_loopback(one.host):
            yield _mistake(f"destinations/{name}/port", f"{one.port} is that of this node's own DICOM listener")
        if isinstance(one, DicomwebDestination) and _is_here(one.url, settings.web.port):
            yield _mistake(f"destinations/{name}/url", f"{one.url!r} is this node itself; expected another server")


def _is_here(url: str, port: int) -> bool:
    """Whether an address leads to a port of this machine."""
    if not is_address(url):
        return False
    found = split_address(url)
    return is_loopback(found.hostname or "") and usual_port(found) == port


def _ports(settings: Settings) -> Iterator[Mistake]:
    yield from _port("dicom", settings.dicom)
    if settings.web.port != settings.dicom.port:
        yield from _port("web", settings.web)


def _port(name: str, listener: Listener) -> Iterator[Mistake]:
    try:
        listen(listener.host, listener.port).close()
    except socket.gaierror:
        yield _mistake(
            f"{name}/host", f"{listener.host!r} is no address of this machine; expected 127.0.0.1 or 0.0.0.0"
        )
    except OSError as error:
        reason = error.strerror or error
        yield _mistake(f"{name}/port", f"can't listen on {listener.host}:{listener.port} ({reason}); choose another")


def _places(settings: Settings) -> Iterator[Mistake]:
    """Where the node itself works: without that there is none."""
    folder = Path(settings.node.folder)
    try:
        check_place(folder / INCOMING)
    except BadConfig as error:
        yield _mistake("node/folder", error.message)
    above = next((one for one in (folder, *folder.absolute().parents) if one.is_dir()), None)
    if above and not shutil.disk_usage(above).total:
        yield _mistake("node/folder", f"{above} is on a file system that keeps no files; choose a folder on a disk")


def _mistake(key: str, words: str) -> Mistake:
    return Mistake(key=tuple(key.split("/")), words=words)
