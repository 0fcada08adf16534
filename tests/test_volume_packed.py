"""Voxels packed, in pairs, in members, or only claimed: no more is unpacked or asked of memory than is needed."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from carina.errors import BadSeries
from carina.volume.files import read_map, read_volume
from nifti_headers import STORED, by_carina, by_nibabel, far, header, write


def test_pairs_are_read(tmp_path: Path) -> None:
    fields = header(magic=b"ni1", vox_offset=0)
    (tmp_path / "p.hdr").write_bytes(fields.tobytes())
    (tmp_path / "p.img").write_bytes(STORED.tobytes())
    affine, values = by_carina(tmp_path / "p.hdr")
    wanted_affine, wanted = by_nibabel(tmp_path / "p.hdr")
    assert far(affine, wanted_affine) < 1e-3 and np.array_equal(values, wanted)
    (tmp_path / "p.img").rename(tmp_path / "elsewhere.img")
    with pytest.raises(BadSeries, match=r"p\.img: no such file"):
        read_volume(tmp_path / "p.hdr")
    (tmp_path / "p.img.gz").write_bytes(gzip.compress(STORED.tobytes()))
    assert np.array_equal(by_carina(tmp_path / "p.hdr")[1], wanted)


def test_extensions_lie_before_the_voxels(tmp_path: Path) -> None:
    extension = b"\1\0\0\0" + np.array([32, 6], "<i4").tobytes() + b"a comment that is n voxel"[:24]
    file = write(tmp_path / "e.nii", header(vox_offset=352 + 32), extension=extension)
    assert np.array_equal(by_carina(file)[1], by_nibabel(file)[1])


@pytest.mark.parametrize("parts", [1, 2, 3, 50])
def test_gzip_in_several_members_is_read(tmp_path: Path, parts: int) -> None:
    content = write(tmp_path / "a.nii").read_bytes()
    pieces = [bytes(p) for p in np.array_split(np.frombuffer(content, np.uint8), parts)]
    (tmp_path / "m.nii.gz").write_bytes(b"".join(gzip.compress(p) for p in pieces) + bytes(100))
    assert np.array_equal(by_carina(tmp_path / "m.nii.gz")[1], by_carina(tmp_path / "a.nii")[1])


def test_the_content_says_whether_it_is_packed(tmp_path: Path) -> None:
    wanted = by_carina(write(tmp_path / "a.nii"))[1]
    (tmp_path / "a.nii.gz").write_bytes((tmp_path / "a.nii").read_bytes())
    assert np.array_equal(by_carina(tmp_path / "a.nii.gz")[1], wanted)
    (tmp_path / "b.nii").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    assert np.array_equal(by_carina(tmp_path / "b.nii")[1], wanted)


@pytest.mark.parametrize("cut", [1, 9, 60, 200])
def test_gzip_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    content = write(tmp_path / "a.nii.gz", data=np.random.default_rng(1).bytes(240)).read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(content[:-cut])
    with pytest.raises(BadSeries, match=r"a\.nii\.gz: is cut short or damaged"):
        read_map(tmp_path / "a.nii.gz")


def test_a_bit_turned_in_gzip_is_refused(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "a.nii.gz", data=np.random.default_rng(1).bytes(240)).read_bytes())
    content[-100] ^= 4
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(BadSeries, match="is cut short or damaged"):
        read_map(tmp_path / "a.nii.gz")


CLAIMS = {
    "2^31 voxels in 1 KB": ([3, 2048, 1024, 1024, 1, 1, 1, 1], "file.too-large", "claims 2147483648 voxels; at most"),
    "2^29 voxels in 1 KB": ([3, 1024, 1024, 512, 1, 1, 1, 1], "file.truncated", "1073741824 bytes of voxels can't be"),
    "every axis at its longest": (
        [3, 32767, 32767, 32767, 1, 1, 1, 1],
        "file.too-large",
        "claims 35181150961663 voxels",
    ),
}


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_claims_larger_than_the_file_ask_for_no_memory(tmp_path: Path, claim: str, suffix: str) -> None:
    dim, code, words = CLAIMS[claim]
    file = write(tmp_path / f"c{suffix}", header(dim=dim, pixdim=[1, 0.1, 0.1, 0.1, 0, 0, 0, 0]), bytes(600))
    tracemalloc.start()
    with pytest.raises(BadSeries, match=words) as caught:
        read_volume(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.code == code and peak < 8 << 20


def test_a_gzip_bomb_is_unpacked_as_far_as_the_header_needs(tmp_path: Path) -> None:
    file = write(tmp_path / "bomb.nii.gz", data=STORED.tobytes() + bytes(200 << 20))
    assert file.stat().st_size < 1 << 20
    tracemalloc.start()
    with pytest.raises(BadSeries, match="holds at least a slice more than its header says"):
        read_volume(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
