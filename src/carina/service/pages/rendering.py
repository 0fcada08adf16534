"""Templates and the words that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from anyio import to_thread
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from carina import RESEARCH_ONLY, __version__
from carina.measure.texts import percent_text
from carina.service.access.caller import Caller, caller_of
from carina.service.local_time import local_text, minute_text, seconds_words, zone_text
from carina.service.pages.job_rows import came_to, read_by, sent_of, state_of, why_of
from carina.service.pages.shared_parts import PagePart
from carina.service.pages.state_words import canceled_words, state_word
from carina.service.problems import as_sentence, without_source
from carina.service.sizes import size_words


def _time(value: datetime | None) -> str:
    """A time as text; empty where there is none."""
    return local_text(value) if value else ""


def _lasted(start: datetime | None, end: datetime | None) -> str:
    """How long something took, or has taken until now."""
    if start is None:
        return ""
    return seconds_words(((end or datetime.now(UTC)) - start).total_seconds())


TEMPLATES = Environment(
    loader=PackageLoader("carina.service.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,  # no file is looked at for each part of each page
)
TEMPLATES.filters.update(time=_time, minute=minute_text, size=size_words, seconds=seconds_words)
TEMPLATES.filters.update(
    sentence=as_sentence,
    state_word=state_word,
    canceled_words=canceled_words,
    without_source=without_source,
    percent=percent_text,
)
TEMPLATES.globals.update(lasted=_lasted, notice=RESEARCH_ONLY, version=__version__, zone=zone_text)
TEMPLATES.globals.update(came_to=came_to, read_by=read_by, sent_of=sent_of, state_of=state_of, why_of=why_of)


def compile_templates() -> None:
    """Compile every template, before anybody asks: else each of those who come first would do it, all at once."""
    for name in TEMPLATES.list_templates(extensions=["html"]):
        TEMPLATES.get_template(name)


def html(template: str, values: Mapping[str, Any]) -> str:
    """A template with its values."""
    return TEMPLATES.get_template(template).render(**values)


async def in_turn(request: Request, make: Callable[[Request], Response]) -> Response:
    """A page that takes the processor and little else: a few are made at once, so that the first are soon done."""
    return await to_thread.run_sync(make, request, limiter=request.app.state.pages)


def page(request: Request, template: str, values: Mapping[str, Any], status: int = 200) -> Response:
    """A page as an answer; forms in it carry a token and come back to where they were."""
    back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    common = {**shared_values(caller_of(request), back), "path": request.url.path}
    is_asked = request.method == "GET"
    common |= {"is_answer": not is_asked, "is_missing": is_asked and status == HTTPStatus.NOT_FOUND, "headed": ""}
    common |= {"is_not_allowed": is_asked and status == HTTPStatus.FORBIDDEN}
    return HTMLResponse(html(template, common | dict(values)), status_code=status)


def shared_values(caller: Caller, back: str) -> dict[str, Any]:
    """What the buttons of a page, or of a part of it, need: who presses them, their token, where they come back to."""
    return {"caller": caller, "token": caller.form_token, "back": back}


def shown_part(request: Request, part: PagePart) -> dict[str, Any]:
    """The values of a page that is made around a part, as whoever asks is shown it."""
    return {**part.values, "part": part.of(caller_of(request))}
