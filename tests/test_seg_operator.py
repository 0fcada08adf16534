"""dicom-seg-writer: no object leaves before its geometry has been compared with the mask's."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import carina.dicom.seg
import carina.operators.dicom_seg_writer
from carina.config import Settings
from carina.dicom.find import choose_source, find_series
from carina.dicom.series import Series
from carina.errors import ModelFailed
from carina.operators.dicom_seg_writer import dicom_seg_writer
from carina.operators.networks import Networks
from carina.pipeline import Context
from carina.synth.phantom import Phantom, chest_phantom
from carina.testing.dicom import write_ct_series
from carina.volume import Mask

WHEN = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return chest_phantom(shape=(36, 200, 200), lesions=2, seed=4)


@pytest.fixture(scope="module")
def series(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Series:
    folder = tmp_path_factory.mktemp("ct")
    write_ct_series(phantom.volume, folder)
    source = choose_source(find_series(folder))
    assert isinstance(source, Series)
    return source


def write(mask: Mask, series: Series, folder: Path) -> Any:
    context = Context(
        step="seg",
        folder=folder,
        when=WHEN,
        progress=lambda fraction: None,
        warn=lambda sentence: None,
        record=lambda key, fact: None,
        saved=lambda value: (),
    )
    return dicom_seg_writer(mask, series, networks=Networks(Settings()), context=context)


def test_a_right_object_is_given_with_a_word_on_its_geometry(phantom: Phantom, series: Series, tmp_path: Path) -> None:
    written = write(phantom.lesion, series, tmp_path)
    assert list(written.dicom.objects) == ["lesion-seg"]
    assert written.logs.lines[-1] == "geometry read back and compared with the mask: the same"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda labels: labels[:, :, ::-1],
        lambda labels: labels[:, ::-1],
        lambda labels: labels[::-1],
        lambda labels: np.roll(labels, 1, axis=0),
    ],
    ids=["left for right", "front for back", "top for bottom", "a slice off"],
)
def test_an_object_that_shows_another_place_never_leaves(
    phantom: Phantom,
    series: Series,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Callable[[np.ndarray], np.ndarray],
) -> None:
    right = carina.dicom.seg.segmentation

    def mistaken(mask: Mask, *more: Any, **named: Any) -> Any:
        return right(dataclasses.replace(mask, labels=np.ascontiguousarray(wrong(mask.labels))), *more, **named)

    monkeypatch.setattr(carina.operators.dicom_seg_writer, "segmentation", mistaken)
    with pytest.raises(ModelFailed, match=r"lesion|segment"):
        write(phantom.lesion, series, tmp_path)
