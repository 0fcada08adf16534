"""Settings of the web listener: where, over TLS or not, and who may log in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

_Text = Annotated[str, Meta(min_length=1)]
_Seconds = Annotated[float, Meta(gt=0, le=86400)]
_Port = Annotated[int, Meta(ge=1, le=65535)]
_WebAddress = Annotated[str, Meta(pattern=r"^https?://[^\s/]", description="an address as https://HOST/PATH")]

PROJECT_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What a project may be called: it stands in addresses."""

_NAME_WORDS = "up to 64 letters, digits, dots, lines and dashes, the first a letter or digit"
ProjectName = Annotated[str, Meta(pattern=PROJECT_NAME, description=_NAME_WORDS)]

DEFAULT_PROJECT = "default"
"""Where series go whose source names no other."""


class TlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """PEM files of a listener; with ``trusted``, peers must show a certificate that these sign."""

    certificate: _Text
    key: _Text
    trusted: str = ""


class OidcProject(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who has which role in one project, as ``[web.oidc]`` says it of the whole node."""

    admin: str = ""
    operator: str = ""
    reader: str = ""


class OidcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Log-in by OpenID Connect: ``issuer`` is the provider's address, under which its configuration is found.

    ``claim`` of the ID token lists what a person is in; who is in ``admin``, ``operator`` or ``reader`` has that role,
    the highest of them; who is in one of ``projects`` only has its role there. Nobody else may log in. An empty one
    gives its role to nobody.
    """

    issuer: _WebAddress
    client_id: _Text
    client_secret: str = ""
    claim: _Text = "groups"
    admin: str = ""
    operator: str = ""
    reader: str = ""
    projects: Mapping[ProjectName, OidcProject] = {}
    timeout_s: _Seconds = 10.0


class WebSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The web listener: pages, REST and DICOMweb.

    At most ``connections`` are open at once. ``names`` are those by which it may be called beside ``host``.
    ``public_url`` is its address at a proxy that passes requests on, with the ``Host`` they were made to; who asked is
    believed to be whom the proxies at the addresses ``proxies`` name (``X-Forwarded-For``), and nobody else. With
    ``login`` nothing is shown to whom it doesn't know: a log-in ends ``idle_s`` after its last request, and
    ``session_s`` after it began.
    """

    host: _Text = "127.0.0.1"
    port: _Port = 8042
    connections: Annotated[int, Meta(ge=8, le=10_000)] = 200
    names: tuple[_Text, ...] = ()
    public_url: Annotated[
        str, Meta(pattern=r"^(https?://[^\s/?#@]+/?)?$", description="https://HOST without a path")
    ] = ""
    proxies: tuple[_Text, ...] = ()
    login: bool = False
    idle_s: _Seconds = 1800.0
    session_s: _Seconds = 43200.0
    tls: TlsSettings | None = None
    oidc: OidcSettings | None = None
