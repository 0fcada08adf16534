"""Whether a data set can be read in one way only (PS3.5 7): each tag is in it once, and its sequences end somewhere.

Of a tag that stands twice some readers take the first value, others the last: two Patient IDs. Sequences are read by
recursion almost everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from pydicom.datadict import dictionary_description, dictionary_has_tag

from carina.dicom.elements import DEEPEST_SEQUENCES, DELIMITERS, Element, ElementReader, tag_text, too_deep
from carina.dicom.values import vr_of
from carina.errors import BadSeries

ZEROS = 0
"""What zeros at the end of a file, which some programs fill it up with, are read as."""


class SoundElements:
    """Looks at the elements of one data set as they are found; ``reader`` is for what is inside them."""

    def __init__(self, reader: ElementReader) -> None:
        self._reader, self._seen = reader, set[int]()

    def of(self, elements: Iterable[Element]) -> Iterator[Element]:
        """The elements, each after it was looked at.

        Raises:
            BadSeries: a tag stands twice in the data set or in an item, or sequences are nested too deep.
        """
        for element in elements:
            self.once(element)
            _check_inside(self._reader, element)
            yield element

    def once(self, element: Element) -> None:
        """See that an element's tag did not come before.

        Raises:
            BadSeries: it did.
        """
        _once(self._reader, element, self._seen)


def _check_inside(reader: ElementReader, outermost: Element) -> None:
    """See that all that is nested in an element is sound; what is to be looked into is kept on a list."""
    waiting = [(outermost, 1)] if _is_sequence(outermost) else []
    while waiting:
        sequence, depth = waiting.pop()
        if depth > DEEPEST_SEQUENCES:
            raise too_deep(reader.source)
        for start, end in reader.items(sequence):
            seen: set[int] = set()
            for element in reader.elements(start, end):
                _once(reader, element, seen)
                if _is_sequence(element):
                    waiting.append((element, depth + 1))


def _once(reader: ElementReader, element: Element, seen: set[int]) -> None:
    tag = element.tag
    if tag in seen and tag != ZEROS and tag >> 16 != DELIMITERS:
        name = f" {dictionary_description(tag)}" if dictionary_has_tag(tag) else ""
        words = f"{tag_text(tag)}{name} stands in it twice; expected once: mend it where it was written."
        raise BadSeries("series.tag-twice", f"{reader.source.name}: {words}")
    seen.add(tag)


def _is_sequence(element: Element) -> bool:
    """Whether an element is read as a sequence: it says so, or its tag does where the VR is left out."""
    return element.vr == "SQ" or (element.vr in ("", "UN") and (element.size is None or _is_known_as_one(element.tag)))


@lru_cache(maxsize=4096)
def _is_known_as_one(tag: int) -> bool:
    return vr_of(tag) == "SQ"
