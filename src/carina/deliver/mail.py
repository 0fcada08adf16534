"""Notices by mail: one plain message for each, over SMTP, encrypted unless the settings say otherwise.

A socket's timeout is counted anew with every byte. Here the exchange as a whole has ``PATIENCE`` times that, after
which the connection is cut: a server that answers byte by byte holds nobody.
"""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from carina.deliver.paced_http import PATIENCE
from carina.errors import one_line, reason_of
from carina.pipeline.json_text import as_pretty_json
from carina.sections import MailSettings

_CUT_AGAIN_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Mailed:
    """What came of a mail: ``left`` is who is to be tried again, ``later`` says why, ``lost`` who was refused for good.

    ``is_away``: the server was not spoken to to the end, so that another mail would fare no better.
    """

    left: tuple[str, ...] = ()
    later: str = ""
    lost: str = ""
    is_away: bool = False

    @property
    def error(self) -> str:
        """What went wrong, one line; empty where everybody has it."""
        told = ", ".join(filter(None, (self.later, self.lost)))
        return one_line(f"mail: {told}") if told else ""


def send_mail(
    settings: MailSettings, notice: Mapping[str, Any], when: datetime, timeout_s: float, to: Collection[str] = ()
) -> Mailed:
    """Send a notice, to all or only to those of the settings that are named; ``timeout_s`` bounds each answer.

    Of recipients that are refused only those are left whom the server may take later (RFC 5321 4.2.1: 4yz), unless it
    took nobody at all, so far: then it may be the server that is wrong, and everybody is.
    """
    named = tuple(one for one in settings.to if not to or one in to) or settings.to
    try:
        with _bounded(PATIENCE * timeout_s) as cut, _connected(settings, timeout_s, cut) as server:
            if settings.user:
                server.login(settings.user, settings.password)
            return _refused(server.send_message(_message(settings, notice, when), to_addrs=named), named)
    except smtplib.SMTPRecipientsRefused as error:
        found = _refused(error.recipients, named)
        return (
            found
            if to
            else replace(found, left=named, later=", ".join(filter(None, (found.later, found.lost))), lost="")
        )
    except smtplib.SMTPResponseException as error:
        said = f"the server answered {_reply(error.smtp_code, error.smtp_error)}"
        return Mailed(later=said, left=named, is_away=not isinstance(error, _OF_ONE_MAIL))
    except (OSError, ValueError, smtplib.SMTPException) as error:
        return Mailed(later=_why(error), left=named, is_away=True)


_OF_ONE_MAIL = (smtplib.SMTPDataError, smtplib.SMTPSenderRefused)


def _refused(refused: Mapping[str, tuple[int, bytes]], named: Sequence[str]) -> Mailed:
    """What a server said of those whom it did not take."""
    told = {one: f"{one} was refused ({_reply(code, said)})" for one, (code, said) in refused.items()}
    left = tuple(one for one in named if one in refused and refused[one][0] < 500)
    later, lost = (", ".join(told[one] for one in told if (one in left) == is_left) for is_left in (True, False))
    return Mailed(left=left, later=later, lost=lost)


REPLIES = {
    421: "it closes the connection",
    450: "the mailbox is not available now",
    451: "a local error",
    452: "no storage left",
    454: "a passing failure of its log-in",
    530: "a log-in is needed",
    534: "another way of logging in is needed",
    535: "it does not take user and password",
    538: "the log-in needs encryption",
    550: "the mailbox is not available, or may not be sent to",
    551: "the user is elsewhere",
    552: "no storage left for that mailbox",
    553: "the mailbox's name is not allowed",
    554: "it takes no mail, or not this one",
}
"""What a server's code means (RFC 5321 4.2.3, RFC 4954 6)."""

_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\b", re.ASCII)
"""The status that may stand before its words (RFC 3463 2)."""


def _reply(code: int, said: bytes | str) -> str:
    """A server's answer by its codes alone: its words are a stranger's, and may quote whatever it knows."""
    text = said.decode("ascii", "replace") if isinstance(said, bytes) else said
    enhanced = _ENHANCED.match(text)
    codes = f"{code} {enhanced[0]}" if enhanced else str(code)
    return f"{codes}: {REPLIES[code]}" if code in REPLIES else codes


def _why(error: OSError | ValueError | smtplib.SMTPException) -> str:
    if isinstance(error, _TooLongError):
        return str(error)
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return "the server ended the connection"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return "the server does not offer what the settings ask for (STARTTLS, a log-in)"
    return reason_of(error) if isinstance(error, OSError) else type(error).__name__


class _TooLongError(TimeoutError):
    """One mail took the server too long; in words of ours."""


class _Cut:
    """Cuts a connection once its time is over, whichever step it is in."""

    def __init__(self, most_s: float) -> None:
        self.server: smtplib.SMTP | None = None
        self.is_over = False
        self.most_s, self._done = most_s, threading.Event()
        self._thread = threading.Thread(target=self._watch, name="mail: time", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        wait_s = self.most_s
        while not self._done.wait(wait_s):
            self.is_over, wait_s = True, _CUT_AGAIN_S  # it may be about to connect, or to change to TLS
            connection = getattr(self.server, "sock", None)
            if connection is not None:
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)  # below TLS, which would want to say good-bye


@contextmanager
def _bounded(most_s: float) -> Iterator[_Cut]:
    cut = _Cut(most_s)
    cut.start()
    try:
        yield cut
    except (OSError, ValueError, smtplib.SMTPServerDisconnected) as error:
        if cut.is_over:
            raise _TooLongError(f"the server took longer than {most_s:g} s over one mail") from error
        raise
    finally:
        cut.end()


class _Server(smtplib.SMTP):
    """A connection that is cut in time: it is known before the first word of the server."""

    def __init__(self, settings: MailSettings, timeout_s: float, cut: _Cut) -> None:
        cut.server = self
        super().__init__(settings.host, settings.port, timeout=timeout_s)


class _TlsServer(smtplib.SMTP_SSL):
    """As ``_Server``, with TLS from the first byte."""

    def __init__(self, settings: MailSettings, timeout_s: float, cut: _Cut) -> None:
        cut.server = self
        context = ssl.create_default_context()
        super().__init__(settings.host, settings.port, timeout=timeout_s, context=context)


@contextmanager
def _connected(settings: MailSettings, timeout_s: float, cut: _Cut) -> Iterator[smtplib.SMTP]:
    """A connection; how its end goes makes no difference to what was taken."""
    server = (_TlsServer if settings.security == "tls" else _Server)(settings, timeout_s, cut)
    try:
        if settings.security == "starttls":
            server.starttls(context=ssl.create_default_context())
        yield server
    finally:
        with suppress(OSError, ValueError, smtplib.SMTPException):
            server.quit()
        server.close()


def _message(settings: MailSettings, notice: Mapping[str, Any], when: datetime) -> EmailMessage:
    """The notice as text; its Message-ID is the notice's, so that one that comes twice is known."""
    message = EmailMessage()
    message["Subject"] = f"Carina: job {notice['job']}: {notice['kind']}"
    message["From"], message["To"] = settings.sender, ", ".join(settings.to)
    message["Date"], message["Message-ID"] = format_datetime(when), f"<{notice['id']}@carina.invalid>"
    message.set_content(as_pretty_json(dict(notice)).decode())
    return message
