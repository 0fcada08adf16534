"""Sequences of an object's header as DICOM JSON (PS3.18 F.2), for searches that name what is inside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from carina.dicom.elements import DEEPEST_SEQUENCES, Element, ElementReader, too_deep
from carina.dicom.part10 import CHARACTER_SETS, DataSet, find_data_set, reading
from carina.dicom.values import LONGEST_VALUE, tag_of, text_of, vr_of
from carina.errors import BadSeries
from carina.service.dicomweb.json_values import Attribute, Attributes, in_utf8, told_text
from carina.service.dicomweb.reach import check_reached


def sequence_records(path: Path, keywords: Sequence[str]) -> Attributes:
    """Sequences of a file by their tag, with their items; one that it does not have, or that is damaged, has none.

    Raises:
        OutOfReach: the file is there and can't be read.
    """
    wanted = {tag_of(keyword) for keyword in keywords}
    found: Attributes = {f"{tag:08X}": {"vr": "SQ"} for tag in wanted}
    try:
        with reading(path) as stream:
            data_set = find_data_set(path.name, stream)
            if wanted and data_set is not None:
                found |= _sequences(data_set, wanted)
    except BadSeries as error:
        check_reached(error, path)  # what is damaged is not found
    return found


def _sequences(data_set: DataSet, wanted: set[int]) -> Attributes:
    found: Attributes = {}
    sets: tuple[str, ...] = ()
    for element in data_set.elements():
        if element.tag == CHARACTER_SETS:
            sets = tuple(text_of(data_set.value(element, LONGEST_VALUE)).split("\\"))
        elif element.tag in wanted:
            reader = ElementReader(data_set.source, data_set.encoding)
            found[f"{element.tag:08X}"] = _Nested(data_set, reader, sets).sequence(element, 0)
    return found


@dataclass(frozen=True)
class _Nested:
    data_set: DataSet
    reader: ElementReader
    sets: tuple[str, ...]

    def sequence(self, element: Element, depth: int) -> Attribute:
        """A sequence with its items, each with what it holds."""
        if depth > DEEPEST_SEQUENCES:
            raise too_deep(self.data_set.source)
        items = [self._item(start, end, depth) for start, end in self.reader.items(element)]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}

    def _item(self, start: int, end: int, depth: int) -> Attributes:
        """An item, whose text may be in a character set of its own (PS3.3 C.12.1.1.2)."""
        elements = list(self.reader.elements(start, end))
        own = [tuple(self._text(one)[1].split("\\")) for one in elements if one.tag == CHARACTER_SETS]
        within = replace(self, sets=own[0]) if own else self
        return in_utf8({f"{one.tag:08X}": within._element(one, depth) for one in elements})

    def _text(self, element: Element) -> tuple[str, str]:
        raw = self.data_set.value(element, LONGEST_VALUE)
        return raw.vr, text_of(raw, self.sets)

    def _element(self, element: Element, depth: int) -> Attribute:
        if "SQ" in (element.vr, vr_of(element.tag)) or element.size is None:
            return self.sequence(element, depth + 1)
        return told_text(*self._text(element))
