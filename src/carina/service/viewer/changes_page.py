"""A run beside earlier runs of the same patient: slices of the same height, and what changed over time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from carina.api.compared import earlier_findings, scan_findings, scanned_on
from carina.api.result import Run
from carina.corrections.decisions import readers_state
from carina.errors import BadConfig
from carina.measure.change import (
    LesionChange,
    LungHeight,
    MatchedHeights,
    ScanFindings,
    lung_height,
    matched_heights,
)
from carina.measure.texts import ml_text, percent_text
from carina.report.change import change_sentences, cut_note, day_text
from carina.report.overlay import layout
from carina.service.viewer.chart import FIELD_HEIGHT, FIELD_WIDTH, time_charts
from carina.service.viewer.found import readers_words
from carina.service.viewer.opened import OpenedRun, RunShelf
from carina.service.viewer.routes import (
    Above,
    Around,
    EarlierRuns,
    WhereIsRun,
    answering,
    mounted_at,
    run_values,
    viewer_page,
    viewer_routes,
    ways_of_run,
)
from carina.service.viewer.slices import WINDOWS, Drawing, slice_words

CHANGES = "/changes"

RemovedRuns = Callable[[Request], Mapping[int, str]]
"""Says of earlier runs that were removed which, when and why, by number."""

_SLICE = re.compile(r"[+-]?\d{1,15}(?:\.\d{0,15})?", re.ASCII)

NOTHING_EARLIER = "No earlier scan of this patient was run here, so there is nothing to compare with."


@dataclass(frozen=True, kw_only=True)
class ComparedSlice:
    """One of the two pictures: where its slices are, the one that is shown, and how its lungs' height is counted.

    Where the scan does not reach the height that is asked for, ``beyond`` says so and no slice is shown.
    """

    base: str
    title: str
    index: int
    count: int
    height: LungHeight
    words: str
    beyond: str = ""


@dataclass(frozen=True, kw_only=True)
class ScanRow:
    """A scan as a row of the table; ``link`` chooses it, and is empty for the run that is compared."""

    on: str
    lung_ml: str
    lesion_ml: str
    percent: str
    network: str
    readers: str
    link: str
    is_shown: bool


def changes_routes(
    where: WhereIsRun, earlier: EarlierRuns, shelf: RunShelf, around: Around, removed: RemovedRuns = lambda _: {}
) -> list[BaseRoute]:
    """The page of what changed, and below ``/earlier`` the pages of the runs that it is compared with."""
    page = ChangesPage(where, earlier, shelf, replace(around, is_compared=True), removed)
    above = Above(href=f"../..{CHANGES}", name="Changes")
    runs = viewer_routes(page.earlier_run, shelf, Around(above=lambda _: above, called=around.called))
    return [Route(CHANGES, answering(page.page, ways_of_run(around))), Mount("/earlier/{number:int}", routes=runs)]


class ChangesPage:
    """The comparison of the run that a request is about with one of its earlier ones."""

    def __init__(
        self, where: WhereIsRun, earlier: EarlierRuns, shelf: RunShelf, around: Around, removed: RemovedRuns
    ) -> None:
        self._where = where
        self._earlier = earlier
        self._shelf = shelf
        self._around = around
        self._removed = removed

    def earlier_run(self, request: Request) -> Path:
        """The folder of an earlier run, by its number.

        Raises:
            BadConfig: ``changes.earlier``, there is none of that number.
        """
        folders, number = self._earlier(request), int(request.path_params["number"])
        if number not in folders:
            if said := self._removed(request).get(number):
                raise BadConfig("changes.earlier", f"there is nothing to compare with in {said}")
            known = ", ".join(str(one) for one in folders) or "none"
            raise BadConfig("changes.earlier", f"there is no earlier run {number}; known: {known}.")
        return folders[number]

    def _why_none(self, request: Request) -> list[str]:
        """Why there is nothing to compare with."""
        removed = self._removed(request).values()
        return [f"There is nothing to compare with any more in {said}" for said in removed] or [NOTHING_EARLIER]

    def page(self, request: Request) -> Response:
        """Both pictures, the sentence, the table and the charts; a sentence alone where there is nothing earlier."""
        later, folders = self._shelf.open(self._where(request)), self._earlier(request)
        around = run_values(request, later, self._around)
        if not folders:
            return viewer_page(request, "changes.html", {**around, "sentences": self._why_none(request), "rows": []})
        found = earlier_findings(folders)
        number = request.path_params["number"] = _whole(request, "earlier", next(iter(found or folders)))
        before = self._shelf.open(self.earlier_run(request))
        change = LesionChange(earlier=scan_findings(before.run), later=scan_findings(later.run))
        scans = sorted((found | {0: change.later}).items(), key=lambda scan: (scan[1].on or date.max, -scan[0]))
        drawing = Drawing.asked(request.query_params)
        slices, matched, outside = _pictures(request, before, later, number)
        values = {
            "sentences": [*change_sentences(change), *_of_readers(before.run, later.run)],
            "slices": slices,
            "matched": matched,
            "outside": outside,
            "drawing": drawing,
            "windows": WINDOWS,
            "earlier": number,
            "rows": [
                _row(n, scan, Run(folders[n]) if n else later.run, is_shown=n in (0, number)) for n, scan in scans
            ],
            "charts": time_charts([scan for _, scan in scans]),
            "note": cut_note(scan for _, scan in scans),
            "field": (FIELD_WIDTH, FIELD_HEIGHT),
        }
        return viewer_page(request, "changes.html", around | values)


def _of_readers(earlier: Run, later: Run) -> Iterator[str]:
    """Where a reader let a mask not stand that the figures above are of: they are the networks'."""
    for which, run in (("the earlier scan", earlier), ("this scan", later)):
        decided = readers_state(run)
        if decided.differing:
            said = readers_words(replace(decided, decisions=decided.differing))
            yield f"The figures above are the networks'. A reader differs for {which}: {said}."


