"""Correcting a run's masks: the page, the strokes one by one, finishing, accepting, rejecting, sending."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from carina.api.result import Run
from carina.corrections.decisions import LONGEST_REJECTION, decide, decision_on, readers_state, rejected_corrections
from carina.corrections.finish import (
    SEG_NAMES,
    Busy,
    Draft,
    Unchanged,
    finish,
    finished_folder,
    finished_of,
    unchanged,
)
from carina.corrections.masks import MaskName, layer_named, masks_made, strokes_file
from carina.corrections.painting import Author, Change, Overtaken, Painting, labels_sha256
from carina.corrections.regions import Growth, alike, enclosed
from carina.corrections.standing import Decision
from carina.errors import CarinaError, told
from carina.jobs.sources import GoneSource
from carina.pipeline.json_text import read_json
from carina.report.overlay import layout
from carina.service.problems import Conflict, NotUnderstood, problem, said_to, status_of
from carina.service.viewer.opened import OpenedRun, RunShelf
from carina.service.viewer.painting_shelf import PaintingShelf
from carina.service.viewer.routes import Around, WhereIsRun, answering, mounted_at, run_values, viewer_page, ways_of_run
from carina.service.viewer.scene import chosen_voxel, outside_words, scene_facts, shown_planes
from carina.service.viewer.slices import WINDOWS, voxel_in
from carina.service.viewer.stamps import decided_stamp, painted_stamp_now
from carina.service.viewer.strokes import DecisionAsked, Said, SendAsked, StrokeAsked, stroke_stored
from carina.service.viewer.ways_to_correct import Correcting, gone_from, is_of_volume_file

LONGEST_STROKE = 16 * 2**20
"""Of what is asked at once; a brush as wide as a slice takes some kilobytes."""

KEYS_OF_LABELS: Mapping[MaskName, str] = {MaskName.LUNG: "l", MaskName.LESION: "o"}
"""The keys by which a mask is chosen to be painted: those that show and hide it where slices are looked at."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """A mask that can be chosen to be painted, and whether strokes of it wait to be finished."""

    name: MaskName
    key: str
    is_unfinished: bool


CorrectionAsked = TypeVar("CorrectionAsked", bound=msgspec.Struct)


def correct_routes(where: WhereIsRun, shelf: RunShelf, around: Around, how: Correcting) -> list[BaseRoute]:
    """The routes below ``/correct``, to stand before those of ``viewer_routes``."""
    pages, ways = CorrectingPages(where, shelf, around, how), ways_of_run(around)
    return [
        Route("/correct/{layer}", answering(pages.show, ways)),
        Route("/correct/{layer}/mask.json", answering(pages.mask, ways)),
        Route("/correct/{layer}/standing.json", answering(pages.standing, ways)),
        Route("/correct/{layer}/strokes", pages.stroke, methods=["POST"]),
        Route("/correct/{layer}/decision", pages.decide, methods=["POST"]),
        Route("/correct/{layer}/send", pages.send, methods=["POST"]),
    ]


class CorrectingPages:
    """The page of a mask and what its script asks for."""

    def __init__(self, where: WhereIsRun, shelf: RunShelf, around: Around, how: Correcting) -> None:
        self._where = where
        self._runs = shelf
        self._around = around
        self._how = how
        self._shelf = PaintingShelf()

    def show(self, request: Request) -> Response:
        """The page: three planes to paint on, what was decided and finished; of a mask that the run did make."""
        opened = self._runs.open(self._where(request))
        run, layer = opened.run, layer_named(request.path_params["layer"])
        made = masks_made(run)
        if made and layer not in made:
            query = f"?{request.url.query}" if request.url.query else ""
            return RedirectResponse(f"{mounted_at(request)}/correct/{made[0]}{query}")
        painting, decided = self._shelf.open(opened, layer), self._decided(request, run)  # before it is read
        at, gone = chosen_voxel(opened, request.query_params), gone_from(self._how, request, run)
        values = run_values(request, opened, self._around) | {
            "layer": layer,
            "labels": [self._label(opened, name) for name in made],
            "unread": _unread(run, layer),
            "missing": [name for name in MaskName if name not in made],
            "at": at,
            "outside": outside_words(opened, request.query_params),
            "planes": shown_planes(opened.images.volume.grid, at),
            "windows": WINDOWS,
            "decision": decision_on(run, layer),
            "decided": decided,
            "finished": finished_of(run.folder, layer),
            "seg": SEG_NAMES[layer],
            "longest_reason": LONGEST_REJECTION,
            "rejected": rejected_corrections(run, layer),
            "can_send": self._how.send is not None,
            "may_send": self._how.may_send(request),
            "destinations": self._how.destinations(request),
            "sendings": self._how.sendings(request),
            "is_of_file": is_of_volume_file(run),
            "is_source_known": self._is_source_known(run),
            "gone": gone,
            "reader": self._how.reader(request),
            "offered": self._how.offered(request),
            "scene": scene_facts(opened, mounted_at(request), at)
            | {"layer": layer, "sha256": painting.base_digest, "revision": painting.revision}
            | {"others": [name for name in made if name != layer]}
            | {"gone": _words_for_good(gone)},
            "is_unfinished": _is_unfinished(run, layer, painting),
            "readers": (readers := readers_state(run)),
            "last": readers.measured,
            "sent": self._around.sent(request) if self._around.sent else (),
        }
        return viewer_page(request, "correct.html", values)

    def _label(self, opened: OpenedRun, name: MaskName) -> Label:
        is_painted = strokes_file(opened.run.folder, name).exists()
        is_unfinished = is_painted and _is_unfinished(opened.run, name, self._shelf.open(opened, name))
        return Label(name=name, key=KEYS_OF_LABELS[name], is_unfinished=is_unfinished)

    def _is_source_known(self, run: Run) -> bool:
        return self._how.is_source_known or run.is_deidentified

    def mask(self, request: Request) -> Response:
        """The mask as it is now, as runs."""
        opened, layer, painting = self._painting(request)
        change = Change(value=1, runs=painting.runs)
        is_unfinished = _is_unfinished(opened.run, layer, painting)
        return _json(
            stroke_stored(painting, change, finished_of(opened.run.folder, layer), is_unfinished=is_unfinished)
        )

    def standing(self, request: Request) -> Response:
        """Whether anybody painted, finished or decided since, and who is logged in now.

        Read from the folder, however many masks are open.
        """
        run, layer = Run(self._where(request)), layer_named(request.path_params["layer"])
        stamps = {"stamp": painted_stamp_now(run, layer), "decided": self._decided(request, run)}
        return _json(stamps | {"reader": self._how.reader(request)})

    def _decided(self, request: Request, run: Run) -> str:
        """Another one once anybody decided about a mask of a run, or another run came in its place, or got further."""
        successor = self._around.superseded(request) if self._around.superseded else None
        return f"{decided_stamp(run)} {successor.page.name} {successor.words}" if successor else decided_stamp(run)

    async def stroke(self, request: Request) -> Response:
        """Store a stroke; it is on the disk before the answer."""
        return await _answered(request, StrokeAsked, self._stroke)

    async def decide(self, request: Request) -> Response:
        """Accept or reject a mask, or finish its correction."""
        return await _answered(request, DecisionAsked, self._decide)

    async def send(self, request: Request) -> Response:
        """Send a finished correction's object out."""
        return await _answered(request, SendAsked, self._send)

    def _painting(self, request: Request) -> tuple[OpenedRun, MaskName, Painting]:
        opened = self._runs.open(self._where(request))
        layer = layer_named(request.path_params["layer"])
        return opened, layer, self._shelf.open(opened, layer)

    def _stroke(self, request: Request, asked: StrokeAsked) -> msgspec.Struct:
        opened, layer, painting = self._painting(request)
        author = Author(reader=self._name(request, asked.reader), at=datetime.now(UTC), id=asked.id)
        _check_takes(gone_from(self._how, request, opened.run), opened.run, layer, painting, asked)
        if asked.tool == "undo":
            change = painting.undo(author, asked.revision, is_own=asked.is_own)
        elif asked.tool == "redo":
            change = painting.redo(author, asked.revision, is_own=asked.is_own)
        else:
            runs = _runs(opened, painting, asked)
            change = painting.paint(runs, int(asked.tool != "eraser"), asked.tool, author, asked.revision)
        is_painted = asked.tool not in ("undo", "redo") and bool(change.runs)  # the digest of a mask takes its time
        is_unfinished = is_painted or _is_unfinished(opened.run, layer, painting)
        return stroke_stored(painting, change, finished_of(opened.run.folder, layer), is_unfinished=is_unfinished)

    def _decide(self, request: Request, asked: DecisionAsked) -> msgspec.Struct:
        opened, layer, painting = self._painting(request)
        labels, revision = painting.now()
        if asked.revision != revision:
            raise painting.overtaken("Look at it as it is now, then decide.")
        reader, now = self._name(request, asked.reader), datetime.now(UTC)
        is_unfinished = _is_unfinished(opened.run, layer, painting)
        gone = gone_from(self._how, request, opened.run) if is_unfinished else None
        if asked.decision is Decision.CORRECTED:
            if not is_unfinished:
                raise unchanged(layer, finished_of(opened.run.folder, layer))
            if gone is not None:
                raise Conflict(gone.code, gone.words)
            people = painting.painters(revision)
            draft = Draft(layer=layer, labels=labels, revision=revision, reader=reader, painters=people, at=now)
            number = finish(opened.run, draft, self._how.source(request, opened.run)).number
        elif is_unfinished:
            raise _unfinished(gone)
        else:
            number = decide(opened.run, layer, asked.decision, reader, now, asked.reason).correction
        self._how.note(request, _deed(layer, asked.decision, number))
        self._how.decided(request, opened.run)
        return Said(said=f"The {layer} mask is {asked.decision}.{self._withdrawn(request, opened.run, layer)}")

    def _withdrawn(self, request: Request, run: Run, layer: MaskName) -> str:
        """What was taken back of the corrections that waited to be sent and don't hold, in sentences; else empty."""
        *replaced, latest = [one.number for one in finished_of(run.folder, layer)] or [0]
        said = ""
        for number in sorted({*replaced, *rejected_corrections(run, layer)}):
            waited = ", ".join(sorted(self._how.withdraw(request, _object_of(run, layer, number))))
            why = f": correction {latest} is in its place, and goes there once it is sent" if number != latest else ""
            said += f" Correction {number}, which waited for {waited}, is not sent{why}." if waited else ""
        return said

    def _send(self, request: Request, asked: SendAsked) -> msgspec.Struct:
        self._check_page(request, asked.reader)
        opened, layer, _ = self._painting(request)
        path = _object_of(opened.run, layer, asked.number)
        if self._how.send is None or not path.is_file():
            raise Conflict("corrections.no-object", "there is no object of this correction that could be sent.")
        if (rejected := rejected_corrections(opened.run, layer).get(asked.number)) is not None:
            raise Conflict(
                "corrections.rejected",
                f"correction {asked.number} of the {layer} mask was rejected by {rejected.reader}, so it is not sent: "
                "finish one that holds, or accept this one again, then send it.",
            )
        if asked.number != (latest := finished_of(opened.run.folder, layer)[-1].number):
            raise Conflict(
                "corrections.replaced",
                f"correction {asked.number} of the {layer} mask was replaced by correction {latest}: send that one.",
            )
        withdrawn = self._withdrawn(request, opened.run, layer)  # the node may have died before it was
        said = f"{self._how.send(request, path)}{withdrawn}"
        self._how.note(request, _deed(layer, "sent", asked.number))
        return Said(said=said)

    def _name(self, request: Request, given: str) -> str:
        """Who is logged in, else who they say they are.

        Raises:
            Conflict: as of ``_check_page``.
            NotUnderstood: ``corrections.no-name``, nobody need log in, and no name was given.
        """
        self._check_page(request, given)
        reader, said = self._how.reader(request), given.strip()
        if not reader and not said:
            words = "give your name first: it stands beside each stroke and decision."
            raise NotUnderstood("corrections.no-name", words)
        return reader or said

    def _check_page(self, request: Request, given: str) -> None:
        """See that the page is that of who is logged in now; ``given`` is whose it is.

        Raises:
            Conflict: ``corrections.another-reader``, it was opened by somebody else.
        """
        reader, said = self._how.reader(request), given.strip()
        if reader and said and said != reader:
            raise Conflict(
                "corrections.another-reader",
                f"this page is that of {said}, and {reader} is logged in now: log in as {said} again, or open the page "
                f"anew to go on as {reader}.",
            )


