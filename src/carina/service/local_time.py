"""Times as pages show them: by the clock of the machine that serves them."""

from __future__ import annotations

from datetime import UTC, datetime


def local_text(moment: datetime) -> str:
    """A time to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def minute_text(moment: datetime) -> str:
    """The same to the minute, for tables."""
    return local_text(moment)[:16]


def zone_text() -> str:
    """The zone that times are shown in, as it is now: its name and its distance from UTC."""
    now = datetime.now(UTC).astimezone()
    name, offset = now.strftime("%Z"), now.strftime("%z")
    return name if name == "UTC" else f"{name}, UTC{offset[:3]}:{offset[3:5]}"
