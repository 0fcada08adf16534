"""Corrections without a browser: strokes outlive every crash, and the finished object is what was painted."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.corrections.painting import Author, Overtaken, Painting
from carina.corrections.regions import Growth, alike, enclosed
from carina.corrections.voxel_runs import places_of, runs_of, runs_of_flags
from carina.errors import BadConfig
from carina.volume import Grid, Mask, Volume
from carina.volume.grid import Triple

NOW = datetime(2026, 3, 4, 20, 15, 2, tzinfo=UTC)
SHAPE = (5, 6, 7)
SIZE = 5 * 6 * 7
UNIT: Triple = (1.0, 1.0, 1.0)


def author(name: str, reader: str = "Jane Doe") -> Author:
    return Author(reader=reader, at=NOW, id=name)


def small_grid(shape: tuple[int, int, int] = SHAPE) -> Grid:
    axes: tuple[Triple, Triple, Triple] = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    return Grid(shape=shape, spacing_mm=UNIT, origin_mm=(0.0, 0.0, 0.0), axes=axes)


def small_mask() -> Mask:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 2:5, 2:6] = 2
    return Mask(labels=labels, grid=small_grid(), names={1: "one", 2: "two"}, uid="1.2.3")


def painted(folder: Path) -> Painting:
    return Painting(small_mask(), folder / "lesion.strokes")


@given(st.sets(st.integers(0, SIZE - 1)))
def test_runs_hold_just_their_places(places: set[int]) -> None:
    rising = np.array(sorted(places), np.int64)
    runs = runs_of(rising)
    np.testing.assert_array_equal(places_of(runs, SIZE), rising)
    flags = np.zeros(SIZE, np.bool_)
    flags[rising] = True
    assert runs_of_flags(flags) == runs


@pytest.mark.parametrize("runs", [[0], [0, 0], [-1, 2], [SIZE, 1], [SIZE - 1, 2], [0, SIZE, 0, SIZE], [2**62, 2**62]])
def test_what_is_no_run_of_the_image_is_refused(runs: list[int]) -> None:
    with pytest.raises(BadConfig, match="run"):
        places_of(runs, SIZE)


STROKE = st.tuples(st.sets(st.integers(0, SIZE - 1), max_size=40), st.integers(0, 1))
DEEDS = st.lists(st.one_of(STROKE, st.sampled_from(["undo", "redo"])), max_size=12)


@given(DEEDS)
@settings(max_examples=40, deadline=None)
def test_strokes_undo_and_redo_are_those_of_a_stack_and_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[tuple[set[int], int] | str]
) -> None:
    folder = tmp_path_factory.mktemp("strokes")
    painting = painted(folder)
    states, at = [painting.marks.copy()], 0
    for number, deed in enumerate(deeds):
        who = author(f"deed {number}")
        if not isinstance(deed, str):
            places, value = deed
            change = painting.paint(runs_of(np.array(sorted(places), np.int64)), value, "brush", who, painting.revision)
            expected = states[at].copy()
            expected[sorted(places)] = value
            assert set(places_of(change.runs, SIZE)) == set(np.flatnonzero(expected != states[at]))
            if change.runs:  # what changes nothing is no stroke: neither undone nor in the way of a redo
                states, at = [*states[: at + 1], expected], at + 1
        elif 0 <= at + (1 if deed == "redo" else -1) < len(states):
            at += 1 if deed == "redo" else -1
            getattr(painting, deed)(who, painting.revision)
        else:
            with pytest.raises(BadConfig, match=f"no stroke to {deed}"):
                getattr(painting, deed)(who, painting.revision)
        np.testing.assert_array_equal(painting.marks, states[at])
        assert painting.voxels == np.count_nonzero(states[at])
    again = painted(folder)
    np.testing.assert_array_equal(again.marks, states[at])
    assert (again.revision, again.can_undo, again.can_redo) == (painting.revision, at > 0, at < len(states) - 1)


def test_a_new_voxel_has_the_lowest_label_and_the_others_keep_theirs(tmp_path: Path) -> None:
    painting = painted(tmp_path)
    painting.paint([0, 2], 1, "brush", author("a"), 0)
    kept = int(np.flatnonzero(small_mask().labels)[0])
    painting.paint([kept, 1], 0, "eraser", author("b"), 1)
    expected = small_mask().labels.reshape(-1).copy()
    expected[:2], expected[kept] = 1, 0
    np.testing.assert_array_equal(painting.labels.reshape(-1), expected)


def test_a_journal_that_ends_anywhere_gives_every_whole_stroke_and_can_be_continued(tmp_path: Path) -> None:
    painting = painted(tmp_path)
    ends, states = [0], [painting.marks.copy()]
    file = tmp_path / "lesion.strokes"
    for number in range(3):
        painting.paint([10 * number, 7], 1, "brush", author(str(number)), number)
        ends.append(file.stat().st_size)
        states.append(painting.marks.copy())
    whole = file.read_bytes()
    for cut in range(len(whole) + 1):
        for tail in (b"", b"\x00" * 9):  # a machine that dies can leave a longer file, of zeros
            file.write_bytes(whole[:cut] + (tail if cut < len(whole) else b""))
            number = sum(end <= cut for end in ends) - 1
            again = painted(tmp_path)
            assert again.revision == number
            np.testing.assert_array_equal(again.marks, states[number])
            again.paint([100, 3], 1, "brush", author("next"), number)
            np.testing.assert_array_equal(painted(tmp_path).marks, again.marks)


def test_a_journal_that_is_damaged_in_the_middle_is_refused_and_left_alone(tmp_path: Path) -> None:
    painting = painted(tmp_path)
    for number in range(3):
        painting.paint([number, 1], 1, "brush", author(str(number)), number)
    file = tmp_path / "lesion.strokes"
    damaged = file.read_bytes().replace(b'"runs":[1,1]', b'"runs":[2,1]')
    file.write_bytes(damaged)
    with pytest.raises(BadConfig, match="not what was written, and others follow"):
        painted(tmp_path)
    assert file.read_bytes() == damaged


def test_strokes_of_another_mask_are_refused(tmp_path: Path) -> None:
    painted(tmp_path).paint([0, 1], 1, "brush", author("a"), 0)
    other = replace(small_mask(), labels=np.zeros(SHAPE, np.uint8))
    with pytest.raises(BadConfig, match="strokes are of another mask"):
        Painting(other, tmp_path / "lesion.strokes")


def test_two_who_paint_are_told_of_each_other_and_nothing_is_lost(tmp_path: Path) -> None:
    one, two = painted(tmp_path), painted(tmp_path)
    one.paint([0, 2], 1, "brush", author("one"), 0)
    with pytest.raises(Overtaken, match=r"changed elsewhere by Jane Doe since it was read here\. Nothing was stored"):
        two.paint([5, 2], 1, "brush", author("two"), 0)
    assert two.revision == 1
    np.testing.assert_array_equal(one.marks, two.marks)
    two.paint([5, 2], 1, "brush", author("two"), 1)
    assert one.catch_up() == 2
    np.testing.assert_array_equal(one.marks, two.marks)


@pytest.mark.parametrize("deed", ["paint", "undo", "redo"])
def test_asking_again_after_a_lost_answer_does_nothing_twice(tmp_path: Path, deed: str) -> None:
    painting = painted(tmp_path)
    painting.paint([0, 2], 1, "brush", author("a"), 0)
    painting.paint([9, 2], 1, "brush", author("b"), 1)
    if deed == "redo":
        painting.undo(author("c"), 2)
    before = painting.revision

    def ask(one: Painting) -> object:
        if deed == "paint":
            return one.paint([20, 3], 1, "brush", author("x"), before)
        return getattr(one, deed)(author("x"), before)

    first = ask(painting)
    assert ask(painting) == first == ask(painted(tmp_path))
    assert painting.revision == before + 1


def _paint_for_ever(folder: Path, acknowledged: Path) -> None:
    painting = painted(folder)
    with acknowledged.open("ab", buffering=0) as told:
        for number in range(painting.revision, 10_000):
            painting.paint([0, 1], (number + 1) % 2, "brush", author(str(number)), number)
            told.write(b".")


def test_a_process_that_is_killed_while_it_stores_loses_no_stroke_that_it_told_to_be_stored(tmp_path: Path) -> None:
    told = tmp_path / "told"
    for _ in range(4):
        process = multiprocessing.get_context("spawn").Process(target=_paint_for_ever, args=(tmp_path, told))
        process.start()
        before = told.stat().st_size if told.exists() else 0
        while not told.exists() or told.stat().st_size < before + 20:
            assert process.is_alive()
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert painted(tmp_path).revision - told.stat().st_size in (0, 1)
        told.write_bytes(b"." * painted(tmp_path).revision)


@pytest.mark.parametrize("normal", [0, 1, 2])
def test_fill_takes_what_the_marks_enclose_in_one_slice(normal: int) -> None:
    ring = np.zeros((9, 9), np.bool_)
    ring[2:7, 2:7] = True
    ring[3:6, 3:6] = False
    marks = np.zeros((9, 9, 9), np.bool_)
    index: list[slice | int] = [slice(None)] * 3
    index[normal] = 4
    marks[tuple(index)] = ring
    expected = np.zeros_like(marks)
    inside = np.zeros_like(ring)
    inside[3:6, 3:6] = True
    expected[tuple(index)] = inside
    assert enclosed(marks, (4, 4, 4), normal) == runs_of_flags(expected)
    with pytest.raises(BadConfig, match="do not go all the way round"):
        outside = [0, 0, 0]
        outside[normal] = 4
        enclosed(marks, (outside[0], outside[1], outside[2]), normal)
    with pytest.raises(BadConfig, match="crosshair is on a mark"):
        on = [2, 2, 2]
        on[normal] = 4
        enclosed(marks, (on[0], on[1], on[2]), normal)


def test_growing_takes_connected_voxels_within_hu_reach_and_lung() -> None:
    hu = np.full((9, 9, 20), -900, np.int16)
    hu[4, 4, 2:15] = -500
    hu[4, 4, 17:19] = -500
    hu[4, 4, 6] = -550
    volume = Volume(hu=hu, grid=small_grid((9, 9, 20)), uid="1.2.3")

    def places(how: Growth, within: np.ndarray | None = None) -> list[int]:
        found = np.zeros(hu.size, np.bool_)
        found[places_of(alike(volume, (4, 4, 8), how, within), hu.size)] = True
        assert not np.argwhere(found.reshape(hu.shape))[:, :2].__ne__(4).any()
        return list(np.flatnonzero(found.reshape(hu.shape)[4, 4]))

    assert places(Growth(tolerance_hu=60, reach_mm=30)) == list(range(2, 15))
    assert places(Growth(tolerance_hu=40, reach_mm=30)) == list(range(7, 15))
    assert places(Growth(tolerance_hu=60, reach_mm=3)) == list(range(5, 12))
    lung = np.zeros(hu.shape, np.bool_)
    lung[..., :10] = True
    assert places(Growth(tolerance_hu=60, reach_mm=30), lung) == list(range(2, 10))
    assert places(Growth(tolerance_hu=60, reach_mm=30), ~lung & False) == list(range(2, 15))
