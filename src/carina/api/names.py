"""Names for what was found below a path: each its own, the same in every call, safe as a file's."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carina.pipeline.places import file_name
from carina.volume.files import volume_suffix

if TYPE_CHECKING:
    from carina.dicom.find import Found


def place_of(path: Path, below: Path) -> str:
    """A file or folder as seen from the path that was looked through; its own name where it is that path."""
    return path.relative_to(below).as_posix() if path != below and path.is_relative_to(below) else path.name


def is_result(path: Path, below: Path, out: Path) -> bool:
    """Whether something lies in the folder for results, where that lies below the path that is looked through."""
    own, above = out.absolute(), below.absolute()
    return own != above and own.is_relative_to(above) and path.absolute().is_relative_to(own)


def names_of(found: Iterable[Found], below: Path) -> list[str]:
    """A file name without suffix for each series or volume file: the UID of a series, the place of a volume file.

    Series of one UID (two acquisitions, two patients with the same series) are told apart by what tells their slices
    apart, and by their place.
    """
    return [file_name(text) for text in distinct([words_of(one, below) for one in found])]


def words_of(found: Found, below: Path) -> tuple[str, ...]:
    """What names a series or a file, from short to long: its UID, its part, its place."""
    place = place_of(found.path, below)
    suffix = "" if found.modality else volume_suffix(found.path)
    if suffix:
        return place[: -len(suffix)], place
    return found.uid or place, found.part, place


def distinct(known: Sequence[Sequence[str]], reserved: Iterable[str] = ()) -> list[str]:
    """A text for each, from as few of its words as tell it from the others; at last from its number.

    ``reserved`` texts are given to none.
    """
    texts = [words[0] for words in known]
    for count in range(2, max(map(len, known), default=0) + 1):
        shared = Counter(text.casefold() for text in texts)
        texts = [
            " ".join(filter(None, words[:count])) if shared[text.casefold()] > 1 else text
            for text, words in zip(texts, known, strict=True)
        ]
    return list(_numbered(texts, reserved))


def _numbered(texts: Iterable[str], reserved: Iterable[str]) -> Iterator[str]:
    """The texts; one that was there before, in whatever case, with the first number that makes it new."""
    seen = {text.casefold() for text in reserved}
    for text in texts:
        ways = itertools.chain([text], (f"{text} {number}" for number in itertools.count(2)))
        new = next(way for way in ways if way.casefold() not in seen)
        seen.add(new.casefold())
        yield new
