"""PEM files of TLS, wherever settings name them: each is looked at by itself, and what is wrong with it has its key."""

from __future__ import annotations

import base64
import re
import shlex
import ssl
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, NoReturn

from carina.toml import Key

FilePart = Literal["certificate", "key", "trusted"]

SOON = timedelta(days=30)
"""What ends within so long is told."""

EXPECTED: dict[FilePart, str] = {
    "certificate": "a certificate in PEM (-----BEGIN CERTIFICATE-----)",
    "key": "a private key in PEM (-----BEGIN PRIVATE KEY-----)",
    "trusted": "certificates in PEM (-----BEGIN CERTIFICATE-----)",
}

NOT_A_PAIR = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"})
TOO_WEAK = frozenset({"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"})
"""OpenSSL's reasons not to load a certificate with its key."""

_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----([^-]*)-----END")
_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----")
_ENCRYPTED = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: 4,ENCRYPTED")

_SEQUENCE = b"\x30"
"""What a file in DER begins with (X.690 8.9.1)."""


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """The files of one table of the settings, empty where none is named: a certificate, its key, who signs the peers'.

    ``prefix`` and a file's part make its key in the table. Without a key's file, the certificate's holds it as well.
    """

    table: Key
    prefix: str = ""
    certificate: str = ""
    key: str = ""
    trusted: str = ""

    def key_of(self, part: FilePart) -> Key:
        """The settings key of a part."""
        return (*self.table, f"{self.prefix}{part}")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found out about a file, as a clause, and what to do."""

    part: FilePart
    words: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.words}; {self.remedy}"


class BadTlsFile(ValueError):
    """A file can't be used: under which key of the settings it is, why, and what to do."""

    def __init__(self, key: Key, finding: Finding) -> None:
        self.key, self.finding = key, finding
        super().__init__(f"{'.'.join(key)}: {finding}")


@dataclass(frozen=True, kw_only=True)
class Validity:
    """When a certificate begins and ends to be valid, in UTC."""

    begins: datetime
    ends: datetime


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 or later to a server whose certificate ``trusted`` signs, without that: whom this machine trusts.

    Raises:
        BadTlsFile: a file can't be used.
    """
    with _looked_at(files):
        context = ssl.create_default_context(cafile=files.trusted or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if files.certificate:
            context.load_cert_chain(files.certificate, files.key or None, password=_refuse)
    return context


def server_context(files: TlsFiles, *, needs_certificate: bool) -> ssl.SSLContext:
    """TLS 1.2 or later for a listener; with ``trusted``, peers must show a certificate that these sign.

    Where one is not needed, a peer may show none, but no other.

    Raises:
        BadTlsFile: a file can't be used.
    """
    with _looked_at(files):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(files.certificate, files.key or None, password=_refuse)
        if files.trusted:
            context.load_verify_locations(files.trusted)
            context.verify_mode = ssl.CERT_REQUIRED if needs_certificate else ssl.CERT_OPTIONAL
    return context


@contextmanager
def _looked_at(files: TlsFiles) -> Iterator[None]:
    """Where OpenSSL does not load files, look which of them it is; nobody is ever asked for a passphrase."""
    try:
        yield
    except (OSError, ValueError) as error:
        unknown = Finding(part="certificate", words=f"the files can't be used ({error})", remedy="expected PEM")
        found = next(file_findings(files), unknown)
        raise BadTlsFile(files.key_of(found.part), found) from error


def file_findings(files: TlsFiles) -> Iterator[Finding]:
    """What is wrong with each file, and with a certificate and a key that are each right."""
    named: dict[FilePart, str] = {"certificate": files.certificate, "key": files.key, "trusted": files.trusted}
    wrong = {part: found for part, file in named.items() if file and (found := _alone(part, file))}
    yield from wrong.values()
    if files.key and not files.certificate:
        yield Finding(part="certificate", words="is empty, and a key is given", remedy="name the certificate as well")
    elif files.certificate and not {"certificate", "key"} & wrong.keys():
        together = _together(files.certificate, files.key or files.certificate)
        if together:
            yield together


def lapsed(files: TlsFiles, now: datetime) -> Iterator[Finding]:
    """Files that nobody takes now: our certificate has expired or is not valid yet, or all that are trusted are so."""
    own, trusted = _dates(files.certificate), _dates(files.trusted)
    again = "" if files.prefix else ", and start the node again"
    if own and (words := _outside(own[0], now)):
        yield Finding(part="certificate", words=f"{files.certificate!r} {words}", remedy=f"put a new one there{again}")
    if trusted and all(_outside(one, now) for one in trusted):
        words = f"{files.trusted!r} {_outside(max(trusted, key=_end), now)}{_of_many(trusted)}"
        yield Finding(part="trusted", words=words, remedy=f"put there what signs the peers' now{again}")


def ending(files: TlsFiles, now: datetime) -> Iterator[Finding]:
    """Files that nobody will take soon, and what has lapsed of the chain beside our certificate."""
    own, trusted = _dates(files.certificate), _dates(files.trusted)
    for number, one in enumerate(own):
        words = _ends_soon(one, now) or (_outside(one, now) if number else "")
        which = f", its certificate {number + 1} of {len(own)}," if number else ""
        if words:
            words = f"{files.certificate!r}{which} {words}"
            yield Finding(part="certificate", words=words, remedy="have a new one made")
    last = max((one for one in trusted if not _outside(one, now)), key=_end, default=None)
    if last and (words := _ends_soon(last, now)):
        words = f"{files.trusted!r} {words}{_of_many(trusted)}"
        yield Finding(part="trusted", words=words, remedy="add what will sign the peers'")


def own_validity(files: TlsFiles) -> Validity | None:
    """The dates of our own certificate; None where its file can't be used."""
    return next(iter(_dates(files.certificate)), None)


