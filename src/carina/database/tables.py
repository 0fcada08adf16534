"""Every table of the node: what was accepted, what arrives together, what is to be run and to be sent, who did what.

Times are UTC (``UtcTime``); paths are relative to the node's folder. Nothing here
holds a patient's name, birth date or ID; an arrival has a digest of the ID, by which earlier scans are found, and
digests of the IDs (or else the names) in it, by which it is told from another patient's.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from carina.database.utc import UtcTime
from carina.web_settings import DEFAULT_PROJECT

SCHEMA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

LONGEST_CODE = 16
"""Characters of a code string (CS, PS3.5 6.2)."""

_UID = String(64)
_KEY = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts rows by itself only where the key is called INTEGER."""


def _partial(name: str, *columns: str, only: str) -> Index:
    """An index that holds the rows of a condition alone."""
    return Index(name, *columns, sqlite_where=text(only), postgresql_where=text(only))


ARRIVAL = Table(
    "arrival",
    SCHEMA,
    Column("id", _KEY, primary_key=True),
    Column("series_uid", _UID, nullable=False),
    Column("study_uid", _UID, nullable=False),
    Column("source", String(64), nullable=False, comment="the receiver that took it: an AE title, stow, folder"),
    Column("sender", String(128), nullable=False, comment="calling AE title and address"),
    Column("state", String(16), nullable=False, comment="as receive.store.ArrivalState has them"),
    Column("reason", Text, nullable=False, default="", comment="why it waits in quarantine"),
    Column("project", String(64), nullable=False, default=DEFAULT_PROJECT),
    Column("expected", Integer, comment="instances announced by the sender; null where nobody said"),
    Column("first_at", UtcTime, nullable=False),
    Column("last_at", UtcTime, nullable=False),
    Column("whose_sha256", String(64), nullable=False, default="", comment="alike: one patient's; empty: nobody's"),
    Column("patients", String(33), comment="digests of who is named in it, two at most; null: not known, it is older"),
    Column("studied", String(14), nullable=False, default="", comment="study's date and time; empty: not known"),
    Column("is_prior", Integer, nullable=False, default=0, comment="1: we fetched it to compare with; nobody sent it"),
    Column("is_apart", Integer, nullable=False, default=0, comment="1: run by itself, not with its series"),
    Column("modality", String(LONGEST_CODE), nullable=False, default=""),
    Column("study_description", Text, nullable=False, default=""),
    Column("series_description", Text, comment="null: not known, it came before descriptions were kept"),
    Index("ix_arrival_state_last_at", "state", "last_at"),
    Index("ix_arrival_whose_sha256", "whose_sha256"),
    Index("ix_arrival_series_uid", "series_uid"),
    Index("ix_arrival_project", "project", "id"),
    Index("ix_arrival_state", "state", "id"),
    Index("ix_arrival_project_state", "project", "state", "id"),
    comment="instances of one series that come together; later ones are a new arrival",
)

