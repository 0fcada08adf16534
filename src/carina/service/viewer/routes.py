"""The routes of a finished run's pages, to be mounted anywhere over a function that says where the run lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from http import HTTPStatus
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from carina import RESEARCH_ONLY, __version__
from carina.api.compared import earlier_findings, scanned_on
from carina.api.result import Run
from carina.corrections.decisions import readers_state
from carina.errors import CarinaError, told
from carina.measure.change import LesionChange
from carina.measure.histogram import hu_histogram
from carina.measure.texts import ml_text, percent_text
from carina.report.change import change_sentences, cut_note
from carina.report.numbers import compared_ml, difference_text, page_text, range_text, site_name
from carina.report.overlay import layout
from carina.service.local_time import local_text, minute_text, seconds_words, zone_text
from carina.service.problems import NotThere, as_sentence, status_of
from carina.service.viewer.chart import FIELD_HEIGHT, FIELD_WIDTH, hu_chart, time_charts
from carina.service.viewer.found import found_by, saliency_legend
from carina.service.viewer.layers import QUARTER, layer_of
from carina.service.viewer.opened import OpenedRun, RunShelf
from carina.service.viewer.scene import PLANES, chosen_voxel, outside_words, scene_facts, shown_planes
from carina.service.viewer.slices import WINDOWS, Drawing, LayerStyle, place_words, slice_png, slice_words, voxel_in
from carina.service.viewer.solid import SOLID, solid_layer
from carina.service.viewer.stored import pdf_inside, report_names, stored_file, stored_files

WhereIsRun = Callable[[Request], Path]
"""Gives the folder of the run that a request is about, or raises a ``CarinaError`` of its own."""

STATIC = Path(__file__).parent / "static"

VOLUME_VIEWER = STATIC / "built" / "volume.js"
"""Made by scripts/build_viewer.py, which a wheel's build calls; a source install may lack it."""

EarlierRuns = Callable[[Request], Mapping[int, Path]]
"""Gives the folders of the runs that the run of a request is compared with, by number; the first is shown unasked."""

NOT_FOUND = frozenset(
    {
        "run.no-manifest",
        "run.no-image",
        "run.no-file",
        "run.unmeasured",
        "output.outside",
        "overlay.view",
        "overlay.index",
        "viewer.layer",
        "corrections.layer",
        "cohort.case",
        "changes.earlier",
    }
)
"""Codes of what is not there, whoever raises them."""

RUN_TEMPLATES = ("images.html", "report.html", "files.html", "cohort.html", "changes.html", "error.html")


def _shown(value: object) -> object:
    """What a template puts out, a text with its minus signs; marked-up text stays marked up."""
    return type(value)(page_text(value)) if isinstance(value, str) else value


OF_THE_NODE = PackageLoader("carina.service.pages")
"""Where the header lies that is the same on every page of a node."""

