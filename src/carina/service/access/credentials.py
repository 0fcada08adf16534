"""Secrets: passwords as Argon2id hashes, everything drawn by chance as SHA-256. No secret itself is kept."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import unicodedata
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from carina.service.problems import NotUnderstood

SHORTEST, LONGEST = 12, 256
"""Characters of a password. A long one is the only demand on it (NIST SP 800-63B, 5.1.1.2)."""

_HASHER = PasswordHasher()
"""RFC 9106's second choice: 64 MiB, three passes, four lanes."""


@cache
def _nobodys() -> str:
    """Checked where there is no such account, so that the time of an answer doesn't tell."""
    return _HASHER.hash(secrets.token_urlsafe(16))


def check_password(password: str) -> None:
    """See that a password may be chosen.

    Raises:
        NotUnderstood: it is too short or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        seen = (
            f"the password is too {'short' if len(password) < SHORTEST else 'long'}: it has {len(password)} characters"
        )
        words = f"{seen}; expected at least {SHORTEST} and at most {LONGEST}. A sentence is easy to keep."
        raise NotUnderstood("access.password", words)


def hash_password(password: str) -> str:
    """A password as it is kept.

    Raises:
        NotUnderstood: it is too short or too long.
    """
    check_password(password)
    return _HASHER.hash(_normal(password))


def is_password(password: str, kept: str) -> bool:
    """Whether a password is the one that was kept; an empty ``kept`` takes as long, and is never right."""
    try:
        return _HASHER.verify(kept or _nobodys(), _normal(password[: 4 * LONGEST])) and bool(kept)
    except (VerificationError, InvalidHashError):
        return False


def _normal(password: str) -> str:
    """The same letters from any keyboard."""
    return unicodedata.normalize("NFKC", password)


def new_secret() -> str:
    """256 bits by chance, as text."""
    return secrets.token_urlsafe(32)


def digest_of(secret: str) -> str:
    """A drawn secret as it is kept: nobody can guess 256 bits, so a fast hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def form_token_of(secret: str) -> str:
    """What the forms of a session carry; it can't be turned back into the cookie."""
    return hmac.new(secret.encode(), b"carina form", "sha256").hexdigest()


def is_same(given: str, expected: str) -> bool:
    """Whether two secrets are equal, in a time that doesn't tell where they differ."""
    return hmac.compare_digest(given.encode(), expected.encode())
