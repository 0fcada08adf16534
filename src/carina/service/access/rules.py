"""The table of routes: what each needs, and what of patients it shows. A route without a line is refused to everybody.

The lines stand in the order in which the router looks at its routes; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from starlette.routing import compile_path

from carina.errors import one_line
from carina.service.access.roles import Need

PROGRAM_PATHS = ("/api/v1/", "/dicom-web/", "/metrics", "/health/")
"""What programs ask for: they are told how to show a token, and never sent to a page."""

_LONGEST_PART = 64


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a route needs; ``view`` names what it shows of patients, for the audit trail, empty: nothing.

    ``is_quiet`` says that it is asked for by the page itself, and keeps no session from ending. ``is_of_node`` says
    that what is needed must be had on the whole node, and not in some project only.
    """

    method: str
    path: str
    need: Need
    view: str = ""
    is_quiet: bool = False
    is_of_node: bool = False

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return compile_path(self.path)[0]

    def parts(self, path: str) -> Mapping[str, str] | None:
        """The parts of a path that the route names; None where the path is none of its."""
        found = self._pattern.match(path)
        return None if found is None else found.groupdict()

    def parts_asked(self, path: str) -> Mapping[str, str]:
        """The same of a path that ``rules_of`` takes for it, with a slash too many or too few as well."""
        return next((found for one in spellings(path) if (found := self.parts(one)) is not None), {})

    def subject(self, path: str) -> str:
        """What a path shows, in the words of the audit trail."""
        parts = self.parts_asked(path)
        return self.view.format_map({name: one_line(part)[:_LONGEST_PART] for name, part in parts.items()})


def _open() -> Iterator[Rule]:
    for path in ("/health/live", "/health/ready", "/static/{path:path}", "/login", "/invited"):
        yield Rule(method="GET", path=path, need=Need.NOTHING)
    for path in ("/oidc/start", "/oidc/done"):
        yield Rule(method="GET", path=path, need=Need.NOTHING)
    for path in ("/login", "/invited"):
        yield Rule(method="POST", path=path, need=Need.NOTHING)


def _dicomweb() -> Iterator[Rule]:
    root, study, series, one = "/dicom-web", "/studies/{study}", "/series/{series}", "/instances/{instance}"
    for path in ("/studies", "/series", "/instances"):
        yield _reads(root + path, "list of what is held")
    for path, view in (
        (f"{study}/series", "study {study}"),
        (f"{study}/instances", "study {study}"),
        (f"{study}{series}/instances", "series {series}"),
        (study, "study {study}"),
        (study + series, "series {series}"),
        (study + series + one, "instance {instance}"),
    ):
        yield _reads(root + path, view)
    for path, view in (
        (study, "study {study}"),
        (study + series, "series {series}"),
        (study + series + one, "instance {instance}"),
    ):
        yield _reads(f"{root}{path}/metadata", view)
    for path in ("rendered", "frames", "frames/{frames}", "frames/{frames}/rendered", "bulkdata/{tag}"):
        yield _reads(f"{root}{study}{series}{one}/{path}", "instance {instance}")
    for path in ("/studies", study):
        yield Rule(method="POST", path=root + path, need=Need.STORE)


def _rest() -> Iterator[Rule]:
    root = "/api/v1"
    yield Rule(method="GET", path=f"{root}/state", need=Need.READ)
    yield _reads(f"{root}/jobs", "list of jobs")
    yield Rule(method="POST", path=f"{root}/jobs", need=Need.OPERATE, is_of_node=True)  # it names any path of the disk
    yield _reads(f"{root}/jobs/{{id}}", "job {id}")
    for path in ("jobs/{id}/cancel", "jobs/{id}/retry"):
        yield _operates(f"{root}/{path}")
    yield Rule(method="PUT", path=f"{root}/jobs/{{id}}/priority", need=Need.OPERATE)
    yield _reads(f"{root}/arrivals", "list of arrivals")
    yield _operates(f"{root}/arrivals/{{id}}/release")
    yield _reads(f"{root}/deliveries", "list of deliveries")
    yield _operates(f"{root}/deliveries/resend")
    yield Rule(method="GET", path=f"{root}/destinations", need=Need.READ)
    yield _operates(f"{root}/destinations/{{name}}/echo")
    yield _operates(f"{root}/uploads")
    one = f"{root}/uploads/{{id}}"
    yield Rule(method="GET", path=one, need=Need.OPERATE)  # names of files that whoever asks sent
    for path in (f"{one}/finish", f"{one}/discard"):
        yield _operates(path)
    yield _reads(f"{root}/jobs/{{id}}/series", "series of the upload of job {id}")
    yield _operates(f"{root}/jobs/{{id}}/series")
    yield Rule(method="PUT", path=f"{one}/chunk", need=Need.OPERATE)
    for path in (f"{root}/openapi.json", "/api", "/metrics"):
        yield Rule(method="GET", path=path, need=Need.READ)