PAGES = Environment(
    loader=ChoiceLoader([PackageLoader("carina.service.viewer"), PrefixLoader({"node": OF_THE_NODE})]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=_shown,
)


def _local_text(moment: str) -> str:
    """A time of a manifest as pages show it, or the text itself where it is no time."""
    try:
        return local_text(datetime.fromisoformat(moment))
    except ValueError:
        return moment


NAMES_OF_FACTS = {
    "kind": "Input",
    "series_uid": "Series Instance UID",
    "study_uid": "Study Instance UID",
    "sha256": "SHA-256 of the input",
}
"""Keys of a manifest whose names are no words."""


def _fact_name(key: str) -> str:
    """What a page calls a key of the manifest."""
    return NAMES_OF_FACTS.get(key) or key.replace("_", " ").capitalize()


PAGES.filters["local"] = local_text
PAGES.filters["minute"] = minute_text
PAGES.filters["seconds"] = seconds_words
PAGES.filters["local_text"] = _local_text
PAGES.filters["fact_name"] = _fact_name
PAGES.filters["sentence"] = as_sentence
PAGES.filters["percent"] = percent_text
PAGES.filters["ml"] = ml_text
PAGES.filters["site"] = site_name
PAGES.filters["difference"] = difference_text
PAGES.globals["compared_ml"] = compared_ml
PAGES.globals["difference_range"] = range_text
PAGES.globals["zone"] = zone_text

Endpoint = Callable[[Request], Response]


@dataclass(frozen=True, kw_only=True)
class Above:
    """The page from which a run is opened: its address, and what it is called."""

    href: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Successor:
    """The run in place of another: the page that leads to it, and what is said of it."""

    page: Above
    words: str


@dataclass(frozen=True, kw_only=True)
class Around:
    """What the pages of a run link to beside each other: where it was opened from, whether earlier runs are known.

    ``earlier`` gives those that the report tells of. ``is_correctable`` says that the pages on which masks are
    corrected are there too. ``called`` stands before the name of the run's folder where the run is named. ``sent``
    says what became of its results, where others send them than the run itself. ``following`` is the address that
    leads to the next run to be read. ``superseded`` gives the page of the run that holds more of the series, if any,
    and ``live`` the address of the events that say so while a page is open.
    """

    above: Callable[[Request], Above] | None = None
    is_compared: bool = False
    earlier: EarlierRuns | None = None
    is_correctable: bool = False
    called: str = ""
    sent: Callable[[Request], Sequence[str]] | None = None
    following: Callable[[Request], str] | None = None
    superseded: Callable[[Request], Successor | None] | None = None
    live: Callable[[Request], str] | None = None


WaysOn = Callable[[Request, CarinaError], Sequence[Above]]
"""Gives the pages to which one can go on from an error."""

NO_RUN = frozenset({"run.no-manifest", "cohort.case"})
"""Codes of errors that say that there is no such run."""


def run_values(request: Request, opened: OpenedRun, around: Around) -> dict[str, Any]:
    """What the header of every page of a run says: which run it is, by date and name, and where its pages are."""
    run = opened.run
    heading = opened.once("heading", lambda: run_heading(run, around.called))
    above = around.above(request) if around.above else None
    values = {"manifest": run.manifest, "heading": heading, "reports": report_names(run)}
    values |= {"following": around.following(request) if around.following else ""}
    values |= {"successor": around.superseded(request) if around.superseded else None}
    values |= {"live": around.live(request) if around.live else ""}
    return values | {"around": around, "above": above}


def run_heading(run: Run, called: str) -> str:
    """How pages name a run: the study's date and the name of its folder, behind what such a folder is called."""
    on = scanned_on(run)
    name = f"{called}{run.folder.resolve().name}"
    return f"{on}, {name}" if on else name


def viewer_routes(where: WhereIsRun, shelf: RunShelf | None = None, around: Around = Around()) -> list[BaseRoute]:
    """Routes relative to where they are mounted; ``shelf`` keeps the runs that were asked for last."""
    for name in RUN_TEMPLATES:  # compiled now, and not while somebody waits for the first page
        PAGES.get_template(name)
    pages = RunPages(where, shelf or RunShelf(), around)
    routes: dict[str, Endpoint] = {
        "/": pages.images,
        "/report": pages.report,
        "/files": pages.files,
        "/slice/{plane}/{index:int}.png": pages.slice,
        "/at/{z:int}/{y:int}/{x:int}.json": pages.place,
        "/volume/{size}/{name}.nii": pages.volume,
        "/volume/{size}/{name}.nii.gz": pages.volume,
        "/pdf/{name}.pdf": pages.pdf,
        "/files/{name:path}": pages.file,
    }
    ways = ways_of_run(around)
    made: list[BaseRoute] = [Route(path, answering(endpoint, ways)) for path, endpoint in routes.items()]
    return [*made, Mount("/static", RevalidatedFiles(directory=STATIC))]


class RevalidatedFiles(StaticFiles):
    """Scripts and styles that a browser may keep but must ask about: the volume viewer alone has 2.3 MB."""

    def file_response(self, *arguments: Any, **named: Any) -> Response:
        """The file, or that it has not changed."""
        answer = super().file_response(*arguments, **named)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


def ways_of_run(around: Around) -> WaysOn:
    """From an error about a run: where it was opened from, and its pages where there is such a run."""

    def ways(request: Request, error: CarinaError) -> list[Above]:
        above = [around.above(request)] if around.above and error.code != "job.unknown" else []
        return above if isinstance(error, NotThere) or error.code in NO_RUN else [*above, *pages_of_run(request)]

    return ways


def pages_of_run(request: Request) -> list[Above]:
    """The pages of the run that is shown below this address."""
    base = mounted_at(request)
    return [Above(href=f"{base}/{page}", name=page.capitalize() or "Images") for page in ("", "report", "files")]


def answering(endpoint: Endpoint, ways: WaysOn) -> Endpoint:
    """The endpoint, an error that was raised on purpose being a page that says so, and leads on by some ``ways``."""

    @wraps(endpoint)
    def answer(request: Request) -> Response:
        try:
            return endpoint(request)
        except (CarinaError, OSError) as error:
            failure = told(error)
            return error_page(request, failure, ways(request, failure), _status(failure))

    return answer


def error_page(request: Request, error: CarinaError, ways: Sequence[Above], status: int) -> Response:
    """A page that says why nothing is shown, and where to go from there."""
    values = {"error": error, "ways": ways, "is_missing": status == HTTPStatus.NOT_FOUND}
    return viewer_page(request, "error.html", values, status=status)


def _status(error: CarinaError) -> int:
    return 404 if error.code in NOT_FOUND else status_of(error)


def viewer_page(request: Request, template: str, values: Mapping[str, Any], status: int = 200) -> Response:
    """A page of the viewer; ``values`` are those of its template beside what every page says."""
    base = mounted_at(request)
    caller = getattr(request.state, "caller", None)  # of a node; nobody is asked for by `carina view`
    common: dict[str, Any] = {"base": base, "notice": RESEARCH_ONLY, "version": __version__, "build": f"{base}/static"}
    common |= {"caller": caller, "path": request.url.path, "tell": getattr(request.state, "tell", str)}
    return HTMLResponse(PAGES.get_template(template).render(**common, **values), status_code=status)


def mounted_at(request: Request) -> str:
    """Where these routes are mounted."""
    mounted: str = request.scope.get("root_path", "")
    return mounted.rstrip("/")


class RunPages:
    """The pages and pictures of the run that a request is about."""

    def __init__(self, where: WhereIsRun, shelf: RunShelf, around: Around) -> None:
        self._where = where
        self._shelf = shelf
        self._around = around

    def _page(self, request: Request, template: str, opened: OpenedRun, values: Mapping[str, Any]) -> Response:
        return viewer_page(request, template, {**run_values(request, opened, self._around), **values})

    def _opened(self, request: Request) -> OpenedRun:
        return self._shelf.open(self._where(request))

    def images(self, request: Request) -> Response:
        """The findings beside three planes through one voxel; a run without images opens at its report."""
        opened = self._opened(request)
        if not opened.has_images:
            return RedirectResponse(f"{mounted_at(request)}/report")
        drawing = Drawing.asked(request.query_params)
        images = opened.images
        at = chosen_voxel(opened, request.query_params)
        planes = shown_planes(images.volume.grid, at)
        values = {
            "found": found_by(opened.run),
            "readers": readers_state(opened.run),
            "lesions": opened.lesions,
            "ml": ml_text,
            "chosen": next((site.number for site in opened.lesions if tuple(site.index) == tuple(at)), 0),
            "at": at,
            "outside": outside_words(opened, request.query_params),
            "place": place_words(images, at),
            "planes": planes,
            "words": {plane.name: slice_words(images, plane.name, plane.index) for plane in planes},
            "drawing": drawing,
            "saliency": saliency_legend(opened.run),
            "drawn": list(LayerStyle),
            "windows": WINDOWS,
            "scene": {**scene_facts(opened, mounted_at(request), at), "built": VOLUME_VIEWER.is_file()},
        }
        return self._page(request, "images.html", opened, values)

    def report(self, request: Request) -> Response:
        """Findings, histogram and provenance."""
        opened = self._opened(request)
        values = {
            "found": found_by(opened.run),
            "readers": readers_state(opened.run),
            "chart": opened.once("chart", lambda: _chart(opened)),
            "field": (FIELD_WIDTH, FIELD_HEIGHT),
            "sent": self._around.sent(request) if self._around.sent else _sent_by_itself(opened.run),
            "change": _change(opened.run, self._around.earlier(request) if self._around.earlier else {}),
        }
        return self._page(request, "report.html", opened, values)

    def files(self, request: Request) -> Response:
        """Every file of the run, to be downloaded."""
        opened = self._opened(request)
        return self._page(request, "files.html", opened, {"files": stored_files(opened.run)})

    def slice(self, request: Request) -> Response:
        """One slice as PNG."""
        opened = self._opened(request)
        plane, index = request.path_params["plane"], request.path_params["index"]
        drawing = Drawing.asked(request.query_params)
        with opened.drawing:
            png = slice_png(opened, plane, index, drawing)
        return Response(png, media_type="image/png")

    def place(self, request: Request) -> Response:
        """What a voxel and the three planes through it show, in words, for who moved there."""
        images = self._opened(request).images
        grid = images.volume.grid
        at = voxel_in(grid, tuple(request.path_params[axis] for axis in "zyx"))
        slices = {name: slice_words(images, name, at[layout(grid, name).normal]) for name in PLANES}
        return JSONResponse({"place": place_words(images, at), "slices": slices})

    def volume(self, request: Request) -> Response:
        """The CT or a mask as NIfTI."""
        opened, size, name = self._opened(request), request.path_params["size"], request.path_params["name"]
        layer = solid_layer(opened, name) if size == SOLID else layer_of(opened, size, name)
        parts = layer.parts(compress=request.url.path.endswith(".gz"))
        if size in (QUARTER, SOLID):  # small, and at once: to send each part takes as long as to make it
            return Response(b"".join(parts), media_type="application/octet-stream")
        return StreamingResponse(parts, media_type="application/octet-stream")

    def pdf(self, request: Request) -> Response:
        """The PDF that went to the PACS."""
        pdf = pdf_inside(self._opened(request).run, request.path_params["name"])
        return Response(pdf, media_type="application/pdf")

    def file(self, request: Request) -> Response:
        """One file of the run, as a download."""
        path = stored_file(self._opened(request).run, request.path_params["name"])
        return FileResponse(path, media_type="application/octet-stream", filename=path.name)


def _sent_by_itself(run: Run) -> list[str]:
    """To where a run sent its results when it had made them, as its manifest says."""
    names = run.manifest.settings.get("destinations") or ()
    return [f"by the run itself, to {', '.join(map(str, names))}" if names else "nothing by the run itself"]


def _change(run: Run, earlier: Mapping[int, Path]) -> dict[str, Any]:
    """What changed since the first of the earlier runs, in sentences, and over all of them; nothing where none is."""
    scans, this = earlier_findings(earlier), earlier_findings({0: run.folder}).get(0)
    if not scans or this is None:
        return {}
    number = next(iter(scans))
    sentences = change_sentences(LesionChange(earlier=scans[number], later=this))
    every = [*scans.values(), this]
    return {"sentences": sentences, "charts": time_charts(every), "note": cut_note(every), "number": number}


def _chart(opened: OpenedRun) -> Any:
    if not opened.has_images:
        return None
    images = opened.whole
    found = None if images.lung is None else hu_histogram(images.volume, images.lung, images.lesion)
    return None if found is None else hu_chart(found)