INSTANCE = Table(
    "instance",
    SCHEMA,
    Column("id", _KEY, primary_key=True),
    Column("arrival_id", _KEY, ForeignKey("arrival.id"), nullable=False, index=True),
    Column("source", String(64), nullable=False, comment="the receiver that took it, whatever it is run as later"),
    Column("sop_instance_uid", _UID, nullable=False),
    Column("sop_class_uid", _UID, nullable=False),
    Column("transfer_syntax_uid", _UID, nullable=False),
    Column("sha256", String(64), nullable=False, comment="of the data set as it came"),
    Column("bytes", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("accepted_at", UtcTime, nullable=False),
    Column("flushed", Integer, nullable=False, default=1, comment="0: its file may not be on the disk; look at it"),
    Column("is_prior", Integer, nullable=False, default=0, comment="as its arrival's"),
    UniqueConstraint("sop_instance_uid", "sha256", "source", "is_prior"),
    _partial("ix_instance_unflushed", "id", only="flushed = 0"),
    comment="one accepted instance, on disk for good; the same again to the same source is no new row, all else is",
)

WATCHED = Table(
    "watched",
    SCHEMA,
    Column("id", _KEY, primary_key=True),
    Column("source", String(64), nullable=False),
    Column("name_sha256", String(64), nullable=False, comment="of its path below the folder: names may tell a patient"),
    Column("bytes", BigInteger, nullable=False),
    Column("modified_ns", BigInteger, nullable=False, comment="its time of change as the file system gives it"),
    Column("became", String(16), nullable=False, comment="new, repeated, apart, refused"),
    Column("taken_at", UtcTime, nullable=False),
    UniqueConstraint("source", "name_sha256"),
    comment="a file of a watched folder that was taken in, or refused, and is not looked at again while it stays so",
)

JOB = Table(
    "job",
    SCHEMA,
    Column("id", _KEY, primary_key=True),
    Column("arrival_id", _KEY, ForeignKey("arrival.id"), index=True, comment="null: handed in by path"),
    Column("project", String(64), nullable=False, default=DEFAULT_PROJECT, comment="that of its arrival, or as asked"),
    Column("source", Text, nullable=False, comment="folder or file that the run reads"),
    Column("series_uid", _UID, nullable=False, default=""),
    Column("pipeline", Text, nullable=False),
    Column("folder", Text, nullable=False, comment="the run's folder"),
    Column("state", String(16), nullable=False, comment="pending, running, stopped"),
    Column("ended", String(16), nullable=False, default="", comment="of stopped ones: healthy, faulted, canceled"),
    Column("destinations", Text, nullable=False, default="[]", comment="JSON list of names: where its objects go"),
    Column("priority", Integer, nullable=False, comment="0 immediate, 1 high, 2 normal, 3 low: as the queue is sorted"),
    Column("attempt", Integer, nullable=False, default=0, comment="fences off a worker that was given up"),
    Column("crashes", Integer, nullable=False, default=0, comment="attempts whose process or worker died"),
    Column("retries", Integer, nullable=False, default=0, comment="failures that might have passed"),
    Column("worker", String(128), nullable=False, default=""),
    Column("heartbeat_at", UtcTime),
    Column("not_before", UtcTime, comment="waits until then after a failure that may pass"),
    Column("cancel", Integer, nullable=False, default=0, comment="1: whoever runs it is to stop"),
    Column("memory_mb", Float, nullable=False),
    Column("cores", Float, nullable=False),
    Column("is_prior", Integer, nullable=False, default=0, comment="1: fetched to compare with; nothing is sent of it"),
    Column("supersedes", _KEY, ForeignKey("job.id"), comment="an earlier job on the same series with fewer instances"),
    Column("created_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("stopped_at", UtcTime),
    Column("error_code", String(64), nullable=False, default=""),
    Column("error", Text, nullable=False, default=""),
    Column("reading", String(16), nullable=False, default="", comment="as jobs.reading.Reading; empty: not to be read"),
    Column("decisions", Text, nullable=False, default="[]", comment="JSON of jobs.reading.Decided, the newest first"),
    Column("received_by", String(64), nullable=False, default="", comment="its arrival's source; empty: it has none"),
    Column("study_uid", _UID, nullable=False, default=""),
    Column("study_date", String(10), nullable=False, default="", comment="as 2026-03-04; empty: not known"),
    Column("study_description", Text, nullable=False, default=""),
    Column("series_description", Text, nullable=False, default=""),
    Column("modality", String(LONGEST_CODE), nullable=False, default=""),
    Column("described", Text, comment="what lists call what it runs on; null: to be read from its files"),
    Column("searched", Text, nullable=False, default="", comment="name and descriptions, case-folded, to be searched"),
    Column("warnings", Integer, nullable=False, default=0, comment="how many its run gave"),
    Column("first_warning", Text, nullable=False, default=""),
    Column("ratio_percent", Float, comment="lesion to lung of both lungs together; null: not measured"),
    Column("reader_ratio_percent", Float, comment="the same as readers corrected it; null: no correction holds"),
    Column("is_classified", Integer, comment="1: its run has probabilities, 0: none; null: it was not to have any"),
    Index("ix_job_queue", "state", "priority", "id"),
    Index("ix_job_shown", "state", "ended", "id"),
    Index("ix_job_project", "project", "state", "ended", "id"),
    Index("ix_job_stopped_at", "stopped_at"),
    Index("ix_job_series_uid", "series_uid", "project"),
    Index("ix_job_study_uid", "study_uid", "project"),
    Index("ix_job_study_date", "study_date"),
    Index("ix_job_project_study_date", "project", "study_date"),
    Index("ix_job_received_by", "received_by", "id"),
    _partial("ix_job_warned", "id", only="warnings > 0"),
    _partial("ix_job_project_warned", "project", "id", only="warnings > 0"),
    _partial("ix_job_not_described", "id", only="described is null"),
    Index("ix_job_reading", "reading", "id"),
    Index("ix_job_project_reading", "project", "reading", "id"),
    Index("ix_job_project_id", "project", "id"),
    Index("ix_job_pipeline", "pipeline", "id"),
    Index("ix_job_pipeline_shown", "pipeline", "state", "ended", "id"),
    Index("ix_job_pipeline_reading", "pipeline", "reading", "id"),
    comment="one run of one pipeline on one series; this row is the only truth about it",
)

DELIVERY = Table(
    "delivery",
    SCHEMA,
    Column("id", _KEY, primary_key=True),
    Column("job_id", _KEY, ForeignKey("job.id"), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("sop_class_uid", _UID, nullable=False),
    Column("sop_instance_uid", _UID, nullable=False),
    Column("path", Text, nullable=False),
    Column(
        "sha256", String(64), nullable=False, default="", comment="of the file as the run wrote it; empty: not kept"
    ),
    Column("state", String(16), nullable=False, comment="waiting, sent, confirmed, failed"),
    Column("attempts", Integer, nullable=False, default=0, comment="counted before each is begun"),
    Column("ask", Integer, nullable=False, default=0, comment="1: it may be there, the peer is asked before sending"),
    Column("status", Integer, comment="what the peer answered last: a DIMSE status or an HTTP code"),
    Column("error_code", String(64), nullable=False, default=""),
    Column("error", Text, nullable=False, default=""),
    Column("note", Text, nullable=False, default="", comment="of what was stored: a warning, what can't be asked"),
    Column("transaction_uid", _UID, nullable=False, default="", comment="storage commitment that was asked for"),
    Column("contradicted", Integer, nullable=False, default=0, comment="reports on that which contradicted themselves"),
    Column("lost", Integer, nullable=False, default=0, comment="those that said it is not there, though it was stored"),
    Column("refused", Integer, nullable=False, default=0, comment="those that refused it for another reason"),
    Column("confirmed_by", String(16), nullable=False, default="", comment="commitment, query, digest, status"),
    Column("not_before", UtcTime, comment="neither sent nor asked about until then"),
    Column("created_at", UtcTime, nullable=False),
    Column("sent_at", UtcTime),
    Column("doubt_until", UtcTime, comment="what it is asked for until then may be on its way to it"),
    Column("confirmed_at", UtcTime),
    UniqueConstraint("job_id", "destination", "sop_instance_uid"),
    Index("ix_delivery_queue", "state", "destination", "not_before"),
    Index("ix_delivery_object", "destination", "sop_instance_uid"),
    Index("ix_delivery_transaction_uid", "transaction_uid"),
    comment="one result object on its way to one destination",
)

EARLIER_QUESTION = Table(
    "earlier_question",
    SCHEMA,
    Column("id", _KEY, primary_key=True),
    Column("delivery_id", _KEY, ForeignKey("delivery.id", ondelete="CASCADE"), nullable=False),
    Column("transaction_uid", _UID, nullable=False, index=True, comment="before that of the delivery's row"),
    Index("ix_earlier_question_delivery_id_id", "delivery_id", "id"),
    comment="storage commitment asked for earlier, since the object was sent; the peer may report on it still",
)

PRIOR = Table(
    "prior",
    SCHEMA,
    Column("id", _KEY, primary_key=True),
    Column("job_id", _KEY, ForeignKey("job.id"), nullable=False, unique=True, comment="of the new scan"),
    Column("peer", String(64), nullable=False, comment="the destination that is asked"),
    Column("state", String(16), nullable=False, comment="as PriorState has them"),
    Column("said", Text, nullable=False, default="", comment="what came of it; no patient"),
    Column("attempts", Integer, nullable=False, default=0, comment="counted before each is begun"),
    Column("not_before", UtcTime, comment="not asked again until then"),
    Column("created_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Index("ix_prior_state_peer", "state", "peer"),
    comment="earlier scans of the patient that are wanted for a job; the job waits for none of it",
)

PRIOR_SERIES = Table(
    "prior_series",
    SCHEMA,
    Column("id", _KEY, primary_key=True),
    Column("prior_id", _KEY, ForeignKey("prior.id"), nullable=False, index=True),
    Column("series_uid", _UID, nullable=False, index=True),
    Column("is_fetched", Integer, nullable=False, default=1, comment="0: it had come, or was coming, by itself"),
    UniqueConstraint("prior_id", "series_uid"),
    comment="a series to compare with; written down before the first instance that is fetched can come",
)


class PriorState(StrEnum):
    """Where a wish for earlier scans is: the peer is asked; the jobs on them run; all is settled."""

    ASKED = "asked"
    FETCHED = "fetched"
    ENDED = "ended"


NOTICE = Table(
    "notice",
    SCHEMA,
    Column("id", _KEY, primary_key=True),
    Column("job_id", _KEY, ForeignKey("job.id"), nullable=False),
    Column("attempt", Integer, nullable=False, default=0, comment="which ending of the job it is of"),
    Column("body", Text, nullable=False, comment="JSON; no patient"),
    Column("state", String(16), nullable=False, comment="silent (nothing to say), waiting, sent, failed"),
    Column("mail_left", Text, nullable=False, default="", comment="JSON: who by mail is tried again; empty: all"),
    Column("attempts", Integer, nullable=False, default=0),
    Column("status", Integer, comment="the HTTP code that was answered last"),
    Column("error", Text, nullable=False, default=""),
    Column("not_before", UtcTime, comment="waits until then after a failure"),
    Column("created_at", UtcTime, nullable=False),
    Column("sent_at", UtcTime),
    Index("ix_notice_queue", "state", "not_before"),
    UniqueConstraint("job_id", "attempt"),
    comment="what is said of a job that ended, by webhook and mail; one row for each ending that was looked at",
)

REMOVAL = Table(
    "removal",
    SCHEMA,
    Column("id", _KEY, primary_key=True),
    Column("kind", String(16), nullable=False, comment="incoming (of an arrival), run (of a job)"),
    Column("subject_id", _KEY, nullable=False, comment="the arrival's or the job's id"),
    Column("why", Text, nullable=False),
    Column("begun_at", UtcTime, nullable=False, comment="from then on its files are nobody's"),
    Column("ended_at", UtcTime, comment="null: its files are not all gone"),
    UniqueConstraint("kind", "subject_id"),
    Index("ix_removal_ended_at", "ended_at"),
    comment="files that were removed because they were old, or for room; said before the first one goes",
)

OWED_REPORT = Table(
    "owed_report",
    SCHEMA,
    Column("id", _KEY, primary_key=True),
    Column("destination", String(64), nullable=False, comment="whose it is"),
    Column("project", String(64), nullable=False, comment="of the source that was asked"),
    Column("transaction_uid", _UID, nullable=False, comment="as whoever asked named it"),
    Column("asked", Text, nullable=False, comment="JSON: SOP class and instance of each instance asked about"),
    Column("instances", Integer, nullable=False, comment="how many those are"),
    Column("reasons", Text, nullable=False, default="", comment="JSON: why not, null: is kept; empty: not looked at"),
    Column("is_tried", Integer, nullable=False, default=0, comment="1: it did not reach its destination before"),
    Column("tried_until", UtcTime, nullable=False),
    Index("ix_owed_report_destination", "destination", "id"),
    comment="a report on storage commitment that a peer asked for and was not sent; the row goes when it is",
)

AUDIT = Table(
    "audit",
    SCHEMA,
    Column("id", _KEY, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("who", String(128), nullable=False, comment="user, calling AE title and address, or worker"),
    Column("action", String(32), nullable=False, comment="received, ran, sent, looked, changed, removed"),
    Column("subject", Text, nullable=False, comment="UIDs or the id of a row; no patient"),
    comment="who did what: rows are added, never changed",
)

ACCOUNT = Table(
    "account",
    SCHEMA,
    Column("id", _KEY, primary_key=True),
    Column("name", String(64), nullable=False, unique=True, comment="lower case; empty: not yet chosen"),
    Column("role", String(16), nullable=False, comment="on the whole node: member (none), reader, operator, admin"),
    Column("password_hash", Text, nullable=False, default="", comment="Argon2id; empty: none was set"),
    Column("link_sha256", String(64), nullable=False, default="", comment="of the link that sets a password, once"),
    Column("link_until", UtcTime),
    Column("subject", Text, nullable=False, default="", comment="issuer and sub of OpenID Connect"),
    Column("is_closed", Integer, nullable=False, default=0, comment="1: may not log in; rows stay for the audit"),
    Column("created_at", UtcTime, nullable=False),
    comment="a person who may log in to the node's pages; called account, for user is a word of SQL",
)

SESSION = Table(
    "session",
    SCHEMA,
    Column("id", _KEY, primary_key=True),
    Column("account_id", _KEY, ForeignKey("account.id"), nullable=False, index=True),
    Column("sha256", String(64), nullable=False, unique=True, comment="of the cookie's value"),
    Column("created_at", UtcTime, nullable=False),
    Column("used_at", UtcTime, nullable=False),
    comment="a log-in that has not ended",
)

TOKEN = Table(
    "token",
    SCHEMA,
    Column("id", _KEY, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False, comment="sender, reader, operator"),
    Column("project", String(64), nullable=False, default="", comment="where it has the role; empty: everywhere"),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("created_at", UtcTime, nullable=False),
    Column("used_at", UtcTime),
    comment="what a program shows instead of a password; a revoked one has no row",
)

PROJECT = Table(
    "project",
    SCHEMA,
    Column("name", String(64), primary_key=True),
    Column("created_at", UtcTime, nullable=False),
    comment="a named set of series and of jobs handed in by path; each of them is in one",
)

MEMBER = Table(
    "member",
    SCHEMA,
    Column("id", _KEY, primary_key=True),
    Column("account_id", _KEY, ForeignKey("account.id"), nullable=False),
    Column("project", String(64), ForeignKey("project.name"), nullable=False, index=True),
    Column("role", String(16), nullable=False, comment="reader, operator, admin of the project"),
    UniqueConstraint("account_id", "project"),
    comment="what a person may do in a project beside what they may on the whole node",
)

IDENTITY = Table(
    "identity",
    SCHEMA,
    Column("uuid", String(32), primary_key=True, comment="as the node's folder keeps it"),
    comment="one row, by which a folder knows its database; none before a folder was given it",
)