def _deed(layer: MaskName, what: str, number: int) -> str:
    """What was done with a mask; ``number`` is that of the finished correction, 0 the network's own."""
    return f"{layer} mask {what}" + (f" (correction {number})" if number else "")


def _unread(run: Run, layer: MaskName) -> list[MaskName]:
    """The other masks of a run, as far as no reader has looked at them."""
    return [name for name in masks_made(run) if name != layer and not decision_on(run, name)]


def _object_of(run: Run, layer: MaskName, number: int) -> Path:
    return finished_folder(run.folder, layer, number) / "dicom" / f"{SEG_NAMES[layer]}.dcm"


def _is_unfinished(run: Run, layer: MaskName, painting: Painting) -> bool:
    """Whether the mask differs from the last finished correction, or else from the network's."""
    done = finished_of(run.folder, layer)
    labels, _ = painting.now()
    return labels_sha256(labels) != (done[-1].sha256 if done else painting.base_digest)


def _words_for_good(gone: GoneSource | None) -> str:
    """What a page says instead of taking a stroke; empty where it takes one."""
    return gone.words if gone is not None and gone.is_for_good else ""


def _check_takes(gone: GoneSource | None, run: Run, layer: MaskName, painting: Painting, asked: StrokeAsked) -> None:
    """See that a stroke can be finished, or leads back to a mask that is.

    Raises:
        Conflict: ``corrections.series-gone``, the series is gone for good.
    """
    if gone is None or not gone.is_for_good:
        return
    if asked.tool not in ("undo", "redo") or not _is_unfinished(run, layer, painting):
        raise Conflict(gone.code, gone.words)