def _pages() -> Iterator[Rule]:
    yield _reads("/", "worklist")
    yield _reads("/live", "worklist", is_quiet=True)
    yield _reads("/jobs/{job:int}", "job {job}")
    for path in ("/jobs/{job:int}/live", "/jobs/{job:int}/superseded"):
        yield _reads(path, "job {job}", is_quiet=True)
    for path in ("/jobs/{job:int}/log", "/jobs/{job:int}/log.txt"):  # it names paths of the disk
        yield Rule(method="GET", path=path, need=Need.OPERATE, view="log of job {job}")
    yield _reads("/jobs/{job:int}/series", "series of the upload of job {job}")
    yield _reads("/jobs/{job:int}/next", "number of the job to read after job {job}")
    yield _reads("/series/{series}", "series {series}")
    yield _reads("/studies/{study}", "study {study}")
    yield _reads("/agreement/", "agreement of network and readers")
    yield Rule(method="GET", path="/agreement/static/{path:path}", need=Need.READ)
    yield _reads("/projects", "list of projects")
    yield Rule(method="POST", path="/projects", need=Need.ADMINISTER, is_of_node=True)
    yield _reads("/projects/{project}", "project {project}")
    yield _reads("/projects/{project}/live", "project {project}", is_quiet=True)
    yield Rule(method="POST", path="/projects/{project}/people", need=Need.ADMINISTER)
    yield _operates("/move")
    yield Rule(method="GET", path="/account", need=Need.READ)
    yield Rule(method="POST", path="/account", need=Need.READ)
    yield _operates("/act")
    yield Rule(method="POST", path="/logout", need=Need.NOTHING)
    yield Rule(method="GET", path="/users", need=Need.ADMINISTER, is_of_node=True)
    yield Rule(method="POST", path="/users/act", need=Need.ADMINISTER, is_of_node=True)


def _viewer() -> Iterator[Rule]:
    root = "/jobs/{job:int}/view"
    yield _reads(root + "/correct/{layer}", "{layer} mask of job {job}")
    for path in ("/correct/{layer}/mask.json", "/correct/{layer}/standing.json"):
        yield _reads(root + path, "{layer} mask of job {job}", is_quiet=True)
    for path in ("/correct/{layer}/strokes", "/correct/{layer}/decision"):
        yield Rule(method="POST", path=root + path, need=Need.READ)
    yield _operates(root + "/correct/{layer}/send")
    yield _reads(root + "/changes", "changes of job {job}")
    yield from _run(root + "/earlier/{number:int}", "job {number}")
    yield from _run(root, "job {job}")


def _run(root: str, job: str) -> Iterator[Rule]:
    for path, view in (
        ("/", "results"),
        ("/report", "report"),
        ("/files", "files"),
        ("/slice/{plane}/{index:int}.png", "images"),
        ("/at/{z:int}/{y:int}/{x:int}.json", "images"),
        ("/volume/{size}/{name}.nii", "{name}"),
        ("/volume/{size}/{name}.nii.gz", "{name}"),
        ("/pdf/{name}.pdf", "{name}"),
        ("/files/{name:path}", "files"),
    ):
        yield _reads(root + path, f"{view} of {job}")
    yield Rule(method="GET", path=root + "/static/{path:path}", need=Need.READ)


def _reads(path: str, view: str, *, is_quiet: bool = False) -> Rule:
    return Rule(method="GET", path=path, need=Need.READ, view=view, is_quiet=is_quiet)


def _operates(path: str) -> Rule:
    return Rule(method="POST", path=path, need=Need.OPERATE)


ROUTE_RULES: tuple[Rule, ...] = (*_open(), *_dicomweb(), *_rest(), *_pages(), *_viewer())
"""Every route of the node."""


def spellings(path: str) -> tuple[str, str]:
    """A path, and where the router leads where that is no route's: to one with a slash more at its end, or none."""
    return path, path.rstrip("/") if path.endswith("/") else path + "/"


def rules_of(path: str) -> Mapping[str, Rule]:
    """The rules of a path by method, HEAD as GET; a path that the router would lead to another is taken for that."""
    found: dict[str, Rule] = {}
    for one in spellings(path):
        for rule in ROUTE_RULES:
            if rule.parts(one) is not None:
                found.setdefault(rule.method, rule)
        if found:
            break
    return found | ({"HEAD": found["GET"]} if "GET" in found else {})
