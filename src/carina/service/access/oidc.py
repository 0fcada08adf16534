"""Log-in by OpenID Connect: the authorization code flow with PKCE (S256), state and nonce; Authlib speaks it.

OpenID Connect Core 1.0, 3.1; RFC 7636. Who may log in, and as what, is what a claim of the ID token says.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from carina.errors import BadConfig, DeliveryFailed, one_line
from carina.service.access.accounts import readable_name
from carina.service.access.credentials import new_secret
from carina.service.access.roles import IN_PROJECT, Role
from carina.service.problems import Refused
from carina.web_settings import OidcProject, OidcSettings

ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]
"""Signatures of ID tokens that are taken: none of them works with a key that we share with the provider."""

_NAMES = "preferred_username", "email", "name", "sub"
_PATIENCE_S = 600.0
_MOST_WAITING = 1000
_KNOWN_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class PendingLogIn:
    """A log-in that has gone to the provider and not come back."""

    verifier: str
    nonce: str
    to: str
    began_s: float


@dataclass(frozen=True, kw_only=True)
class Vouched:
    """Somebody whom the provider vouches for: ``subject`` is theirs for good, ``to`` where they wanted to be.

    ``roles`` are those that it gives them by project.
    """

    subject: str
    name: str
    role: Role
    to: str
    roles: Mapping[str, Role] = field(default_factory=dict)


class Provider:
    """A provider and the log-ins that are on their way to it."""

    def __init__(self, settings: OidcSettings, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock_s = settings, clock_s
        self._lock = Lock()
        self._waiting: OrderedDict[str, PendingLogIn] = OrderedDict()
        self._known: tuple[float, Mapping[str, Any]] | None = None

    def start(self, redirect_uri: str, to: str) -> tuple[str, str]:
        """The address at the provider to go to, and the state that comes back from there.

        Raises:
            DeliveryFailed: the provider does not answer, or is another one.
            BadConfig: Authlib is not installed.
        """
        attempt = PendingLogIn(verifier=new_secret() + new_secret(), nonce=new_secret(), to=to, began_s=self._clock_s())
        with _asking(self._settings.issuer):
            endpoint = self._metadata()["authorization_endpoint"]
            address, state = self._client(redirect_uri).create_authorization_url(
                endpoint, nonce=attempt.nonce, code_verifier=attempt.verifier
            )
        with self._lock:
            self._waiting[state] = attempt
            while len(self._waiting) > _MOST_WAITING:
                self._waiting.popitem(last=False)
        return address, state

    def finish(self, redirect_uri: str, state: str, answer: str) -> Vouched:
        """Who came back: ``answer`` is the whole address that the provider sent them to. Each state counts once.

        Raises:
            Refused: nobody was on their way with this state, or the provider lets them in nowhere here.
            DeliveryFailed: the provider does not answer, or what it says can't be trusted.
        """
        with self._lock:
            attempt = self._waiting.pop(state, None)
        if attempt is None or self._clock_s() - attempt.began_s > _PATIENCE_S:
            raise Refused("oidc.state", "the log-in took too long, or was not begun in this browser: begin it again.")
        with _asking(self._settings.issuer):
            claims = self._claims(redirect_uri, state, answer, attempt)
        return self._vouched(claims, attempt.to)

    def _claims(self, redirect_uri: str, state: str, answer: str, attempt: PendingLogIn) -> Mapping[str, Any]:
        """The claims of the ID token, whose signature, issuer, audience, time and nonce were checked."""
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.jwk import KeySet

        known = self._metadata()
        token = self._client(redirect_uri, state).fetch_token(
            known["token_endpoint"],
            authorization_response=answer,
            code_verifier=attempt.verifier,
            timeout=self._settings.timeout_s,
        )
        keys = KeySet.import_key_set(self._json(known["jwks_uri"]))
        signed = jwt.decode(token["id_token"], keys, algorithms=ALGORITHMS)
        wanted = {
            "iss": {"essential": True, "value": self._settings.issuer},
            "aud": {"essential": True, "value": self._settings.client_id},
            "nonce": {"essential": True, "value": attempt.nonce},
        }
        claims = CodeIDToken(
            signed.claims, signed.header, wanted, {"nonce": attempt.nonce, "client_id": self._settings.client_id}
        )
        claims.validate(leeway=60)
        found: Mapping[str, Any] = signed.claims
        return found

    def _vouched(self, claims: Mapping[str, Any], to: str) -> Vouched:
        subject = str(claims["sub"])
        role = role_of(claims, self._settings)
        if role is None:
            words = f"you are logged in there, but nothing in {self._settings.claim!r} lets you in: ask for a role."
            raise Refused("oidc.role", words)
        known, roles = f"{self._settings.issuer} {subject}", roles_given(claims, self._settings)
        return Vouched(subject=known, name=name_among(claims), role=role, to=to, roles=roles)

    def _client(self, redirect_uri: str, state: str | None = None) -> Any:
        from authlib.integrations.requests_client import OAuth2Session

        secret = self._settings.client_secret
        return OAuth2Session(
            self._settings.client_id,
            secret or None,
            token_endpoint_auth_method="client_secret_basic" if secret else "none",
            scope="openid profile email",
            redirect_uri=redirect_uri,
            state=state,
            code_challenge_method="S256",
        )

    def _metadata(self) -> Mapping[str, Any]:
        """The provider's configuration, asked for once an hour."""
        if self._known is not None and self._clock_s() - self._known[0] < _KNOWN_S:
            return self._known[1]
        known: Mapping[str, Any] = self._json(f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration")
        if known["issuer"] != self._settings.issuer:
            raise ValueError(f"it calls itself {str(known['issuer'])[:100]!r}")
        self._known = (self._clock_s(), known)
        return known

    def _json(self, address: str) -> Any:
        import requests

        answer = requests.get(address, timeout=self._settings.timeout_s)
        answer.raise_for_status()
        return answer.json()


def name_among(claims: Mapping[str, Any]) -> str:
    """What an account is to be called, by the first claim in which there is a name: its letters in lower case."""
    said = (str(claims.get(one) or "") for one in _NAMES)
    return next(filter(None, map(readable_name, said)), "somebody")


def role_of(claims: Mapping[str, Any], settings: OidcSettings) -> Role | None:
    """The highest role that a claim gives on the whole node, a member's where it gives one in a project; None: none."""
    found = _highest(_groups(claims, settings), settings)
    return found or (Role.MEMBER if roles_given(claims, settings) else None)


def roles_given(claims: Mapping[str, Any], settings: OidcSettings) -> dict[str, Role]:
    """The highest role that a claim gives in each project, of those in which it gives one."""
    groups = _groups(claims, settings)
    found = {name: _highest(groups, project) for name, project in settings.projects.items()}
    return {name: role for name, role in found.items() if role}


def _groups(claims: Mapping[str, Any], settings: OidcSettings) -> frozenset[str]:
    said = claims.get(settings.claim, ())
    return frozenset({said} if isinstance(said, str) else {one for one in said if isinstance(one, str)})


def _highest(groups: frozenset[str], of: OidcSettings | OidcProject) -> Role | None:
    given = {Role.READER: of.reader, Role.OPERATOR: of.operator, Role.ADMIN: of.admin}
    return next((role for role in reversed(IN_PROJECT) if given[role] and given[role] in groups), None)


@contextmanager
def _asking(issuer: str) -> Iterator[None]:
    """What goes wrong at or with a provider, as an error of ours."""
    try:
        from authlib.common.errors import AuthlibBaseError
        from joserfc.errors import JoseError
        from requests import RequestException
    except ImportError as error:
        words = f"web.oidc: a package is missing ({error.name}); expected: pip install 'carina-ct[oidc]'"
        raise BadConfig("oidc.missing", words) from error
    try:
        yield
    except (AuthlibBaseError, JoseError, RequestException, KeyError, TypeError, ValueError) as error:
        words = f"{issuer}: does not log anybody in ({one_line(str(error))[:200]}); begin again, or tell its makers."
        raise DeliveryFailed("oidc.provider", words) from error
