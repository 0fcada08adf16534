"""The gate before every route: who calls, whether they may, and a line in the audit trail of what they saw."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carina.database import read_only
from carina.jobs.listing import find_job
from carina.service.access.caller import Caller, asking, caller_of
from carina.service.access.credentials import is_same
from carina.service.access.identify import Identifier
from carina.service.access.roles import Need, least_role
from carina.service.access.rules import PROGRAM_PATHS, Rule, rules_of
from carina.service.access.seen import Seen
from carina.service.guard import SAFE
from carina.service.node import RunningNode
from carina.service.pages.rendering import page
from carina.service.peer_names import message_told_to
from carina.service.refusals import HTTP_WORDS, is_from_page, refusal

CHALLENGE = 'Bearer realm="carina", Basic realm="carina", charset="UTF-8"'
"""What programs are told; pages don't ask a browser to show its own window for a name and a password."""

LOGGED_OUT = "You are no longer logged in, so nothing was done: log in, then do it again."

NO_TOKEN = "nobody is logged in; show a token of this node (Authorization: Bearer TOKEN), or log in at /login."
UNKNOWN_TOKEN = "the token is not known here: it was mistyped or revoked; an administrator makes one on Users."

LEADS_ON = 307
"""Shows nothing, but leads to what does: the right spelling of an address, another page of a run."""

FORM = "application/x-www-form-urlencoded"
_LARGEST_FORM = 64 * 1024
_LONGEST_NUMBER = 18
"""Digits of a job's number that a database takes."""


class Gate:
    """The middleware. Without ``login`` whoever is at this machine may do everything; what they see is noted too."""

    def __init__(self, app: ASGIApp, *, node: RunningNode, identifier: Identifier) -> None:
        self.app = app
        self._node = node
        self._identifier = identifier
        self._seen = Seen(node)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer that it may not be, or pass on."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request = Request(scope, receive)
        rules = rules_of(scope["path"])
        rule = rules.get(scope["method"])
        caller, project = await run_in_threadpool(self._who, request, rule)
        state = scope.setdefault("state", {})
        state["caller"], state["node"] = caller, self._node.seen_in(caller.projects(_seen_by(rule)))
        state["tell"] = message_told_to(caller, self._node.every_setting)
        named = asking.set(caller.name)
        try:
            if self._node.settings.web.login and (refused := _refusal(request, rules, caller, project)):
                return await refused(scope, receive, send)
            if caller.session and scope["method"] not in SAFE and not _is_own_script(request, caller):
                receive, token = await _form_token(request)
                if not is_same(token, caller.form_token):
                    words = "the form is from before you logged in: go back, reload the page, and try again."
                    return await refusal(request, 403, "web.token", words)(scope, receive, send)
            await self.app(scope, receive, self._noting(request, send, rule))
        finally:
            asking.reset(named)
        return None

    def _who(self, request: Request, rule: Rule | None) -> tuple[Caller, str]:
        """Who calls, and the project that decides whether they may."""
        caller = self._identifier.caller(request, is_quiet=rule is not None and rule.is_quiet)
        return caller, self._project_asked(request.scope["path"], rule, caller)

    def _project_asked(self, path: str, rule: Rule | None, caller: Caller) -> str:
        """The project that decides whether a route may be used; empty where none does, or one that is not seen."""
        if rule is None or not caller.roles or not _is_of_a_project(rule):
            return ""
        parts = rule.parts_asked(path)
        project = parts.get("project", "")
        number = parts.get("job", parts.get("id", "")) if "/jobs/" in rule.path else ""
        if number.isdecimal() and len(number) <= _LONGEST_NUMBER:
            with read_only(self._node.engine) as connection:
                job = find_job(connection, int(number))
            project = job.project if job else ""
        return project if caller.may_in(Need.READ, project) else ""

    def _noting(self, request: Request, send: Send, rule: Rule | None) -> Send:
        """Sends an answer once what it shows is in the audit trail; without its line nothing is shown."""
        if rule is None or not rule.view:
            return send
        subject, name = rule.subject(request.url.path), caller_of(request).name

        async def noted(message: Message) -> None:
            is_start = message["type"] == "http.response.start" and _is_shown(request, message["status"])
            if is_start and not self._seen.is_noted(name, subject):
                await run_in_threadpool(self._seen.note, name, subject)
            await send(message)

        return noted


