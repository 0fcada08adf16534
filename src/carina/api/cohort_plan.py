"""What a cohort has to do: every series, volume file and broken file, with its run's folder or why it gets none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from os.path import commonpath
from pathlib import Path

from carina.api.cohort_table import COHORT_TABLE, Fate, Item
from carina.api.names import distinct, is_result, place_of, words_of
from carina.dicom.find import by_study, choose_source, judge, name_of
from carina.dicom.found import Found, Listing
from carina.dicom.inventory import BrokenFile, Inventory
from carina.dicom.rules import Rules
from carina.dicom.series import Source
from carina.errors import told
from carina.pipeline.places import file_name

NO_FAILURE = frozenset(
    {
        "series.modality",
        "series.localizer",
        "series.no-image",
        "series.plane",
        "series.few-slices",
        "series.spacing",
        "series.matrix",
        "series.rule",
        "file.no-hu",
    }
)
"""Refusals of what is whole and isn't wanted: such things lie in every archive."""


class Each(StrEnum):
    """What gets a run: the best series of each study, or every series that fits the rules."""

    STUDY = "study"
    SERIES = "series"


Work = tuple[Item, Source | None]
"""An item, and the series to run on; without one, what became of it is known already."""


@dataclass(frozen=True, kw_only=True)
class CohortPlan:
    """How a path is looked through: for runs of what, by which rules, with results where."""

    path: Path
    out: Path
    each: Each
    rules: Rules

    def work(self, listing: Listing) -> Iterator[Work]:
        """Every item of what was found, in an order of its own: study by study, then the files that are broken."""
        groups = self._groups(one for one in listing if not is_result(one.path, self.path, self.out))
        known = [self._words(group) for group in groups]
        named = zip(distinct(known, reserved=(COHORT_TABLE,)), groups, strict=True)
        for name, group in sorted(named, key=lambda one: one[0]):
            yield from self._planned(group, name, self.out / file_name(name), listing.inventory)
        yield from ((self._broken(file), None) for file in self._left_over(listing))

    def _left_over(self, listing: Listing) -> Iterator[BrokenFile]:
        """The broken files that no row tells of: those that were left out of a series."""
        told_of = {one.path for one in listing if one.source is None}
        for file in sorted(listing.inventory.broken, key=lambda one: one.path):
            if not is_result(file.path, self.path, self.out) and told_of.isdisjoint((file.path, file.path.parent)):
                yield file

    def _groups(self, found: Iterable[Found]) -> list[list[Found]]:
        """What competes for one run: the series of a study, or each for itself; in the order of their files."""
        groups = by_study(found) if self.each is Each.STUDY else [[one] for one in found]
        return sorted(groups, key=lambda group: min(file for one in group for file in (one.files or (one.path,))))

    def _words(self, group: Sequence[Found]) -> tuple[str, ...]:
        """What names a group, from short to long."""
        if self.each is Each.STUDY and group[0].study_uid:
            return group[0].study_uid, place_of(Path(commonpath([one.path for one in group])), self.path)
        return words_of(group[0], self.path)

    def _planned(self, group: Sequence[Found], name: str, folder: Path, inventory: Inventory) -> list[Work]:
        try:
            return list(self._judged(group, name, folder, inventory))
        except Exception as error:  # noqa: BLE001 - a study of a cohort: what can't even be judged stops no other
            failure = told(error)
        item = replace(self._item(group[0], name), fate=Fate.FAILED, code=failure.code, message=failure.message)
        return [(item, None)]

    def _judged(self, group: Sequence[Found], name: str, folder: Path, inventory: Inventory) -> Iterator[Work]:
        """The items of a group: the one that is taken first, then the others with the reason why they are not."""
        judged = judge(group, self.rules)
        taken = next((one for one in judged if one.taken), None)
        if taken is not None:
            source = replace(choose_source(judged, self.rules), inventory=_share(inventory, group))
            yield replace(self._item(taken, name), folder=folder), source
        rest = [one for one in judged if one is not taken]
        for one in sorted(rest, key=lambda one: (one.uid, one.part, str(one.path))):
            yield self._not_run(one, is_beside=taken is not None), None

    def _not_run(self, one: Found, *, is_beside: bool) -> Item:
        """The item of what gets no run; ``is_beside``: its study has a series that does."""
        code = one.error.code if one.error else "series.other-taken"
        fate = Fate.LEFT_OUT if is_beside or code in NO_FAILURE else Fate.FAILED
        name = name_of(one) if one.modality else place_of(one.path, self.path)
        return replace(self._item(one, name), fate=fate, code=code, message=one.reason)

    def _item(self, one: Found, name: str) -> Item:
        series_uid = one.uid if one.modality else ""
        place = place_of(one.path, self.path)
        return Item(name=name, place=place, study_uid=one.study_uid, series_uid=series_uid, part=one.part)

    def _broken(self, file: BrokenFile) -> Item:
        """The item of a broken file whose series is there without it, and says so in its warnings."""
        item = Item(name=(place := place_of(file.path, self.path)), place=place, series_uid=file.series_uid)
        return replace(item, fate=Fate.LEFT_OUT, code=file.code, message=file.reason)


def _share(inventory: Inventory, group: Sequence[Found]) -> Inventory:
    """What a listing says of the files of one study: its own, and those that are broken or copies beside them."""
    files = {file for one in group for file in one.files}
    folders, uids = {file.parent for file in files}, {one.uid for one in group} - {""}

    def is_broken_here(file: BrokenFile) -> bool:
        return file.series_uid in uids if file.series_uid else file.path.parent in folders

    copies = frozenset(file for file in inventory.copies if file.parent in folders)
    broken = tuple(filter(is_broken_here, inventory.broken))
    return Inventory(files=len(files.union(copies, (one.path for one in broken))), copies=copies, broken=broken)
