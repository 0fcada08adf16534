"""Times on pages, and the zone that they are said to be in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from carina.service.local_time import local_text, minute_text, zone_text

MOMENT = datetime(2026, 1, 31, 23, 30, 5, tzinfo=UTC)


@pytest.fixture
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "shown", "named"),
    [
        ("UTC", "2026-01-31 23:30:05", "UTC"),
        ("IST-5:30", "2026-02-01 05:00:05", "IST, UTC+05:30"),
        ("XST8", "2026-01-31 15:30:05", "XST, UTC-08:00"),
    ],
    indirect=["zone"],
)
@pytest.mark.usefixtures("zone")
def test_times_are_those_of_the_machine_and_their_zone_is_named(shown: str, named: str) -> None:
    assert (local_text(MOMENT), minute_text(MOMENT), zone_text()) == (shown, shown[:16], named)
