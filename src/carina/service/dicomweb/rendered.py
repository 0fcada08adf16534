"""An object as a picture or a page that a browser shows (PS3.18 10.4.1.1.4)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.uid import EncapsulatedPDFStorage

from carina.dicom.decode import open_pixels
from carina.dicom.part10 import OpenFile, open_file
from carina.dicom.whole_file import read_whole
from carina.errors import BadSeries
from carina.service.dicomweb.accept import Wish
from carina.service.dicomweb.frames import FrameSource
from carina.service.dicomweb.held import Held
from carina.service.problems import NotAcceptable, NotUnderstood

PICTURES = {"image/jpeg": "JPEG", "image/png": "PNG"}
PDF = "application/pdf"
_KEYWORDS = ("BitsAllocated", "SamplesPerPixel", "WindowCenter", "WindowWidth", "PhotometricInterpretation")
MOST_PIXELS_WIDE = 8192
WINDOW_FUNCTIONS = ("", "linear", "linear-exact")
"""The first two differ from the last by less than half a value of the picture's input; a sigmoid is not drawn."""

USUAL_QUALITY, MOST_QUALITY = 90, 100

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a picture is to be made: window in the object's own units (HU of a CT), size in pixels, JPEG quality."""

    window: tuple[float, float] | None = None
    size: tuple[int, int] | None = None
    quality: int = USUAL_QUALITY


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A picture or page: its media type and its bytes. ``is_part``: the client takes it as the part of an answer."""

    media_type: str
    data: bytes
    is_part: bool


def look_of(parameters: dict[str, str]) -> Look:
    """What a request asks of a picture: ``window=CENTRE,WIDTH[,FUNCTION]``, ``viewport=W,H``, ``quality``.

    Raises:
        NotUnderstood: one of them can't be read, or asks for what is not done.
    """
    _check_done(parameters)
    window = _numbers(parameters, "window", parameters.get("window", "").split(",")[:2])
    size = _numbers(parameters, "viewport", parameters.get("viewport", "").split(",")[:2])
    if window and window[1] <= 0:
        raise NotUnderstood("dicomweb.query", f"window is {parameters['window'][:40]!r}; expected a width above 0.")
    if size and not all(1 <= side <= MOST_PIXELS_WIDE for side in size):
        raise NotUnderstood(
            "dicomweb.query", f"viewport is {parameters['viewport'][:40]!r}; expected 1 to 8192 pixels."
        )
    return Look(
        window=(window[0], window[1]) if window else None,
        size=(int(size[0]), int(size[1])) if size else None,
        quality=_quality(parameters),
    )


def _check_done(parameters: dict[str, str]) -> None:
    """See that nothing is asked of a picture that it would not have (PS3.18 8.3.5.1.3 and 8.3.5.1.4)."""
    region = parameters.get("viewport", "").split(",")[2:]
    if any(part.strip() for part in region):
        words = f"viewport is {parameters['viewport'][:40]!r}; expected width and height alone: no region is cut out"
        raise NotUnderstood("dicomweb.query", f"{words} or mirrored here, the whole picture is given.")
    function = ",".join(parameters.get("window", "").split(",")[2:]).strip().lower()
    if function not in WINDOW_FUNCTIONS:
        words = f"window is {parameters['window'][:40]!r}; expected centre and width"
        raise NotUnderstood("dicomweb.query", f"{words}, and of the functions linear or linear-exact.")


def _quality(parameters: dict[str, str]) -> int:
    (quality,) = _numbers(parameters, "quality", [parameters.get("quality", "")]) or (USUAL_QUALITY,)
    if not 1 <= quality <= MOST_QUALITY:
        words = f"quality is {parameters['quality'][:40]!r}; expected 1 to {MOST_QUALITY}."
        raise NotUnderstood("dicomweb.query", words)
    return int(quality)


def _numbers(parameters: dict[str, str], name: str, parts: list[str]) -> tuple[float, ...]:
    if not parameters.get(name):
        return ()
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        numbers = ()
    if len(numbers) != (1 if name == "quality" else 2) or not np.all(np.isfinite(numbers)):
        raise NotUnderstood(
            "dicomweb.query", f"{name} is {parameters[name][:40]!r}; expected numbers, parted by commas."
        )
    return numbers


def rendered(held: Held, frame: int, look: Look, wishes: list[Wish]) -> Rendered:
    """An object as PNG or JPEG, a PDF as it is.

    Raises:
        NotAcceptable: the client takes none of these.
        NotThere: there is no such frame, or no picture in the object.
        BadSeries: it can't be decoded.
    """
    if held.sop_class_uid == EncapsulatedPDFStorage:
        return _document(held.path, wishes)
    chosen = next(((wish, one) for wish in wishes for one in PICTURES if wish.takes(one)), None)
    if chosen is None:
        raise NotAcceptable("dicomweb.accept", f"pictures are {' or '.join(PICTURES)}.")
    wish, media_type = chosen
    picture = Image.fromarray(_grey(held.path, frame, look))
    if look.size:
        picture.thumbnail(look.size)
    written = io.BytesIO()
    picture.save(written, PICTURES[media_type], quality=look.quality)
    return Rendered(media_type=media_type, data=written.getvalue(), is_part=wish.is_multipart)


def _document(path: Path, wishes: list[Wish]) -> Rendered:
    taken = next((wish for wish in wishes if wish.takes(PDF)), None)
    if taken is None:
        raise NotAcceptable("dicomweb.accept", f"this object is {PDF}.")
    return Rendered(media_type=PDF, data=encapsulated(path), is_part=taken.is_multipart)


def encapsulated(path: Path) -> bytes:
    """The document that an object encapsulates, without the byte that makes its length even."""
    found = read_whole(path)
    data = bytes(found.EncapsulatedDocument)
    return data[: int(found.get("EncapsulatedDocumentLength") or len(data))]


def _grey(path: Path, frame: int, look: Look) -> Grey:
    opened = open_file(path, _KEYWORDS)
    source = FrameSource(path)
    if opened is None or opened.number("SamplesPerPixel") not in (None, 1.0):
        raise BadSeries("dicomweb.colour", "only pictures of one sample a pixel are rendered.")
    if opened.number("BitsAllocated") == 1:
        return _bits(source.plain(frame), source)
    pixels = open_pixels(path)
    source.check(frame)
    values = np.empty((pixels.layout.rows, pixels.layout.columns), np.float32)
    header = pixels.slices[frame - 1]
    values[...] = pixels.stored(frame)
    if header.slope is not None and header.intercept is not None:
        values = values * np.float32(header.slope) + np.float32(header.intercept)
    centre, width = look.window or _window(opened, values)
    shown = np.clip((values - (centre - width / 2)) / width, 0, 1)
    if opened.text("PhotometricInterpretation") == "MONOCHROME1":
        shown = 1 - shown
    grey: Grey = np.rint(shown * 255).astype(np.uint8)
    return grey


def _bits(data: bytes, source: FrameSource) -> Grey:
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: source.rows * source.columns]
    grey: Grey = bits.reshape(source.rows, source.columns) * np.uint8(255)
    return grey


def _window(opened: OpenFile, values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """The first of the object's own windows, else all its values."""
    centre, width = (_first(opened.text(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    if centre is not None and width is not None and width > 0:
        return centre, width
    low, high = float(values.min()), float(values.max())
    return (low + high) / 2, max(high - low, 1.0)


def _first(text: str) -> float | None:
    try:
        number = float(text.split("\\")[0])
    except ValueError:
        return None
    return number if np.isfinite(number) else None
