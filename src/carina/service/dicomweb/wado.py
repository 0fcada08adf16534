"""QIDO-RS and WADO-RS as routes (PS3.18 10.4 and 10.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from pydicom.uid import EncapsulatedPDFStorage
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from carina.deliver.dicomweb import DICOM_JSON
from carina.dicom.part10 import open_file
from carina.service.dicomweb.accept import ANY, BodyPart, Multipart, Wish, check_takes_json, wishes
from carina.service.dicomweb.attributes import hex_tag
from carina.service.dicomweb.frames import OCTETS, FrameSource
from carina.service.dicomweb.held import Held, Holding, holding_of
from carina.service.dicomweb.left_out import check_not_damaged, check_whole, damaged_warnings
from carina.service.dicomweb.metadata import as_dicom_json, bulk_data, metadata_of
from carina.service.dicomweb.qido import Level, parse_query, search, within
from carina.service.dicomweb.reach import FileAnswer, file_blocks, reached
from carina.service.dicomweb.rendered import PDF, encapsulated, look_of, rendered
from carina.service.node import RunningNode, seen_node
from carina.service.problems import NotAcceptable, NotThere, NotUnderstood

ROOT = "/dicom-web"
DICOM = "application/dicom"
_CHUNK = 1 << 18
HEAD_AND_FIRST = 2
"""Blocks of a multipart answer that are read before it begins: the head of its first part, and bytes of that."""

_MOST_FRAMES = 10_000

PATH_UIDS = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}

FUZZY = '299 carina "The fuzzymatching parameter is not supported. Only literal matching has been performed."'
UNMATCHED = '299 carina "These keys are not supported for matching, and were ignored: {}"'
MORE = '299 carina "There are additional results that can be requested"'


def dicomweb_routes() -> list[BaseRoute]:
    """Every route of QIDO-RS and WADO-RS."""
    study, series, one = "/studies/{study}", "/series/{series}", "/instances/{instance}"
    searches = [
        ("/studies", Level.STUDY),
        ("/series", Level.SERIES),
        ("/instances", Level.INSTANCE),
        (f"{study}/series", Level.SERIES),
        (f"{study}/instances", Level.INSTANCE),
        (f"{study}{series}/instances", Level.INSTANCE),
    ]
    found: list[BaseRoute] = [Route(ROOT + path, reached(_search(level)), methods=["GET"]) for path, level in searches]
    for path in (study, study + series, study + series + one):
        found.append(Route(ROOT + path, reached(retrieve)))
        found.append(Route(f"{ROOT}{path}/metadata", reached(retrieve_metadata)))
    instance = ROOT + study + series + one
    return [
        *found,
        Route(f"{instance}/rendered", reached(retrieve_rendered)),
        Route(f"{instance}/frames", reached(retrieve_frames)),
        Route(f"{instance}/frames/{{frames}}", reached(retrieve_frames)),
        Route(f"{instance}/frames/{{frames}}/rendered", reached(retrieve_rendered)),
        Route(f"{instance}/bulkdata/{{tag}}", reached(retrieve_bulk_data)),
    ]


def _search(level: Level) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        fixed = {PATH_UIDS[name]: str(value) for name, value in request.path_params.items()}
        check_takes_json(taken_forms(request), "searches and metadata are")
        query = parse_query(level, fixed, request.query_params.multi_items())
        found = search(_node(request), query, service_root(request))
        request.state.shows_nothing = bool(fixed) and not found.records  # of a study that is not here, or not seen
        is_fuzzy = request.query_params.get("fuzzymatching", "").strip().lower() == "true"
        unmatched = [UNMATCHED.format(" ".join(query.unmatched))] if query.unmatched else []
        warnings = [FUZZY] * is_fuzzy + unmatched + [MORE] * found.has_more
        headers = _warned([*warnings, *found.warnings])
        return Response(msgspec.json.encode(found.records), media_type=DICOM_JSON, headers=headers)

    return answer


def _warned(warnings: Sequence[str]) -> dict[str, str]:
    return {"Warning": ", ".join(warnings)} if warnings else {}


def retrieve(request: Request) -> Response:
    """The objects of a study or series, or one object, as they are stored."""
    node, asked = _node(request), _asked(request)
    wish = _dicom_wish(request, asked.sound)
    headers = _warned(damaged_warnings(asked.damaged))
    if not wish.takes_parts and len(asked.sound) == 1:
        return FileAnswer(_stored(node, asked.sound[0]), DICOM, headers=headers)
    answer = Multipart(DICOM, _parts(node, asked.sound, service_root(request)))
    return FileAnswer(iter(answer), answer.content_type, HEAD_AND_FIRST, headers)


def _dicom_wish(request: Request, objects: Sequence[Held]) -> Wish:
    """The form that the client wants the objects in, if they are stored in it.

    Raises:
        NotAcceptable: it wants another.
    """
    wanted = [wish for wish in _for_so_many(taken_forms(request), len(objects)) if wish.takes(DICOM)]
    if not wanted:
        raise NotAcceptable("dicomweb.accept", f'objects are multipart/related; type="{DICOM}".')
    found = [wish for wish in wanted if wish.syntax in ("", ANY)] or _as_stored(wanted, objects)
    if not found:
        raise NotAcceptable("dicomweb.accept", "objects are given as they are stored; ask for transfer-syntax=*.")
    return found[0]


def _for_so_many(accepted: Sequence[Wish], count: int) -> list[Wish]:
    """The wishes that so many things can be given in: one alone as itself, several as the parts of an answer."""
    return [wish for wish in accepted if wish.takes_parts or count == 1]


def _as_stored(wanted: Sequence[Wish], objects: Sequence[Held]) -> list[Wish]:
    """The wishes for the one transfer syntax in which all objects are."""
    stored = {_syntax(held) for held in objects}
    return [wish for wish in wanted if stored == {wish.syntax}]


def _syntax(held: Held) -> str:
    opened = open_file(held.path, ())
    return opened.transfer_syntax if opened else ""


def _parts(node: RunningNode, objects: Iterable[Held], root: str) -> Iterator[BodyPart]:
    for held in objects:
        yield BodyPart(content_type=DICOM, location=_url(held, root), chunks=_stored(node, held))


def _stored(node: RunningNode, held: Held) -> Iterator[bytes]:
    """The bytes of an object's file.

    Raises:
        OutOfReach: they are not what was recorded of it, or can't be read.
    """
    check_whole(node, held)
    yield from file_blocks(held.path, _CHUNK)


def retrieve_metadata(request: Request) -> Response:
    """The headers of the objects as DICOM JSON, one after the other, so that a study needs no memory of its own."""
    check_takes_json(taken_forms(request), "searches and metadata are")
    node, asked, root = _node(request), _asked(request), service_root(request)

    def written() -> Iterator[bytes]:
        for number, held in enumerate(asked.sound):
            check_whole(node, held)
            yield (b"," if number else b"[") + as_dicom_json(metadata_of(held, _url(held, root)))
        yield b"]"

    return FileAnswer(written(), DICOM_JSON, headers=_warned(damaged_warnings(asked.damaged)))


def retrieve_frames(request: Request) -> Response:
    """Frames by their numbers, parted by commas; without numbers all, as the metadata gives the address of pixels."""
    held = _object(request)
    source = FrameSource(held.path)
    numbers = _frame_numbers(request) if "frames" in request.path_params else source.numbers
    if numbers is not source.numbers:
        _check_numbers(numbers, source)
    accepted = _for_so_many(taken_forms(request), len(numbers))
    first = source.frame(numbers[0], accepted)  # what can't be given is said before the answer begins
    if len(numbers) == 1 and not first.is_part:
        return Response(first.data, headers={"Content-Type": f"{first.media_type}; transfer-syntax={first.syntax}"})
    location = f"{_url(held, service_root(request))}/frames"

    def parts() -> Iterator[BodyPart]:
        for number in numbers:
            frame = source.frame(number, accepted)
            content_type = f"{frame.media_type}; transfer-syntax={frame.syntax}"
            yield BodyPart(content_type=content_type, location=f"{location}/{number}", chunks=[frame.data])

    answer = Multipart(first.media_type, parts())
    return FileAnswer(iter(answer), answer.content_type, HEAD_AND_FIRST)


def retrieve_rendered(request: Request) -> Response:
    """A frame as a picture, a document as it is."""
    held = _object(request)
    numbers = _frame_numbers(request) if "frames" in request.path_params else [1]
    if len(numbers) > 1:
        raise NotUnderstood("dicomweb.frames", "one frame is rendered at a time; ask for each.")
    picture = rendered(held, numbers[0], look_of(dict(request.query_params)), taken_forms(request))
    if picture.is_part:
        location = str(request.url.replace(query=""))
        part = BodyPart(content_type=picture.media_type, location=location, chunks=[picture.data])
        answer = Multipart(picture.media_type, [part])
        return StreamingResponse(iter(answer), media_type=answer.content_type)
    return Response(picture.data, media_type=picture.media_type)


def retrieve_bulk_data(request: Request) -> Response:
    """A binary value that the metadata gives an address of; a PDF as that too, where a client asks for it."""
    held, tag = _object(request), request.path_params["tag"]
    value = bulk_data(held, tag)
    is_pdf = held.sop_class_uid == EncapsulatedPDFStorage and tag == hex_tag("EncapsulatedDocument")
    forms = (OCTETS, PDF) if is_pdf else (OCTETS,)
    chosen = next(((wish, form) for wish in taken_forms(request) for form in forms if wish.takes(form)), None)
    if chosen is None:
        raise NotAcceptable("dicomweb.accept", f"this value is {' or '.join(forms)}.")
    wish, form = chosen
    value = encapsulated(held.path) if form == PDF else value
    if wish.is_multipart:
        location = f"{_url(held, service_root(request))}/bulkdata/{tag}"
        answer = Multipart(form, [BodyPart(content_type=form, location=location, chunks=[value])])
        return StreamingResponse(iter(answer), media_type=answer.content_type)
    return Response(value, media_type=form)


def _asked(request: Request) -> Holding:
    """The objects that a path names, and those of them that are damaged.

    Raises:
        NotThere: the node holds none of them.
        OutOfReach: all that it holds of them is damaged.
    """
    named = {PATH_UIDS[name]: str(request.path_params[name]) for name in PATH_UIDS if name in request.path_params}
    asked = within(holding_of(_node(request), named["StudyInstanceUID"]), named)
    if not asked.sound:
        check_not_damaged(asked.damaged)
        raise NotThere("dicomweb.none", "this node holds no such object.")
    return asked


def _object(request: Request) -> Held:
    """The one object that a path names, whole.

    Raises:
        NotThere: the node doesn't hold it.
        OutOfReach: it is damaged.
    """
    held = _asked(request).sound[0]
    check_whole(_node(request), held)
    return held


def _frame_numbers(request: Request) -> list[int]:
    parts = request.path_params["frames"].split(",")
    if len(parts) > _MOST_FRAMES or not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
        raise NotUnderstood(
            "dicomweb.frames", f"frames are {','.join(parts)[:40]!r}; expected numbers, parted by commas."
        )
    return [int(part) for part in parts]


def _check_numbers(numbers: Sequence[int], source: FrameSource) -> None:
    """See that each frame is there, and that no more are asked for than there are: one may be named many times.

    Raises:
        NotThere: a frame is not.
        NotUnderstood: they are more.
    """
    for number in numbers:
        source.check(number)
    if len(numbers) > source.count:
        words = f"{len(numbers)} frames are asked for, of an object of {source.count}; ask for each once."
        raise NotUnderstood("dicomweb.frames", words)


def taken_forms(request: Request) -> list[Wish]:
    """What the client takes: its Accept header, or the parameter that stands for it (PS3.18 8.3.3.1)."""
    return wishes(request.query_params.get("accept") or request.headers.get("accept", ""))


def _url(held: Held, root: str) -> str:
    return f"{root}/studies/{held.study_uid}/series/{held.series_uid}/instances/{held.sop_instance_uid}"


def service_root(request: Request) -> str:
    """Where the client reaches the service: by the host that it calls, some say it without the port."""
    url = request.base_url
    server = request.scope.get("server")
    return str(url.replace(port=server[1]) if url.port is None and server else url).rstrip("/") + ROOT


def _node(request: Request) -> RunningNode:
    node = seen_node(request)
    return node
