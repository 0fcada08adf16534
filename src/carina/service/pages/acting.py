"""The buttons of the pages: forms that carry a token, sent to one address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from carina.config import Priority
from carina.errors import CarinaError, DeliveryFailed
from carina.service import changes, uploads
from carina.service.access.caller import check_form
from carina.service.node import RunningNode, seen_node
from carina.service.pages.forms import form_of, own_place
from carina.service.pages.rendering import page
from carina.service.pages.sure import Question, release_question
from carina.service.problems import NotUnderstood, status_of
from carina.service.rest.operation import understood
from carina.service.upload_series import run_series

_Id = Annotated[int, Meta(ge=1, le=2**62)]


class Pressed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A button that was pressed: ``what`` it does, to which row or destination, with which choice.

    ``sure`` says that what it does was asked about, and is to be done.
    """

    what: str
    token: str
    back: str = "/"
    id: _Id | None = None
    name: str = ""
    choice: str = ""
    sure: Literal["", "yes"] = ""


Act = Callable[[RunningNode, Pressed], str]
"""Does what a button says; gives a sentence on what came of it, empty where the page shows that itself."""


def _id(pressed: Pressed) -> int:
    if pressed.id is None:
        raise NotUnderstood("web.asked", "id: is missing")
    return pressed.id


def _cancel(node: RunningNode, pressed: Pressed) -> str:
    changes.cancel_job(node, _id(pressed))
    return ""


def _retry(node: RunningNode, pressed: Pressed) -> str:
    changes.retry_job(node, _id(pressed))
    return ""


def _prioritise(node: RunningNode, pressed: Pressed) -> str:
    if pressed.choice not in set(Priority):
        raise NotUnderstood("web.asked", f"choice: is {pressed.choice[:20]!r}; expected {', '.join(Priority)}")
    changes.prioritise_job(node, _id(pressed), Priority(pressed.choice))
    return ""


def _release(node: RunningNode, pressed: Pressed) -> str:
    released = changes.release_arrival(node, _id(pressed), pressed.choice)
    becomes = "." if released.parts else ": it becomes a job."
    return f"Arrival {released.id} is {released.told}{becomes} {released.warning}".rstrip()


def _resend(node: RunningNode, pressed: Pressed) -> str:
    sent = changes.send_again(node, pressed.name, pressed.id)
    objects = f"{sent.deliveries} object{'' if sent.deliveries == 1 else 's'}"
    return "\n".join([f"{objects} will be sent again; the destination is asked first.", *sent.refused])


def _echo(node: RunningNode, pressed: Pressed) -> str:
    changes.echo_destination(node, pressed.name)
    return f"Destination {pressed.name} answers."


def _discard(node: RunningNode, pressed: Pressed) -> str:
    uploads.discard_upload(node, uploads.own_upload(node, pressed.name))
    return ""


def _run_series(node: RunningNode, pressed: Pressed) -> str:
    job = run_series(node, _id(pressed), pressed.name)
    return f"It is run as job {job.id}."


def _echo_source(node: RunningNode, pressed: Pressed) -> str:
    return _in_lines(changes.echo_source(node, pressed.name), pressed.name)


def _in_lines(said: str, name: str) -> str:
    """What is said of a source, whose name begins each sentence about it but the first, a line for each."""
    return said.replace(f" {name}: ", "\n") if name else said


ACTS: dict[str, Act] = {
    "cancel": _cancel,
    "retry": _retry,
    "priority": _prioritise,
    "release": _release,
    "resend": _resend,
    "echo": _echo,
    "echo-source": _echo_source,
    "discard": _discard,
    "run-series": _run_series,
}
"""What each button does."""


def _ask_release(node: RunningNode, pressed: Pressed) -> Question | None:
    return release_question(node, _id(pressed), pressed.choice)


QUESTIONS: Mapping[str, Callable[[RunningNode, Pressed], Question | None]] = {"release": _ask_release}
"""What is asked before a button does what nothing takes back; None where it will not be done."""

UNANSWERED: Mapping[str, str] = {"echo": "No answer", "echo-source": "Not everything answers"}
"""How a page is headed that says what an echo met."""


async def act(request: Request) -> Response:
    """Do what a button says, then show the page that it is on, or what came of it."""
    given = await form_of(request)
    back = own_place(given.get("back", "/"))
    try:
        pressed, question = await run_in_threadpool(_question, request, given)
        if question:
            return page(request, "sure.html", {"question": question, "pressed": pressed, "to": back})
        said = await run_in_threadpool(_act, request, pressed)
    except CarinaError as error:
        values = {"said": error.message, "code": error.code, "to": back}
        if isinstance(error, DeliveryFailed):
            values["headed"] = UNANSWERED.get(given.get("what", ""), "")
            values["said"] = _in_lines(error.message, given.get("name", ""))
        return page(request, "said.html", values, status_of(error))
    if said:
        return page(request, "said.html", {"said": said, "code": "", "to": back})
    return RedirectResponse(back, status_code=303)


def _question(request: Request, given: dict[str, str]) -> tuple[Pressed, Question | None]:
    """The button that was pressed, and what is asked before it does anything."""
    pressed = understood(given, Pressed)
    check_form(request, pressed.token)
    if pressed.what not in ACTS:
        raise NotUnderstood("web.asked", f"what: is {pressed.what[:20]!r}; expected {', '.join(ACTS)}")
    asks = None if pressed.sure else QUESTIONS.get(pressed.what)
    return pressed, asks(seen_node(request), pressed) if asks else None


def _act(request: Request, pressed: Pressed) -> str:
    return ACTS[pressed.what](seen_node(request), pressed)