def _is_shown(request: Request, status: int) -> bool:
    """Whether an answer of a status shows what was asked for; a search that found nothing says so in its state."""
    return status < 400 and status != LEADS_ON and not getattr(request.state, "shows_nothing", False)


def _is_of_a_project(rule: Rule) -> bool:
    """Whether more than seeing is needed, and that in the project only."""
    return not rule.is_of_node and _seen_by(rule) is not Need.READ


def _seen_by(rule: Rule | None) -> Need:
    """What one must be allowed in a project to be shown it by a route."""
    return Need.READ if rule is None or rule.need is Need.NOTHING else rule.need


def _refusal(request: Request, rules: Mapping[str, Rule], caller: Caller, project: str) -> Response | None:
    rule = rules.get(request.method)
    if caller.role is None and not (rule and caller.may(rule.need)):
        return _log_in_first(request)
    if rule is None:
        if rules:
            allowed = ", ".join(sorted(rules))
            return _with_headers(refusal(request, 405, "web.405", HTTP_WORDS[405]), Allow=allowed)
        return refusal(request, 404, "web.404", HTTP_WORDS[404])
    may = caller.may_in(rule.need, project) if project else caller.may(rule.need, everywhere=rule.is_of_node)
    return None if may else _not_allowed(request, rule, caller, project)


def _not_allowed(request: Request, rule: Rule, caller: Caller, project: str) -> Response:
    if not caller.session and is_from_page(request):
        return _log_in_first(request)
    where = (f" in project {project}" if project else " on the whole node") if caller.may(rule.need) else ""
    had = caller.shown_role(project)
    words = f"this needs the role {least_role(rule.need)}{where}; {caller.name} has the role {had}."
    return refusal(request, 403, "access.role", words)


def _log_in_first(request: Request) -> Response:
    is_program = request.url.path.startswith(PROGRAM_PATHS)
    if request.method == "GET" and is_from_page(request):
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?to={quote(target, safe='')}", status_code=303)
    if is_from_page(request):  # a button that was pressed after the log-in had ended
        values = {"said": LOGGED_OUT, "code": "access.unknown", "to": _log_in_at(request), "to_name": "Log in"}
        return page(request, "said.html", values, 401)
    words = UNKNOWN_TOKEN if request.headers.get("authorization") else NO_TOKEN
    challenge = CHALLENGE if is_program else 'Bearer realm="carina"'
    return _with_headers(refusal(request, 401, "access.unknown", words), **{"WWW-Authenticate": challenge})


def _log_in_at(request: Request) -> str:
    """The log-in that leads back to the page on which something was pressed."""
    pressed_on = urlsplit(request.headers.get("referer", ""))
    is_own = pressed_on.netloc == request.url.netloc
    target = pressed_on.path + (f"?{pressed_on.query}" if pressed_on.query else "")
    return f"/login?to={quote(target if is_own else '/', safe='')}"


def _with_headers(answer: Response, **headers: str) -> Response:
    answer.headers.update(headers)
    return answer


def _is_own_script(request: Request, caller: Caller) -> bool:
    """Whether a browser vouches that one of our pages asks, or a script shows the token; other sites can do neither."""
    token = request.headers.get("x-csrf-token", "")
    return request.headers.get("sec-fetch-site") == "same-origin" or is_same(token, caller.form_token)


async def _form_token(request: Request) -> tuple[Receive, str]:
    """The token in a form, and what gives the form's body once more; no token where it is no form, or a large one."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        return request.receive, ""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_FORM:
            return request.receive, ""
    read = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def again() -> Message:
        return read.pop() if read else await request.receive()

    return again, dict(parse_qsl(body.decode("utf-8", "replace"))).get("token", "")
