"""Sections of the settings that stand alone: notices, operators of others, uploads; and a node's folders."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

_Text = Annotated[str, Meta(min_length=1)]
_Seconds = Annotated[float, Meta(gt=0, le=86400)]
_Port = Annotated[int, Meta(ge=1, le=65535)]


INCOMING, RUNS = "incoming", "runs"
"""The folders of a node in which series lie, each by its arrival's id, and runs, each by its job's."""

SET_ASIDE = "unknown"
"""The folder of a node for what lies in those and is in no row; beside it nothing is ever removed."""

UPLOADS = "uploads"
"""The folder of a node in which uploads lie: of their jobs alone, people chose the series."""


class MailSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Notices by mail: ``to`` these addresses, from ``sender``, over the SMTP server ``host``."""

    host: _Text
    port: _Port = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password: str = ""
    sender: _Text
    to: Annotated[tuple[_Text, ...], Meta(min_length=1, description="one address or more")]


class NoticeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Notices by webhook and by mail: of jobs that ``faulted``, and of findings at or over a threshold (0: of none).

    ``url`` gets a POST for each, empty: nobody does; ``secret`` signs it.
    """

    url: Annotated[str, Meta(pattern=r"^(https?://[^\s/].*)?$", description="an address as https://HOST/PATH")] = ""
    secret: str = ""
    faulted: bool = True
    lesion_percent: Annotated[float, Meta(ge=0, le=100)] = 0.0
    covid_probability: Annotated[float, Meta(ge=0, le=1)] = 0.0
    timeout_s: _Seconds = 10.0
    mail: MailSettings | None = None


class EngineChoice(StrEnum):
    """What runs the container images of others: ``auto`` is Podman where it is at hand, else Docker."""

    AUTO = "auto"
    PODMAN = "podman"
    DOCKER = "docker"
    NONE = "none"


class OperatorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a definition's operators of others run, each for ``time_s`` at most, and writing ``output_gb`` at most.

    In a container ``tmp_gb`` may lie in its ``/tmp``; it has a network only if ``networked`` names its image, with its
    tag. ``trusted`` are definition files whose commands may be started as processes of this machine where no engine
    runs containers; none is, unless it is named here.
    """

    engine: EngineChoice = EngineChoice.AUTO
    trusted: tuple[_Text, ...] = ()
    time_s: _Seconds = 3600.0
    output_gb: Annotated[float, Meta(gt=0)] = 20.0
    tmp_gb: Annotated[float, Meta(gt=0)] = 1.0
    networked: tuple[_Text, ...] = ()


class UploadSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Files that come by the worklist page: ``gb`` of them at a time, 0: none.

    What is begun, and has nothing come for ``abandoned_h`` hours, is removed.
    """

    gb: Annotated[float, Meta(ge=0)] = 20.0
    abandoned_h: Annotated[float, Meta(gt=0, le=8784)] = 48.0
