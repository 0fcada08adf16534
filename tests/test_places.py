"""Names from outside become file names that stay where they belong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carina.errors import BadConfig
from carina.pipeline.places import NAME_BYTES, below, file_name

HOSTILE = [
    "../../x",
    "/tmp/x",
    "..",
    ".",
    "",
    "a/b",
    "a\\b",
    "pat:1",
    "50% done",
    "caf\udce9",
    "a\0b",
    "CON",
    "x" * 300,
]


@pytest.mark.parametrize("text", ["1.2.840.113619.2.55.3", "lidc-0001", "s_1.nii"])
def test_a_harmless_text_names_itself(text: str) -> None:
    assert file_name(text) == text


@given(st.text(st.characters(exclude_categories=())) | st.sampled_from(HOSTILE))
def test_a_name_is_one_plain_part_of_a_path(text: str) -> None:
    name = file_name(text)
    assert name.isascii()
    assert set(name).isdisjoint('/\\:*?"<>|%\0 ')
    assert not name.startswith(".")
    assert 0 < len(name) <= NAME_BYTES
    assert Path(name).parts == (name,)


@given(st.text(max_size=200), st.text(max_size=200))
def test_two_texts_never_share_a_name(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) == (one == other)


def test_texts_that_look_alike_once_cleaned_stay_apart() -> None:
    names = [file_name(text) for text in ("pat:1", "pat*1", "pat_1", "pat/1", "..", ".", "", file_name("pat:1"))]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["../victim", "/etc/passwd", "a/../../victim", "", ".", "a\0b"])
def test_what_does_not_lie_below_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadConfig, match="does not lie in this folder"):
        below(tmp_path, name)


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link").symlink_to(tmp_path)
    with pytest.raises(BadConfig, match="does not lie in this folder"):
        below(tmp_path / "run", "link/victim.txt")


def test_a_file_below_the_folder_is_given(tmp_path: Path) -> None:
    assert below(tmp_path, "volume/a..b.mhd") == tmp_path / "volume" / "a..b.mhd"
