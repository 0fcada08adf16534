"""What is wrong with secrets in settings: those that are missing, empty or too short, and those that contradict."""

from __future__ import annotations

from collections.abc import Iterator

from carina.config import SHORTEST_KEY, DicomwebDestination, Settings
from carina.toml import Key, Mistake


def secret_mistakes(settings: Settings) -> Iterator[Mistake]:
    """Every mistake in a key that keeps a secret, or in one that needs it."""
    yield from _own_keys(settings)
    for name, one in settings.destinations.items():
        if isinstance(one, DicomwebDestination):
            yield from _credentials(("destinations", name), one)
    mail = settings.notices.mail
    if mail:
        yield from _log_in(("notices", "mail"), mail.user, mail.password)


def _own_keys(settings: Settings) -> Iterator[Mistake]:
    """Keys that the node's operator makes up: who can guess one can sign as the node, or find patients again."""
    notices = settings.notices
    if notices.url and not notices.secret:
        words = f"is empty, and notices are signed with it; give one of {SHORTEST_KEY} characters or more"
        yield Mistake(key=("notices", "secret"), words=words)
    own: dict[Key, str] = {("notices", "secret"): notices.secret, ("deidentify", "key"): settings.deidentify.key}
    for key, secret in own.items():
        if secret and len(secret.strip()) < SHORTEST_KEY:
            words = f"has {len(secret.strip())} characters, which can be guessed; give one of {SHORTEST_KEY} or more"
            yield Mistake(key=key, words=f"{words}: openssl rand -hex 32")


def _credentials(key: Key, server: DicomwebDestination) -> Iterator[Mistake]:
    if "@" in server.url.split("/")[2]:
        words = "has a user in it; give user and password by their own keys"
        yield Mistake(key=(*key, "url"), words=words)
    if server.token and server.user:
        words = "is there beside user, and a server takes one; leave one out"
        yield Mistake(key=(*key, "token"), words=words)
    yield from _log_in(key, server.user, server.password)
    if server.tls_trusted and server.url.startswith("http:"):
        words = "is there and url is http://, no TLS; expected https://"
        yield Mistake(key=(*key, "tls_trusted"), words=words)


def _log_in(key: Key, user: str, password: str) -> Iterator[Mistake]:
    if password and not user:
        yield Mistake(key=(*key, "user"), words="is empty and password is not; give both")
    if user and not password:
        yield Mistake(key=(*key, "password"), words="is empty and user is not; give both")
