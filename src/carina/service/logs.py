"""What the node says while it runs: one JSON object a line on the error stream, with the job's id, without a patient.

An event is a sentence that never changes and fields that do: ``log.info("job stopped", extra={"job": 7})``.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import TextIO

from carina.errors import CarinaError, one_line, shortened, without_words

OURS = "carina"

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; the rest are the event's own fields."""

_TOLD = {"uvicorn.error": logging.WARNING}
"""Loggers of others that say nothing of what is in an object; pynetdicom's and pydicom's do, and stay silent."""


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, who, event, and the event's fields, each of bounded length."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; of an error its code and its sentence, of a bug its traceback without what may quote a patient."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "part": record.name,
            "event": shortened(one_line(record.getMessage())),
        }
        line |= {name: _bounded(value) for name, value in vars(record).items() if name not in _PLAIN}
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, CarinaError):
            line |= {"code": error.code, "error": error.message}
        elif record.exc_info and error is not None:
            line |= {"code": f"bug.{type(error).__name__}", "traceback": without_words(error)}
        return json.dumps(line, default=str, ensure_ascii=False)


def _bounded(value: object) -> object:
    """A field as it is said: strangers choose some of them, and how long they are."""
    return shortened(one_line(value)) if isinstance(value, str) else value


_LOG = logging.getLogger(__name__)


def log_to(stream: TextIO = sys.stderr) -> None:
    """Send what the node says to a stream, and keep the libraries that print values of data sets silent.

    A thread that an error ends is told of in the same way.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [logging.NullHandler()]
    for name, level in ((OURS, logging.INFO), *_TOLD.items()):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    threading.excepthook = _tell_of_thread


def _tell_of_thread(ended: threading.ExceptHookArgs) -> None:
    name = ended.thread.name if ended.thread else ""
    if ended.exc_value is not None:
        error = (ended.exc_type, ended.exc_value, ended.exc_traceback)
        _LOG.error("a thread was ended by an error", extra={"thread_name": name}, exc_info=error)
