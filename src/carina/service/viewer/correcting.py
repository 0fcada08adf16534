"""Correcting a run's masks: the page, the strokes one by one, finishing, accepting, rejecting, sending."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from carina.api.study import choose_series
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
from carina.dicom.series import Source
from carina.errors import BadConfig, CarinaError, told
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


@dataclass(frozen=True, kw_only=True)
class Correcting:
    """What the pages must be told to let masks be corrected.

    ``source`` gives what a run was made from, for the new object; None where that is a volume file. ``reader`` gives
    who is logged in, empty where nobody need be: the page then asks for a name, ``offered`` first. ``note`` enters a
    deed in an audit trail, ``decided`` takes notice of a decision. ``send`` sends an object out and says to where,
    where there is a way, and ``may_send`` whether whoever asks may; ``withdraw`` takes one back that nobody has begun
    to send, and says for whom it waited. ``destinations`` are those that it would be sent to, by name, and
    ``sendings`` what became of each that was to be sent, by its SOP Instance UID.
    ``is_source_known`` says that a series to look for was named at all.
    """

    source: Callable[[Request, Run], Source | None]
    reader: Callable[[Request], str] = lambda _: ""
    offered: Callable[[Request], str] = lambda _: ""
    note: Callable[[Request, str], None] = lambda _request, _deed: None
    decided: Callable[[Request, Run], None] = lambda _request, _run: None
    send: Callable[[Request, Path], str] | None = None
    may_send: Callable[[Request], bool] = lambda _: True
    withdraw: Callable[[Request, Path], Sequence[str]] = lambda _request, _path: ()
    destinations: Callable[[Request], Sequence[str]] = lambda _: ()
    sendings: Callable[[Request], Mapping[str, str]] = lambda _: {}
    is_source_known: bool = True


def is_of_volume_file(run: Run) -> bool:
    """Whether a run was made from a volume file, of whose study no object can be."""
    return run.manifest.inputs.get("kind") == "volume file"


def source_of_run(run: Run, path: Path | None) -> Source | None:
    """The series from which a run was made, below a path; None of a run that was made from a volume file.

    Of a run that took the patient out it is the series without the patient, for the correction's object to be of.

    Raises:
        BadConfig: ``corrections.no-source``, no path is known; ``run.no-series``.
        BadSeries: the series is not there, or can't be used.
    """
    if is_of_volume_file(run):
        return None
    if run.is_deidentified:
        return run.deidentified()
    if path is None:
        raise BadConfig(
            "corrections.no-source",
            "a DICOM Segmentation needs the series from which the run was made: start carina view with --source and "
            "the folder from which the run or the cohort was made, then finish; every stroke is kept.",
        )
    return choose_series(path, uid=str(run.manifest.inputs.get("series_uid", "")))


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
        at = chosen_voxel(opened, request.query_params)
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
            "reader": self._how.reader(request),
            "offered": self._how.offered(request),
            "scene": scene_facts(opened, mounted_at(request), at)
            | {"layer": layer, "sha256": painting.base_digest, "revision": painting.revision}
            | {"others": [name for name in made if name != layer]},
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
        if asked.decision is Decision.CORRECTED:
            if not is_unfinished:
                raise unchanged(layer, finished_of(opened.run.folder, layer))
            people = painting.painters(revision)
            draft = Draft(layer=layer, labels=labels, revision=revision, reader=reader, painters=people, at=now)
            number = finish(opened.run, draft, self._how.source(request, opened.run)).number
        elif is_unfinished:
            raise Conflict(
                "corrections.unfinished",
                "what was painted is not finished: finish the correction, or undo the strokes, then decide.",
            )
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
