"""Notices by mail: one plain message for each, over SMTP, encrypted unless the settings say otherwise."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from carina.errors import one_line
from carina.pipeline.json_text import as_pretty_json
from carina.sections import MailSettings


def send_mail(settings: MailSettings, notice: Mapping[str, Any], when: datetime, timeout_s: float) -> str:
    """Send a notice; gives what went wrong, empty where nothing did."""
    try:
        with _connected(settings, timeout_s) as server:
            if settings.user:
                server.login(settings.user, settings.password)
            server.send_message(_message(settings, notice, when))
    except (OSError, smtplib.SMTPException) as error:
        return one_line(f"mail: {error}")
    return ""


def _connected(settings: MailSettings, timeout_s: float) -> smtplib.SMTP:
    if settings.security == "none":
        return smtplib.SMTP(settings.host, settings.port, timeout=timeout_s)
    context = ssl.create_default_context()
    if settings.security == "tls":
        return smtplib.SMTP_SSL(settings.host, settings.port, timeout=timeout_s, context=context)
    server = smtplib.SMTP(settings.host, settings.port, timeout=timeout_s)
    server.starttls(context=context)
    return server


def _message(settings: MailSettings, notice: Mapping[str, Any], when: datetime) -> EmailMessage:
    """The notice as text; its Message-ID is the notice's, so that one that comes twice is known."""
    message = EmailMessage()
    message["Subject"] = f"Carina: job {notice['job']}: {notice['kind']}"
    message["From"], message["To"] = settings.sender, ", ".join(settings.to)
    message["Date"], message["Message-ID"] = format_datetime(when), f"<{notice['id']}@carina.invalid>"
    message.set_content(as_pretty_json(dict(notice)).decode())
    return message
