"""Strokes that changed nothing, as an earlier Carina stored them: none is shown, and nothing waits for one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from carina.corrections.hand_made import hand_made
from carina.corrections.journal import Journal
from carina.corrections.masks import CORRECTIONS
from carina.corrections.painting import Author, Painting, StrokeKind, StrokeRecord, labels_sha256
from carina.errors import BadConfig
from test_corrections import NOW, author, painted, small_mask

FULL = [0, 3]
"""Runs of a stroke that changes something."""


def stored(folder: Path, *deeds: str) -> Painting:
    """A journal as an earlier Carina left it: ``rita`` strokes that change nothing, ``rob`` others; undo and redo."""
    folder.mkdir(exist_ok=True)
    journal = Journal(folder / "lesion.strokes", StrokeRecord)
    base = StrokeRecord(kind=StrokeKind.BASE, at=NOW, sha256=labels_sha256(small_mask().labels))
    with journal.held():
        journal.unread()
        journal.append(base)
        for number, deed in enumerate(deeds):
            kind = StrokeKind(deed) if deed in ("undo", "redo") else StrokeKind.PAINT
            runs = FULL if deed == "rob" else []
            reader = deed if kind is StrokeKind.PAINT else "rita"
            journal.append(StrokeRecord(kind=kind, at=NOW, id=f"{number}", reader=reader, runs=runs))
    return painted(folder)


NOTHING: Sequence[tuple[str, ...]] = (("rita",), ("rita", "rita"), ("rita", "undo"), ("rita", "undo", "redo"))


@pytest.mark.parametrize("deeds", NOTHING)
def test_where_all_changed_nothing_the_mask_is_as_if_nobody_had_painted(tmp_path: Path, deeds: tuple[str, ...]) -> None:
    painting = stored(tmp_path, *deeds)
    assert (painting.can_undo, painting.can_redo) == (False, False)
    assert (painting.undoes, painting.redoes, painting.undoable, painting.redoable) == ("", "", (), ())
    assert (painting.last, painting.open_strokes(0), painting.painters(painting.revision)) == (None, [], ())
    np.testing.assert_array_equal(painting.labels, small_mask().labels)
    for turn in (painting.undo, painting.redo):
        with pytest.raises(BadConfig, match="there is no stroke to"):
            turn(author("next"), painting.revision)


@pytest.mark.parametrize("deeds", NOTHING)
def test_a_run_with_such_strokes_alone_has_no_work_of_readers(tmp_path: Path, deeds: tuple[str, ...]) -> None:
    stored(tmp_path / CORRECTIONS, *deeds)
    assert hand_made(tmp_path) is None


def test_what_was_painted_between_them_is_undone_and_brought_back_past_them(tmp_path: Path) -> None:
    painting = stored(tmp_path, "rita", "rob", "rita", "rita")
    assert (painting.undoes, painting.undoable) == ("rob", ("rob",))
    before = painting.labels
    change = painting.undo(Author(reader="rita", at=NOW, id="back"), painting.revision)
    assert change.runs == FULL and not painting.can_undo and painting.redoes == "rob"
    np.testing.assert_array_equal(painting.labels, small_mask().labels)
    again = painted(tmp_path)
    assert (again.revision, again.can_undo, again.redoes) == (painting.revision, False, "rob")
    again.redo(author("forth"), again.revision)
    np.testing.assert_array_equal(again.labels, before)
    np.testing.assert_array_equal(painted(tmp_path).labels, before)


def test_an_undo_that_was_of_such_a_stroke_still_is(tmp_path: Path) -> None:
    """What was stored then means what it meant then: rob's stroke was not taken back."""
    painting = stored(tmp_path, "rob", "rita", "undo")
    assert painting.undoable == ("rob",) and not painting.can_redo
    assert painting.labels.reshape(-1)[:3].all()
