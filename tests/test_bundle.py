"""The bundle format: written, read back, refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from carina.errors import BadConfig
from carina.models.bundle import (
    METADATA,
    SHIPPED,
    Bundle,
    Covid,
    Lung,
    find_bundle,
    known_bundles,
    load_bundle,
    write_bundle,
)
from carina.models.damaged import undigested_bundles
from carina.models.weights_digest import digest_file, weights_sha256

CARINA: dict[str, Any] = {
    "task": "lung",
    "orientation": "RAS",
    "spacing_mm": [0.8, 0.8, 5.0],
    "window_hu": [-1500, 500],
    "labels": {"1": "lung"},
    "divisor": 32,
    "original": {"patch": [224, 224, 32], "overlap": 0.25},
    "fast": {"patch": [224, 224, 64], "overlap": 0.1, "blending": "gaussian"},
    "restore": "nearest",
    "components": {"keep": 2, "min_voxels": 5000, "min_share": 0.1},
}
COVID: dict[str, Any] = {
    "task": "covid",
    "orientation": "RAS",
    "window_hu": [-1000, 500],
    "labels": {"0": "non-COVID-19", "1": "COVID-19"},
    "size": [192, 192, 64],
    "order": "naturecomm",
}


def write(folder: Path, carina: dict[str, Any], weights: bytes = b"weights") -> Bundle:
    folder.parent.mkdir(parents=True, exist_ok=True)
    onnx = folder.parent / "any.onnx"
    onnx.write_bytes(weights)
    metadata = {"version": "1.2.0", "description": "d", "network_data_format": {}, "name": "Lungs", "carina": carina}
    return write_bundle(folder, metadata, onnx, card="# card")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    bundle = write(tmp_path / "lung-a", CARINA)
    assert load_bundle(tmp_path / "lung-a") == bundle
    assert isinstance(bundle.carina, Lung)
    assert bundle.carina.fast is not None and bundle.carina.fast.patch == (224, 224, 64)
    assert bundle.carina.labels == {1: "lung"}
    assert bundle.carina.task == "lung"
    assert bundle.made_by == f"lung-a 1.2.0 {bundle.sha256[:12]}"
    assert bundle.card.read_text() == "# card"
    covid = write(tmp_path / "covid-a", COVID).carina
    assert isinstance(covid, Covid)
    assert (covid.order, covid.margin_voxels, covid.task) == ("naturecomm", 5, "covid")


def test_the_hash_is_over_weights_and_metadata(tmp_path: Path) -> None:
    first = write(tmp_path / "a" / "lung", CARINA)
    same = write(tmp_path / "b" / "lung", CARINA)
    other_weights = write(tmp_path / "c" / "lung", CARINA, b"other")
    other_keys = write(tmp_path / "d" / "lung", {**CARINA, "threshold": 0.4})
    assert first.sha256 == same.sha256
    assert len({first.sha256, other_weights.sha256, other_keys.sha256}) == 3


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("spacing", 1, "unknown field `spacing`"),
        ("task", "liver", "Invalid value 'liver' - at `$.carina.task`"),
        ("orientation", "RSA", "orientation 'RSA' must be R or L, then A or P, then S or I"),
        ("spacing_mm", [0.8, 0.8], "at `$.carina.spacing_mm`"),
        ("spacing_mm", [0.8, 0.8, 0.0], "must be positive"),
        ("window_hu", [500, -1500], "window_hu (500.0, -1500.0) must grow"),
        ("original", {"patch": [224, 224, 30], "overlap": 0.25}, "multiple of divisor 32"),
        ("original", {"patch": [224, 224, 32], "overlap": 1.0}, "overlap 1.0 must lie between 0 and 0.9"),
        ("fast", {"patch": [224, 224, 32], "overlap": 0, "blending": "max"}, "Invalid enum value 'max'"),
        ("threshold", 1, "threshold 1.0 must lie between 0 and 1"),
        ("labels", {"0": "lung"}, "labels [0] must be numbers from 1 to 255"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(tmp_path: Path, key: str, value: Any, words: str) -> None:
    with pytest.raises(BadConfig, match=re.escape(words)) as caught:
        write(tmp_path / "lung-a", {**CARINA, key: value})
    assert words in caught.value.message
    assert str(tmp_path / "lung-a" / "configs" / "metadata.json") in caught.value.message
    assert caught.value.code == "bundle.invalid"
    assert not (tmp_path / "lung-a").exists()


def test_several_labels_cant_be_restored_linearly(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="restore must be nearest"):
        write(tmp_path / "lung-a", {**CARINA, "labels": {"1": "left", "2": "right"}, "restore": "linear"})


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    bundle = write(tmp_path / "lung-a", CARINA)
    file = bundle.folder / "configs" / "metadata.json"
    file.write_text("{")
    with pytest.raises(BadConfig, match=r"metadata\.json: no valid JSON"):
        load_bundle(bundle.folder)
    file.write_text(json.dumps({"version": "1"}))
    with pytest.raises(BadConfig, match="missing required field `description`"):
        load_bundle(bundle.folder)
    bundle.onnx.unlink()
    with pytest.raises(BadConfig, match=r"model\.onnx: can't be read"):
        load_bundle(bundle.folder)


def test_find_prefers_the_given_folders_and_lists_what_it_knows(tmp_path: Path) -> None:
    write(tmp_path / "one" / "lung-a", CARINA)
    second = write(tmp_path / "two" / "lung-b", CARINA)
    write(tmp_path / "two" / "lung-a", CARINA)
    folders = [tmp_path / "one", tmp_path / "two"]
    assert find_bundle("lung-a", folders).folder == (tmp_path / "one" / "lung-a").resolve()
    assert find_bundle("lung-b", folders) == second
    assert {"lung-a", "lung-b"} <= set(known_bundles(folders))
    with pytest.raises(BadConfig, match="No bundle is called 'lung-c'") as caught:
        find_bundle("lung-c", folders)
    assert f"known are: {', '.join(sorted(known_bundles(folders)))}." in caught.value.message
    for outside in ("../two/lung-b", "", ".", "..", "/", "lung-a/"):
        with pytest.raises(BadConfig, match="No bundle is called"):
            find_bundle(outside, [tmp_path / "one"])


def test_weights_whose_bytes_changed_are_refused_and_the_digest_is_no_part_of_the_hash(tmp_path: Path) -> None:
    bundle = write(tmp_path / "lung-a", CARINA)
    digest = digest_file(bundle.onnx)
    assert digest.read_text() == f"{weights_sha256(bundle.onnx)}  model.onnx\n"
    bundle.onnx.write_bytes(b"weightt")
    for name in (digest.read_text(), f"{digest.read_text()[:64].upper()} *model.onnx", digest.read_text()[:64]):
        digest.write_text(name)
        told = (
            rf"model\.onnx: its bytes were changed \(SHA-256 \w{{12}}, expected {name[:12].lower()} by model\.onnx\.sha"
        )
        with pytest.raises(BadConfig, match=rf"(?i){told}.*put the bundle's own weights back"):
            load_bundle(bundle.folder)
        with pytest.raises(BadConfig, match=r"its bytes were changed"):
            write_bundle(tmp_path / "copy", json.loads((bundle.folder / METADATA).read_text()), bundle.onnx, card="")
    assert not (tmp_path / "copy").exists()
    bundle.onnx.write_bytes(b"weights")
    assert load_bundle(bundle.folder) == bundle
    digest.unlink()
    assert load_bundle(bundle.folder) == bundle, "one without a digest is taken as it is"
    digest.write_text("no digest")
    with pytest.raises(BadConfig, match=r"model\.onnx\.sha256: holds no SHA-256; expected 64 hexadecimal digits"):
        load_bundle(bundle.folder)


def test_every_bundle_that_ships_has_a_digest() -> None:
    assert undigested_bundles([SHIPPED]) == {}


@pytest.mark.parametrize("lost", ["configs/metadata.json", "models/model.onnx"])
def test_a_bundle_that_lacks_a_file_is_refused_and_none_stands_in_for_it(tmp_path: Path, lost: str) -> None:
    """Though the next folder, and Carina itself, have one of its name."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        write(folder / "lung-ahnet", CARINA)
    (folders[0] / "lung-ahnet" / lost).unlink()
    assert "lung-ahnet" in known_bundles(folders)
    with pytest.raises(BadConfig, match=rf"one/lung-ahnet/{lost}: can't be read .* A bundle has {METADATA} and"):
        find_bundle("lung-ahnet", folders)


def test_every_shipped_bundle_is_whole() -> None:
    names = [folder.name for folder in SHIPPED.glob("*") if folder.is_dir()] if SHIPPED.is_dir() else []
    if not names:
        pytest.skip("no bundles are shipped yet")
    for name in names:
        bundle = find_bundle(name)
        assert "research use only" in bundle.card.read_text(encoding="utf-8").lower()
        assert (bundle.folder / "LICENSE").is_file()
