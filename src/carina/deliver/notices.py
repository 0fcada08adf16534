"""Notices by webhook and mail: a job that faulted, findings over a threshold. Signed, tried again, without a patient.

A notice holds the job's number, its pipeline, the code of its error or the figure that is over: no UID, no name, no
path. Whoever may look finds the rest in the node. Each is a row in the same database, entered once for each ending of a
job: one that faulted and was run again ends twice.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Row, case, insert, select, update

from carina import RESEARCH_ONLY
from carina.database import JOB, NOTICE, Outages, OwnFolder, is_due, read_only
from carina.deliver.answers import code_words
from carina.deliver.mail import Mailed, send_mail
from carina.deliver.pace import Pace
from carina.deliver.paced_http import paced_opener
from carina.errors import DeliveryFailed, LastingTrouble, one_line, reason_of
from carina.pipeline.json_text import read_json
from carina.sections import NoticeSettings

LOOK_BACK = timedelta(days=1)
"""Jobs that stopped earlier get no notice any more: when notices are switched on, the past stays silent."""

MAILED, POSTED = "mailed", "posted"
"""States of a notice that one of its two ways has taken and the other not yet: neither holds up the other."""

NOTICES_AT_ONCE = 50
MOST_ATTEMPTS = 100

_LOG = logging.getLogger(__name__)

SIGNATURE, TIMESTAMP, NOTICE_ID = "X-Carina-Signature", "X-Carina-Timestamp", "X-Carina-Notice"


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 (RFC 2104) over ``timestamp.body``, as the signature's header has it."""
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={digest.hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class Posted:
    """What came of a POST: the answer's code where there was one, and what went wrong, empty where nothing did."""

    status: int | None = None
    error: str = ""
    is_away: bool = False


_NOTHING_LEFT = Mailed()
_OF_WEBHOOK = "webhook: "


@dataclass(kw_only=True)
class Notifier:
    """Finds what is to be told and tells it; ``folder`` is the node's, ``clock`` gives the time in UTC."""

    engine: Engine
    folder: Path
    settings: NoticeSettings
    clock: Callable[[], datetime]
    pace: Pace

    def __post_init__(self) -> None:
        self._own = OwnFolder(self.folder, self.engine)
        self._ways = {way: Outages(f"notices by {way}", self.folder) for way in ("mail", "webhook")}
        self._lost = LastingTrouble()

    def round(self) -> bool:
        """Look at jobs that have ended, and post what is due; gives whether there was anything to do.

        Raises:
            FolderAway: the node's folder is not there, or not any more, which says nothing of what was found.
        """
        self._own.check()
        now = self.clock()
        with read_only(self.engine) as connection:
            ended, waiting = _ended(connection, now), _due(connection, now, self.pace)
        for job in ended:
            self._enter(job, now)
        self._tell(waiting)
        return bool(ended or waiting)

    def _enter(self, job: Row[Any], now: datetime) -> None:
        said = next(self._notices(job), None)
        values = {"job_id": job.id, "attempt": job.attempt, "body": "", "state": "silent", "created_at": now}
        if said is not None:
            body = {"id": str(uuid.uuid4()), "at": f"{now:%Y-%m-%dT%H:%M:%SZ}", "job": job.id}
            body["pipeline"] = Path(job.pipeline).name  # a definition of one's own is named by its path
            text = msgspec.json.encode(body | said | {"notice": RESEARCH_ONLY}).decode()
            values |= {"body": text, "state": "waiting"}
        with self._own.begin() as connection:
            same = (NOTICE.c.job_id == job.id) & (NOTICE.c.attempt == job.attempt)
            if connection.execute(select(NOTICE.c.id).where(same)).first() is None:
                connection.execute(insert(NOTICE).values(**values))

    def _notices(self, job: Row[Any]) -> Iterator[dict[str, Any]]:
        if job.ended == "faulted":
            if self.settings.faulted:
                yield {"kind": "faulted", "error_code": job.error_code}
            return
        over = {
            name: value
            for name, value, limit in _figures(self.folder / job.folder / "findings.json", self.settings)
            if 0 < limit <= value
        }
        if over:
            yield {"kind": "findings", "over": over}

    def _tell(self, notices: Sequence[Row[Any]]) -> None:
        """Tell by each way what it has not taken, by both at once; what one takes is noted before the other is done."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="notices by mail") as other:
            mailing = other.submit(self._mail_all, notices)
            posted = self._post_all(notices)
        mailed = mailing.result()
        now = self.clock()
        for notice in notices:
            of_post = posted.get(notice.id, Posted(status=notice.status))
            self._note(notice, now, mailed.get(notice.id, _NOTHING_LEFT), of_post)

    def _mail_all(self, notices: Sequence[Row[Any]]) -> dict[int, Mailed]:
        """By a server that is away, once in a round."""
        mailed: dict[int, Mailed] = {}
        done = _NOTHING_LEFT
        for notice in notices:
            if self.settings.mail is None or notice.state == MAILED:
                continue
            if not done.is_away:
                to, told = read_json(notice.mail_left or b"[]", list[str]), read_json(notice.body.encode())
                done = send_mail(self.settings.mail, told, self.clock(), self.settings.timeout_s, to)
                self._say("mail", one_line(f"mail: {done.later}") if done.later else "")
                self._say_lost(done.lost)
            mailed[notice.id] = done
            if done.left:
                self._change(notice, mail_left=_names(done.left))
            else:
                self._took(notice, MAILED, POSTED)
        return mailed

    def _post_all(self, notices: Sequence[Row[Any]]) -> dict[int, Posted]:
        """By a webhook that is away, once in a round."""
        posted: dict[int, Posted] = {}
        done = Posted()
        for notice in notices:
            if not self.settings.url or notice.state == POSTED:
                continue
            if not done.is_away:
                done = self._post(notice.body.encode(), str(int(self.clock().timestamp())))
                self._say("webhook", done.error)
            posted[notice.id] = done
            if not done.error:
                self._took(notice, POSTED, MAILED)
        return posted

    def _took(self, notice: Row[Any], way: str, other: str) -> None:
        """Note that one way has taken it, whatever the other does meanwhile."""
        state = case((NOTICE.c.state.in_((other, "sent")), "sent"), else_=way)
        self._change(notice, state=state)

    def _say(self, way: str, error: str) -> None:
        """Say in the log when a way begins to take no notices, and when it takes them again."""
        if error:
            self._ways[way].tell(DeliveryFailed("notice.not-taken", f"a notice was not taken ({error.rstrip('.')})."))
        else:
            self._ways[way].is_over()

    def _say_lost(self, words: str) -> None:
        """Say in the log who gets no notice, unless it was said lately; no time will change that."""
        if words and self._lost.is_news(words):
            _LOG.warning("notices by mail: %s: for good, it is not tried again (notices.mail.to).", one_line(words))

    def _state(self, *, is_mailed: bool, is_posted: bool) -> str:
        """Which of the ways that there are has taken it."""
        if is_mailed and is_posted:
            return "sent"
        if is_mailed and self.settings.mail is not None:
            return MAILED
        return POSTED if is_posted and self.settings.url else "waiting"

    def _note(self, notice: Row[Any], now: datetime, mailed: Mailed, posted: Posted) -> None:
        state = self._state(is_mailed=not mailed.left, is_posted=not posted.error)
        attempts = notice.attempts + 1
        before = notice.error.partition(_OF_WEBHOOK)[0].removesuffix("; ") if notice.state == MAILED else ""
        errors = (mailed.error or before, posted.error and f"{_OF_WEBHOOK}{posted.error}")
        values: dict[str, Any] = {"attempts": attempts, "status": posted.status, "not_before": None}
        values["error"] = "; ".join(one for one in errors if one)
        values["mail_left"] = _names(mailed.left)
        if state == "sent":
            values |= {"state": state, "sent_at": now}
        elif attempts < MOST_ATTEMPTS:
            values |= {"state": state, "not_before": now + self.pace.after(attempts)}
        else:
            values["state"] = "failed"
        self._change(notice, **values)

    def _change(self, notice: Row[Any], **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(update(NOTICE).where(NOTICE.c.id == notice.id).values(**values))

    def _post(self, body: bytes, timestamp: str) -> Posted:
        headers = {
            "Content-Type": "application/json",
            TIMESTAMP: timestamp,
            SIGNATURE: sign(self.settings.secret, timestamp, body),
            NOTICE_ID: read_json(body)["id"],
        }
        opener = paced_opener()
        try:
            request = urllib.request.Request(self.settings.url, data=body, headers=headers)
            with opener.open(request, timeout=self.settings.timeout_s) as answer:
                return Posted(status=int(answer.status))
        except urllib.error.HTTPError as error:
            with error:
                return Posted(status=error.code, error=f"answered {code_words(error.code)}")
        except (OSError, HTTPException, ValueError) as error:
            return Posted(error=_why_not_posted(error), is_away=True)


def _why_not_posted(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return reason_of(cause) if isinstance(cause, OSError) else type(cause).__name__


def _names(left: Sequence[str]) -> str:
    return msgspec.json.encode(left).decode() if left else ""


def _ended(connection: Connection, now: datetime) -> list[Row[Any]]:
    """Jobs that ended lately, and not in an attempt that was looked at."""
    same = (NOTICE.c.job_id == JOB.c.id) & (NOTICE.c.attempt == JOB.c.attempt)
    looked_at = select(NOTICE.c.id).where(same).exists()
    has_ended = (JOB.c.state == "stopped") & JOB.c.ended.in_(("faulted", "healthy")) & (JOB.c.is_prior == 0)
    wanted = select(JOB).where(has_ended, JOB.c.stopped_at > now - LOOK_BACK, ~looked_at)
    return list(connection.execute(wanted.order_by(JOB.c.id).limit(NOTICES_AT_ONCE)))


def _due(connection: Connection, now: datetime, pace: Pace) -> list[Row[Any]]:
    is_time = is_due(NOTICE.c.not_before, now, pace.longest)
    wanted = select(NOTICE).where(NOTICE.c.state.in_(("waiting", MAILED, POSTED)), is_time)
    return list(connection.execute(wanted.order_by(NOTICE.c.id).limit(NOTICES_AT_ONCE)))


class _Region(msgspec.Struct):
    region: str
    ratio_percent: float | None = None


class _Findings(msgspec.Struct):
    """What of a run's findings thresholds are set on."""

    regions: list[_Region] = []
    probabilities: dict[str, float | None] = {}


def _figures(file: Path, settings: NoticeSettings) -> Iterator[tuple[str, float, float]]:
    """Name, value and threshold of each figure that the run has; a pipeline without findings has none."""
    try:
        found = read_json(file.read_bytes(), _Findings)
    except (OSError, ValueError):
        return
    percent = next((one.ratio_percent for one in found.regions if one.region == "lungs"), None)
    if percent is not None:
        yield "lesion_percent", percent, settings.lesion_percent
    probability = found.probabilities.get("COVID-19")
    if probability is not None:
        yield "covid_probability", probability, settings.covid_probability
