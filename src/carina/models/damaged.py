"""Bundles that are none, or damaged ones: nobody learns of them by a name that works.

Weights are not loaded for it, which takes a runtime: their file is walked through from field to field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path

from carina.errors import BadConfig
from carina.models.bundle import WEIGHTS, Bundle, find_bundle, load_bundle
from carina.models.first_look import first_look_of
from carina.models.weights_digest import without_digest

GRAPH = 7
"""The field of an ONNX file that holds the network (``ModelProto.graph`` in onnx.proto)."""

VARINT, LENGTH = 0, 2
FIXED_BYTES = {1: 8, 5: 4}
"""Wire types of protobuf, and the lengths of those that always have the same."""


def damaged_bundles(folders: Iterable[Path | str]) -> dict[str, str]:
    """What is wrong with each folder below ``folders`` that is no bundle, or a damaged one, by its name."""
    found: dict[str, str] = {}
    for place in (one for folder in folders for one in sorted(Path(folder).glob("[!.]*")) if one.is_dir()):
        try:
            check_weights(load_bundle(place))
        except BadConfig as error:
            found.setdefault(place.name, error.message)
    return found


def undigested_bundles(folders: Iterable[Path | str]) -> dict[str, str]:
    """What it means for each bundle below ``folders``, by its name, that no digest lies beside its weights."""
    files = [file for folder in folders for file in sorted(Path(folder).glob(f"[!.]*/{WEIGHTS}"))]
    return {file.parents[1].name: words for file in reversed(files) if (words := without_digest(file))}


def check_usable(name: str, folders: Iterable[Path | str], *, has_weights: bool) -> None:
    """See that the bundle of a name is whole, and its first look; ``has_weights`` False: a server has their weights.

    Raises:
        BadConfig: it isn't, or there is none.
    """
    bundle = find_bundle(name, folders)
    for one in (bundle, first_look_of(bundle)):
        if one is not None and has_weights:
            check_weights(one)


def check_weights(bundle: Bundle) -> None:
    """See that a bundle's weights are a whole ONNX file.

    Raises:
        BadConfig: ``bundle.weights``, they are cut short or something else; ``bundle.unreadable``.
    """
    try:
        is_whole = _is_whole(bundle.onnx)
    except OSError as error:
        raise BadConfig("bundle.unreadable", f"{bundle.onnx}: can't be read ({error.strerror}).") from error
    if not is_whole:
        words = f"{bundle.onnx}: the weights are no whole ONNX file ({bundle.onnx.stat().st_size} bytes)"
        raise BadConfig("bundle.weights", f"{words}; put the bundle's own back or import it again.")


def _is_whole(file: Path) -> bool:
    """Whether a file's fields, and those of its graph, end where they say."""
    if not file.stat().st_size:
        return False
    with file.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as data:
        try:
            graphs = [(start, end) for number, start, end in _fields(data, 0, len(data)) if number == GRAPH]
            return any([any(True for _ in _fields(data, start, end)) for start, end in graphs])
        except ValueError:
            return False


def _fields(data: mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Every field of a protobuf message: its number, where its contents begin and end.

    Raises:
        ValueError: one is of no known kind, or reaches beyond the message.
    """
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            _, after = _varint(data, at)
        elif kind == LENGTH:
            length, at = _varint(data, at)
            after = at + length
        else:
            after = at + FIXED_BYTES.get(kind, end)
        if not number or after > end:
            raise ValueError(f"field {number} of kind {kind} ends at {after}, beyond {end}")
        yield number, at, after
        at = after


def _varint(data: mmap, at: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first, and where it ends."""
    value = 0
    for place, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError(f"no number at {at}")
