"""Which destination a caller is: by the AE title that it calls itself, and by its address where several have that."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping

from carina.config import Destination, DicomDestination


def destinations_of_caller(
    destinations: Mapping[str, Destination], title: str, address: str
) -> tuple[tuple[str, ...], str]:
    """The names of the destinations that are who calls; where there are none, why, as a clause.

    One peer may be there under several names. A title that one peer alone has is enough: behind a gateway it has
    another address than ours for it.
    """
    titled = _with_title(destinations, title)
    if not titled:
        return (), "no destination has this ae_title"
    is_one = len({(one.host, one.port) for one in titled.values()}) == 1
    here = titled if is_one else _at_address(titled, address)
    if not here:
        return (), f"{_listed(titled)} have this ae_title, and none of them the address {address or '(none)'}"
    if len({one.port for one in here.values()}) > 1:
        return (), f"{_listed(here)} have this ae_title at one address: which of them it is can't be told"
    return tuple(here), ""


def _with_title(destinations: Mapping[str, Destination], title: str) -> dict[str, DicomDestination]:
    peers = {name: one for name, one in destinations.items() if isinstance(one, DicomDestination)}
    return {name: one for name, one in peers.items() if one.ae_title.strip() == title}


def _at_address(peers: Mapping[str, DicomDestination], address: str) -> dict[str, DicomDestination]:
    return {name: one for name, one in peers.items() if _plain(address) in _addresses(one.host)}


def _addresses(host: str) -> set[str]:
    """The addresses of a host; none where nobody knows it."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None)
    except (OSError, UnicodeError):
        return set()
    return {_plain(str(place[0])) for *_, place in found}


def _plain(address: str) -> str:
    """An address as it is written, one that is mapped into IPv6 as what it is."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(getattr(found, "ipv4_mapped", None) or found)


def _listed(names: Mapping[str, object]) -> str:
    return " and ".join(names)
