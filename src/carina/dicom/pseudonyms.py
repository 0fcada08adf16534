"""Names, UIDs and dates in place of a patient's: always the same under one key, and without it nobody's.

They follow from the key (HMAC-SHA256, RFC 2104), so that series that come months apart stay one patient's, and no
table has to be shared. What stood for what is kept in a map beside the run.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

LONGEST_MOVE_DAYS = 3650


@dataclass(frozen=True)
class Pseudonyms:
    """What stands for one patient's identifiers; ``used`` is the map: of each replacement, kind and original.

    ``retained`` names what is kept of the instances: those that keep other things are others, and have other UIDs.
    """

    key: bytes
    patient: str
    retained: tuple[str, ...] = ()
    used: dict[str, tuple[str, str]] = field(default_factory=dict)

    def patient_id(self) -> str:
        """The patient's pseudonym, for ID and name."""
        word = base64.b32encode(self._digest("patient", self.patient)).decode()[:12]
        return self._note("patient", self.patient, f"CARINA-{word}")

    def uid(self, original: str, said: str = "") -> str:
        """A UID under 2.25 (PS3.5 B.2) in place of another of the patient's; ``said``: of what says that, and no other.

        The patient is in it: what is corrected to be another's has other UIDs, and no archive takes one for the other.
        """
        kind = " ".join(("uid", *self.retained))
        number = uuid.UUID(bytes=self._digest(kind, said, self.patient, original)[:16], version=4).int
        return self._note("uid", original, f"2.25.{number}")

    def moved(self, day: date) -> date | None:
        """A date moved by the patient's own number of days into the past; None before the calendar begins."""
        days = 1 + int.from_bytes(self._digest("move", self.patient)[:4]) % LONGEST_MOVE_DAYS
        self._note("days moved back", self.patient, str(days))
        try:
            return day - timedelta(days=days)
        except OverflowError:
            return None

    def moved_date(self, text: str) -> str:
        """A DA value moved; empty where it is none."""
        try:
            found = datetime.strptime(text, "%Y%m%d").date()
        except ValueError:
            return ""
        moved = self.moved(found)
        return f"{moved:%Y%m%d}" if moved else ""

    def _digest(self, *parts: str) -> bytes:
        return hmac.new(self.key, "\0".join(parts).encode(), hashlib.sha256).digest()

    def _note(self, kind: str, original: str, replacement: str) -> str:
        self.used[replacement] = kind, original
        return replacement
