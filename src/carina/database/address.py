"""The address of a node's database, judged without a connection: what no server ever takes is a mistake in it.

What stands in an address is not repeated in what is said of it: a password that was written without escapes may begin
or end anywhere. Only names and values of options are, where no password is among them.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from carina.errors import BadConfig, one_line

BAD_ADDRESS = "database.address"
"""The code of what is wrong with an address."""

_SQLITE, _POSTGRESQL = "sqlite", "postgresql+psycopg"

_EXPECTED = "postgresql+psycopg://USER:PASSWORD@HOST:PORT/NAME or sqlite:///FILE"
"""How an address is written, of either kind."""

_ADDRESS = re.compile(r"(?P<kind>[^:]*)://(?P<who>[^:/]*(?::[^@]*)?@)?(?P<rest>.*)", re.DOTALL)
"""Where SQLAlchemy ends user and password."""

_PLACE = re.compile(
    r"(?:\[(?P<ipv6>[^\s\[\]/?]+)\]|(?P<host>[^\s\[\]/:?]*))(?P<port>:[^/?]*)?(?:/(?P<name>[^?]*))?(?:\?(?P<words>.*))?"
)

SECRET_WORDS = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})
"""Options of PostgreSQL's that nobody may see."""

_UTF8 = ("utf8", "unicode")
"""What PostgreSQL calls UTF-8, without punctuation."""

_WRITABLE = ("any", "read-write", "primary")
"""Values of ``target_session_attrs`` of who writes."""

_WHOLE_NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
"""Options of which PostgreSQL's library sees only once it is connected that they are no numbers."""

_NOWHERE = {"host": "/dev/null", "hostaddr": "", "port": "5432"}
"""A socket in no folder: there the library judges all other options and goes no further."""

_SOCKET = ".s.PGSQL."
"""In what the library says, in whatever language, once nothing was left to judge but a socket."""


def check_address(address: str) -> None:
    """See that an address can be one of a database.

    Raises:
        BadConfig: it can't; no part of it is told that may be a password.
    """
    if words := address_mistake(address):
        raise BadConfig(BAD_ADDRESS, f"node.database: {words}.")


def address_mistake(address: str, *, lasts: bool = False) -> str:
    """What is wrong with an address by itself, empty: nothing; it ``lasts`` where memory is no place."""
    found = _ADDRESS.fullmatch(address)
    if found is None or found["kind"] not in (_SQLITE, _POSTGRESQL):
        return f"expected {_EXPECTED}"
    if found["kind"] == _SQLITE:
        return _mistake_of_file((found["who"] or "") + found["rest"], lasts=lasts)
    if not address.isprintable() or address != address.rstrip():
        return "it ends with a space, or holds a line break or what else can't be printed"
    if not _is_text(address):
        return "a % in it begins no character: a percent sign is written %25"
    return _mistake_of_server(address, found["who"] or "", found["rest"])


def file_address(file: Path) -> str:
    """The address of a file of SQLite's, whatever its name and those of its folders."""
    plain = f"sqlite:///{file}"
    if "?" not in plain and make_url(plain).database == str(file):
        return plain
    return plain.replace("%", "%25").replace("?", "%3F")


def file_of(address: str) -> Path | None:
    """The file of SQLite's that an address is of; None of a server's and of memory."""
    name = make_url(address).database if address.startswith("sqlite:///") else ""
    return Path(name) if name else None


def shown_address(address: str) -> str:
    """Kind, host and name of an address that has no mistake: nothing that a password is in."""
    found = _ADDRESS.fullmatch(address)
    if found is None or found["kind"] == _SQLITE:
        return address
    return f"{found['kind']}://{found['rest'].partition('?')[0]}"


def has_password(address: str) -> bool:
    """Whether an address shows a password to who reads it; one that has a mistake may."""
    found = _ADDRESS.fullmatch(address)
    if found is None or found["kind"] == _SQLITE:
        return False
    who, rest = found["who"] or "", found["rest"]
    return ":" in who or "@" in rest or any(f"{word}=" in rest for word in SECRET_WORDS)


def connection_words(address: str) -> dict[str, str]:
    """The options that PostgreSQL's library is given for an address without mistakes."""
    url = make_url(address)
    _, options = url.get_dialect()().create_connect_args(url)
    return {name: str(value) for name, value in options.items()}


def _is_text(address: str) -> bool:
    try:
        return "\0" not in unquote(address, errors="strict")
    except UnicodeDecodeError:
        return False


def _mistake_of_file(place: str, *, lasts: bool) -> str:
    if place and not place.startswith("/"):
        return "expected sqlite:///FILE, with three slashes, and four before a path from the root"
    if "\0" in unquote(place):
        return "expected sqlite:///FILE, and no file has a name with the character 0"
    if "?" in place:
        return "expected sqlite:///FILE without options behind a ?; one in the name of a file is written %3F"
    if lasts and place.removeprefix("/") in ("", ":memory:"):
        return "expected sqlite:///FILE: without a file nothing is kept"
    return ""