def _unfinished(gone: GoneSource | None) -> Conflict:
    """The error of who decides about a mask with strokes that nobody finished."""
    said = "what was painted is not finished: finish the correction, or undo the strokes, then decide."
    if gone is not None and gone.is_for_good:
        said = f"what was painted can't be finished, since {gone.said}: undo the strokes, then decide."
    return Conflict("corrections.unfinished", said)


def _runs(opened: OpenedRun, painting: Painting, asked: StrokeAsked) -> list[int]:
    if asked.tool not in ("fill", "grow"):
        return asked.runs
    grid = opened.images.volume.grid
    if asked.at is None:
        raise NotUnderstood("corrections.at", f"{asked.tool} needs the voxel from which it starts: give it as at.")
    at = voxel_in(grid, asked.at)
    if asked.tool == "fill":
        marks = painting.marks.reshape(grid.shape) > 0
        return enclosed(marks, at, layout(grid, asked.plane).normal)
    whole = opened.whole
    how = Growth(tolerance_hu=asked.tolerance_hu, reach_mm=asked.reach_mm)
    return alike(whole.volume, at, how, None if whole.lung is None else whole.lung.labels > 0)


async def _answered(
    request: Request, kind: type[CorrectionAsked], do: Callable[[Request, CorrectionAsked], msgspec.Struct]
) -> Response:
    """What a deed gives as JSON; an error that was raised on purpose as a problem."""
    try:
        asked = _understood(await _body(request), kind)
        return _json(await run_in_threadpool(do, request, asked))
    except (CarinaError, OSError) as error:
        failure = told(error)
        status = 409 if isinstance(failure, Busy | Overtaken | Unchanged) else status_of(failure)
        return problem(status, failure.code, said_to(request, failure))


async def _body(request: Request) -> bytes:
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise NotUnderstood("corrections.body", "the request's body is no JSON: send it as application/json.")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_STROKE:
            raise NotUnderstood("corrections.body", f"the request's body is longer than {LONGEST_STROKE} bytes.")
    return bytes(body)


def _understood(body: bytes, kind: type[CorrectionAsked]) -> CorrectionAsked:
    try:
        return read_json(body, kind)
    except ValueError as error:
        raise NotUnderstood("corrections.body", f"the request can't be understood ({error}).") from error


def _json(value: msgspec.Struct | dict[str, str]) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