def _pictures(
    request: Request, before: OpenedRun, later: OpenedRun, number: int
) -> tuple[list[ComparedSlice], str, str]:
    """Both slices, the earlier first, and how they are matched, in words; and that another one was asked for.

    There are none where one of the runs has no images or no lungs.
    """
    heights = [_height(opened) for opened in (before, later)]
    if heights[0] is None or heights[1] is None:
        return [], "", ""
    base, matched, last = mounted_at(request), matched_heights(heights[0], heights[1]), _count(later) - 1
    asked = _slice_asked(request, _usual_slice(before, later, matched))
    index = min(max(asked, 0), last)
    outside = f"There is no axial slice {asked} in this scan, which has 0 to {last}: the nearest, {index}, is shown."
    beside = _picture(before, matched.earlier, f"{base}/earlier/{number}", "Earlier", matched.later.share(index))
    this = _picture(later, matched.later, base, "This scan", matched.later.share(index))
    words = _matched_words(heights[0], heights[1], matched.shown)
    return [beside, replace(this, index=index)], words, "" if index == asked else outside


def _usual_slice(before: OpenedRun, later: OpenedRun, matched: MatchedHeights) -> int:
    """The slice of the largest lesion that both scans show; where they show none, the nearest to it that both have."""
    own, there = layout(later.images.volume.grid, "axial").normal, _count(before)
    lesions = [site.index[own] for site in later.lesions] or [matched.later.index(0.5)]
    both = [at for at in range(_count(later)) if not matched.earlier.beyond_mm(matched.later.share(at), there)]
    shown = [at for at in lesions if at in both]
    return shown[0] if shown else min(both, key=lambda at: abs(at - lesions[0]), default=lesions[0])


def _matched_words(earlier: LungHeight, later: LungHeight, shown: str) -> str:
    cut = [one.is_base_cut or one.is_apex_cut for one in (earlier, later)]
    if not any(cut):
        return "Slices are matched by their height between the base and the apex of the lungs"
    if not shown:
        said = "The two scans show no end of the lungs in common"
        return f"{said}, so slices are matched only roughly, by the height that each shows"
    who = "Both scans end" if all(cut) else "The earlier scan ends" if cut[0] else "This scan ends"
    lacking = "base" if shown == "apex" else "apex"
    return f"{who} before the {lacking} of the lungs, so slices are matched by their distance in mm from the {shown}"


def _height(opened: OpenedRun) -> LungHeight | None:
    if not opened.has_images or opened.images.lung is None:
        return None
    return lung_height(opened.images.lung, layout(opened.images.volume.grid, "axial").normal)


def _count(opened: OpenedRun) -> int:
    """How many axial slices a scan has."""
    grid = opened.images.volume.grid
    return grid.shape[layout(grid, "axial").normal]


def _beyond_words(beyond_mm: float) -> str:
    """That the earlier scan has no slice at a height; the page's script says the same."""
    where = "below" if beyond_mm > 0 else "above"
    return f"The earlier scan does not reach here: it ends {max(int(abs(beyond_mm) + 0.5), 1)} mm {where}."


def _picture(opened: OpenedRun, height: LungHeight, base: str, title: str, share: float) -> ComparedSlice:
    count = _count(opened)
    shown = min(max(height.index(share), 0), count - 1)
    beyond_mm = height.beyond_mm(share, count)
    on = scanned_on(opened.run)
    return ComparedSlice(
        base=base,
        title=f"{title}{f', {on}' if on else ''}",
        index=shown,
        count=count,
        height=height,
        words=slice_words(opened.images, "axial", shown),
        beyond=_beyond_words(beyond_mm) if beyond_mm else "",
    )


def _row(number: int, scan: ScanFindings, run: Run, *, is_shown: bool) -> ScanRow:
    return ScanRow(
        on=day_text(scan),
        lung_ml=ml_text(scan.lungs.lung_ml),
        lesion_ml=ml_text(scan.lungs.lesion_ml),
        percent=percent_text(scan.lungs.ratio_percent),
        network=scan.network or "\u2013",
        readers=readers_words(readers_state(run)) or "\u2013",
        link=f"?earlier={number}" if number else "",
        is_shown=is_shown,
    )


def _slice_asked(request: Request, usual: int) -> int:
    """The slice that a link names, in the volume or not; the usual one where it names none."""
    found = _SLICE.fullmatch(request.query_params.get("at", ""))
    return round(float(found[0])) if found else usual


def _whole(request: Request, key: str, usual: int) -> int:
    text = request.query_params.get(key, "")
    if not text:
        return usual
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise BadConfig("changes.asked", f"{key}={text!r}: expected a whole number.")
    return int(text)
