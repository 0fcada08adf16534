"""Addresses of web servers, taken apart, and which of them are this machine's own."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def split_address(url: str) -> SplitResult:
    """An address that names a host, and a port that there may be or none.

    Raises:
        ValueError: it doesn't; in words.
    """
    found = urlsplit(url)
    if not found.hostname:
        raise ValueError("no host is named")
    if found.port == 0 or found.netloc.endswith(":"):
        raise ValueError("the port is empty or 0")
    return found


def is_address(url: str) -> bool:
    """Whether an address can be taken apart."""
    try:
        split_address(url)
    except ValueError:
        return False
    return True


def usual_port(found: SplitResult) -> int | None:
    """The port of an address, that of its scheme where none is named."""
    return found.port or {"http": 80, "https": 443}.get(found.scheme)


def is_loopback(host: str) -> bool:
    """Whether a listener's address is this machine's own, which nobody else reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK_NAMES