def _mistake_of_server(address: str, who: str, rest: str) -> str:
    if "?" in who or "@" in rest:
        return (
            "an @ or a ? is where none can be: in user, password, name and options @ is written %40, ? %3F, / %2F, "
            "& %26, % %25"
        )
    place = _PLACE.fullmatch(rest)
    if place is None:
        words = "its host is none: expected a name or an address, IPv6 in brackets, then :PORT and /NAME"
        return f"{words}; spaces and brackets in a password come before an @, as all of it does"
    if place["port"] and not _is_port(place["port"][1:]):
        words = "its port is no number from 1 to 65535; expected postgresql+psycopg://USER:PASSWORD@HOST:PORT/NAME"
        return f"{words}, where @ in a password is written %40 and / %2F"
    return _mistake_of_words(place["words"] or "") or _mistake_of_options(address)


def _mistake_of_words(words: str) -> str:
    """What is wrong with what is behind the ``?``, by its form."""
    pairs = [one.partition("=") for one in words.split("&") if one]
    if not all(name and value for name, _, value in pairs):
        return "expected OPTION=VALUE&OPTION=VALUE behind the ?; & in a value is written %26"
    often = [name for name, count in Counter(unquote(name) for name, _, _ in pairs).items() if count > 1]
    return "an option behind the ? is given twice" if set(often) - {"host"} else ""


def _mistake_of_options(address: str) -> str:
    try:
        from psycopg.pq import Conninfo
    except ImportError:  # the driver is not installed, which is told where it is needed
        return ""
    try:
        options = connection_words(address)
    except (ArgumentError, TypeError, ValueError):
        return "its hosts and ports don't fit together: expected host=HOST:PORT for each behind the ?"
    known = {one.keyword.decode(): (one.val or b"").decode(errors="replace") for one in Conninfo.get_defaults()}
    if unknown := [name for name in options if name not in known]:
        which = unknown[0] if _may_be_told(unknown[0], options) else "an option behind the ?"
        return f"{which} is none of PostgreSQL's options; & in a value is written %26"
    return _mistake_of_places(known | options) or _mistake_of_values(options)


def _may_be_told(name: str, options: Mapping[str, str]) -> bool:
    """Whether what was taken for the name of an option is no part of a password with an ``&`` in it."""
    return name.isidentifier() and not options.keys() & SECRET_WORDS


def _mistake_of_places(options: Mapping[str, str]) -> str:
    """What is wrong with hosts and ports, which may be several, parted by commas."""
    hosts, addresses, ports = (options[name].split(",") for name in ("host", "hostaddr", "port"))
    if not all(map(_is_host, hosts)) or not all(map(_is_address, filter(None, addresses))):
        return "its host is none: expected the name or the address of a machine, or the folder of a socket"
    if not all(map(_is_port, filter(None, ports))):
        return "its port is no number from 1 to 65535"
    counts = {len(given) for given in (hosts, addresses) if any(given)} or {1}
    return "" if len(counts) == 1 and {len(ports)} <= counts | {1} else "it has not as many ports as hosts"


def _mistake_of_values(options: Mapping[str, str]) -> str:
    """What PostgreSQL's library has against the values of options; it does not say what a secret is."""
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import PGconn

    if re.sub(r"[\W_]", "", options.get("client_encoding", _UTF8[0])).lower() not in _UTF8:
        return "client_encoding is another than UTF8, in which the node writes: leave it out"
    for name in _WHOLE_NUMBERS:
        if not re.fullmatch(r"-?[0-9]{1,9}", options.get(name, "0")):
            return f"{name} is no whole number"
    tried = PGconn.connect_start(make_conninfo("", **{**options, **_NOWHERE}).encode())
    try:
        said = one_line(tried.error_message.decode(errors="replace")).strip()
    finally:
        tried.finish()
    if _SOCKET not in said:
        return f"PostgreSQL's library does not take it ({said})"
    if options.get("target_session_attrs", _WRITABLE[0]) not in _WRITABLE:
        return f"the node writes to its database: expected target_session_attrs={'|'.join(_WRITABLE)}, or none"
    return ""


def _is_port(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,5}", text)) and 1 <= int(text) <= 65_535


def _is_host(text: str) -> bool:
    """Whether a name can be looked up, or is the folder of a socket (an abstract one begins with an @)."""
    if text.startswith(("/", "@")):
        return True
    if re.search(r"[\s@/?\[\]]", text):
        return False
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return ":" not in text or _is_address(text)


def _is_address(text: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(text))
    return False