def held_still(files: TlsFiles, held: Validity, now: datetime) -> Finding | None:
    """Of a certificate in use since before its file was replaced, with the dates ``held``: nobody takes it, or soon."""
    words = _outside(held, now) or _ends_soon(held, now)
    if not words or held == own_validity(files):
        return None
    words = f"the certificate in use, read from {files.certificate!r} before that was changed, {words}"
    return Finding(part="certificate", words=words, remedy="start the node again, which takes the new one then")


def validity(certificate: bytes) -> Validity:
    """The dates in a certificate in DER.

    Raises:
        ValueError: it is no certificate.
    """
    from cryptography import x509

    try:
        read = x509.load_der_x509_certificate(certificate)
    except x509.InvalidVersion as error:
        raise ValueError(str(error)) from error
    return Validity(begins=read.not_valid_before_utc, ends=read.not_valid_after_utc)


def _alone(part: FilePart, file: str) -> Finding | None:
    """What is wrong with a file by itself."""
    try:
        if not stat.S_ISREG(Path(file).stat().st_mode):
            return Finding(part=part, words=f"{file!r} is no file", remedy=f"expected {EXPECTED[part]}")
        data = Path(file).read_bytes()
    except FileNotFoundError:
        return Finding(part=part, words=f"{file!r} is not there", remedy=f"expected {EXPECTED[part]}")
    except (OSError, ValueError) as error:
        words = f"{file!r} can't be read ({getattr(error, 'strerror', None) or error})"
        is_hidden = isinstance(error, PermissionError)
        remedy = "let the node's user read it" if is_hidden else f"expected {EXPECTED[part]}"
        return Finding(part=part, words=words, remedy=remedy)
    if part == "key" and _ENCRYPTED.search(data):
        return _encrypted(file)
    if part == "key":
        return None if _KEY.search(data) else _lacks("key", file, data)
    return _bad_certificates(part, file, data)


def _bad_certificates(part: FilePart, file: str, data: bytes) -> Finding | None:
    if not _CERTIFICATE.search(data):
        return _lacks(part, file, data)
    try:
        for one in _certificates(data):
            validity(one)
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=one)
    except (OSError, ValueError):
        return Finding(part=part, words=f"{file!r} holds a damaged certificate", remedy=f"expected {EXPECTED[part]}")
    return None


def _lacks(part: FilePart, file: str, data: bytes) -> Finding:
    """A file without what it should hold, and what it holds in its place."""
    wanted = "private key" if part == "key" else "certificate"
    other = _CERTIFICATE if part == "key" else _KEY
    words, remedy = f"holds no {wanted}", f"expected {EXPECTED[part]}"
    if other.search(data):
        words = f"holds a {'certificate' if part == 'key' else 'private key'} and no {wanted}"
    if data.startswith(_SEQUENCE):
        words, remedy = "is binary (DER or PKCS #12)", f"{remedy}, as openssl x509, pkey or pkcs12 writes it"
    return Finding(part=part, words=f"{file!r} {words}", remedy=remedy)


def _encrypted(file: str) -> Finding:
    how = f"as openssl pkey -in {shlex.quote(file)} -out NEW.key writes it"
    words = f"the key in {file!r} is encrypted"
    return Finding(part="key", words=words, remedy=f"expected one without a passphrase, {how}")


class _Asked(ValueError):
    """OpenSSL would have a passphrase."""


def _refuse() -> NoReturn:
    raise _Asked


def _together(certificate: str, key: str) -> Finding | None:
    """What is wrong with a certificate and a key that are each in their files."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_refuse)
    except _Asked:
        return _encrypted(key)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or ""
        if reason in NOT_A_PAIR:
            words = f"the key in {key!r} does not belong to the certificate in {certificate!r}"
            return Finding(part="key", words=words, remedy="expected the one that it was made with")
        if reason in TOO_WEAK:
            words = f"{certificate!r} is too weak for OpenSSL ({reason.replace('_', ' ').lower()})"
            return Finding(part="certificate", words=words, remedy="have a stronger one made")
        return _alone("key", key) or Finding(
            part="key", words=f"{key!r} holds a damaged private key", remedy=f"expected {EXPECTED['key']}"
        )
    return None


def _certificates(data: bytes) -> Iterator[bytes]:
    """Each certificate of PEM in DER."""
    return map(base64.b64decode, _CERTIFICATE.findall(data))


def _dates(file: str) -> list[Validity]:
    """The dates of a file's certificates, of none where it can't be used."""
    try:
        return [validity(one) for one in _certificates(Path(file).read_bytes())] if Path(file).is_file() else []
    except (OSError, ValueError):
        return []


def _end(dates: Validity) -> datetime:
    return dates.ends


def _of_many(trusted: Sequence[Validity]) -> str:
    return f", the last of {len(trusted)}" if len(trusted) > 1 else ""


def _outside(dates: Validity, now: datetime) -> str:
    """Why a certificate is not valid now, if so."""
    if now > dates.ends:
        return f"expired on {_day(dates.ends)}"
    return f"is not valid before {_day(dates.begins)}" if now < dates.begins else ""


def _ends_soon(dates: Validity, now: datetime) -> str:
    is_soon = now <= dates.ends < now + SOON
    return f"expires on {_day(dates.ends)}" if is_soon else ""


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
