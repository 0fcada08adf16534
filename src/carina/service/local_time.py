"""Times as pages show them: by the clock of the machine that serves them."""

from __future__ import annotations

from datetime import UTC, datetime


def local_text(moment: datetime) -> str:
    """A time to the second."""
    return moment.astimezone().isoformat(" ", "seconds")[: len("2026-03-04 12:00:00")]


def minute_text(moment: datetime) -> str:
    """The same to the minute, for tables."""
    return local_text(moment)[:16]


def zone_text() -> str:
    """The zone that times are shown in, as it is now: its name and its distance from UTC."""
    now = datetime.now(UTC).astimezone()
    name, offset = now.strftime("%Z"), now.strftime("%z")
    return name if name == "UTC" else f"{name}, UTC{offset[:3]}:{offset[3:5]}"


def seconds_words(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 60:
        return f"{max(seconds, 0):.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
