"""One run, every object that it wrote, read by tools that are not Carina's: each number must be the same everywhere.

The MetaImages are read by ITK, the Segmentations by dcmqi, the report of measurements by dcmqi and pydicom, the PDFs by
dcmtk and Poppler. What is expected is counted here, from the voxels.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom import Dataset, dcmread

import carina
from carina.api.study import RunSettings
from carina.config import load_settings
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from dicom_objects_samples import evidence_of, run, tool
from tiny_networks import tiny_environment

THIRDS = ("lower third", "middle third", "upper third")
FIGURES = ("lung_ml", "lesion_ml", "ratio_percent", "lung_mean_hu", "lesion_mean_hu")


@dataclass(frozen=True, eq=False)
class Results:
    """A run's folder, and what independent tools make of it."""

    folder: Path
    source: Path
    work: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "manifest.json").read_text()))

    @property
    def bundles(self) -> dict[str, tuple[str, str, str]]:
        """Name, version and sha256 of each task's bundle, as the manifest has them."""
        found = self.manifest["bundles"].items()
        return {task: (one["name"], one["version"], one["sha256"]) for task, one in found}

    @cached_property
    def source_slices(self) -> list[Dataset]:
        return [dcmread(path, stop_before_pixels=True) for path in self.source.iterdir()]

    @cached_property
    def objects(self) -> dict[str, Dataset]:
        return {path.stem: dcmread(path) for path in (self.folder / "dicom").glob("*.dcm")}

    @cached_property
    def findings(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "findings.json").read_text()))

    @cached_property
    def ct(self) -> sitk.Image:
        return self._image("volume")

    @cached_property
    def lung(self) -> np.ndarray:
        return np.asarray(sitk.GetArrayFromImage(self._image("lung"))) > 0

    @cached_property
    def lesion(self) -> np.ndarray:
        return np.asarray(sitk.GetArrayFromImage(self._image("lesion"))) > 0

    def _image(self, place: str) -> sitk.Image:
        (file,) = (self.folder / place).glob("*.mhd")
        return sitk.ReadImage(str(file))

    def dicom(self, name: str) -> Dataset:
        return dcmread(self.folder / "dicom" / f"{name}.dcm")

    def segments(self, name: str) -> dict[str, np.ndarray]:
        """Each segment by its label, on the CT's grid: dcmqi reads it, its voxels are put where they lie in mm."""
        folder = self.work / name
        folder.mkdir(exist_ok=True)
        path = self.folder / "dicom" / f"{name}.dcm"
        run(tool("segimage2itkimage"), "--inputDICOM", path, "--outputDirectory", folder, "-t", "nrrd")
        found = {}
        for item in dcmread(path).SegmentSequence:
            image = sitk.ReadImage(str(folder / f"{item.SegmentNumber}.nrrd"))
            flags = np.zeros(self.lung.shape, bool)
            where = np.argwhere(sitk.GetArrayFromImage(image) > 0)[:, ::-1]
            turn = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
            points = where @ turn.T + image.GetOrigin()
            back = np.array(self.ct.GetDirection()).reshape(3, 3) * self.ct.GetSpacing()
            indices = np.round(np.linalg.solve(back, (points - self.ct.GetOrigin()).T).T).astype(int)
            flags[tuple(indices[:, ::-1].T)] = True
            assert np.count_nonzero(flags) == len(where), "no two voxels of a segment lie in one of the CT"
            found[str(item.SegmentLabel)] = flags
        return found

    @cached_property
    def sides(self) -> dict[str, np.ndarray]:
        return self.segments("lung-seg")

    @cached_property
    def expected(self) -> dict[str, dict[str, float | None]]:
        """Every figure by region, counted from the voxels."""
        figures = {"lungs": self._figures(self.lung)}
        step, origin = self.ct.GetSpacing()[2], self.ct.GetOrigin()[2]
        heights = origin + step * np.arange(len(self.lung)) * self.ct.GetDirection()[8]
        for side, flags in self.sides.items():
            figures[side] = self._figures(flags)
            held = heights[flags.any(axis=(1, 2))]
            low, high = (held.min() - step / 2, held.max() + step / 2) if held.size else (0.0, 1.0)
            third = np.floor((heights - low) / (high - low) * 3)
            for index, name in enumerate(THIRDS):
                figures[f"{side} {name}"] = self._figures(flags & (third == index)[:, None, None])
        return figures

    def _figures(self, part: np.ndarray) -> dict[str, float | None]:
        hu, ill = sitk.GetArrayFromImage(self.ct), part & self.lesion
        voxel_ml = float(np.prod(self.ct.GetSpacing())) / 1000
        lung, lesion = np.count_nonzero(part), np.count_nonzero(ill)
        return {
            "lung_ml": lung * voxel_ml,
            "lesion_ml": lesion * voxel_ml,
            "ratio_percent": 100 * lesion / lung if lung else 0.0,
            "lung_mean_hu": float(hu[part].mean()) if lung else None,
            "lesion_mean_hu": float(hu[ill].mean()) if lesion else None,
        }

    @cached_property
    def lesion_count(self) -> int:
        parts = sitk.ConnectedComponent(sitk.GetImageFromArray(self.lesion.astype(np.uint8)), True)
        sizes = np.bincount(sitk.GetArrayFromImage(parts).ravel())[1:]
        return int(np.count_nonzero(sizes * np.prod(self.ct.GetSpacing()) / 1000 >= 0.1))

    def pdf_text(self, name: str, *, layout: bool = False) -> str:
        file = self.work / f"{name}.pdf"
        run(tool("dcm2pdf"), self.folder / "dicom" / f"{name}.dcm", file)
        return run(tool("pdftotext"), *(["-layout"] if layout else []), file, "-")

    @cached_property
    def report(self) -> dict[str, dict[str, Any]]:
        """The groups of the report of measurements by their name, as dcmqi reads them."""
        file = self.work / "report.json"
        run(tool("tid1500reader"), "--inputDICOM", self.folder / "dicom" / "measurements.dcm", "--outputMetadata", file)
        return {group["TrackingIdentifier"]: group for group in json.loads(file.read_text())["Measurements"]}

    def number(self, group: str, name: str) -> float:
        (item,) = [one for one in self.report[group]["measurementItems"] if one["quantity"]["CodeMeaning"] == name]
        return float(item["value"])

    @cached_property
    def probabilities(self) -> dict[str, float]:
        """As the manifest has them, to four decimals."""
        return dict(self.manifest["operators"]["classification"]["facts"]["probabilities"])

    @property
    def warnings(self) -> set[str]:
        said = list(self.manifest["warnings"])
        assert len(set(said)) == len(said), "each once"
        assert {one for record in self.manifest["operators"].values() for one in record["warnings"]} <= set(said)
        return set(said)


@pytest.fixture(scope="module", params=["phantom", "lungdx-a0002"])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Runs of the phantom, where what a network of two weights marks is many pieces, and of a scan as networks ship."""
    work = tmp_path_factory.mktemp(request.param)
    if request.param == "phantom":
        write_ct_series(chest_phantom(shape=(40, 200, 200), lesions=6, seed=5).volume, work / "ct")
        settings = load_settings(None, tiny_environment(work / "bundles", ill_hu=-865))
        carina.run(work / "ct", work / "run", RunSettings(settings=settings))
        return Results(work / "run", work / "ct", work)
    source = request.getfixturevalue("data") / "ct" / request.param
    carina.run(source, work / "run")
    return Results(work / "run", source, work)


def test_segments_are_the_stored_masks_in_their_place(results: Results) -> None:
    assert set(results.sides) == {"left lung", "right lung"}
    left, right = results.sides["left lung"], results.sides["right lung"]
    assert not (left & right).any() and np.array_equal(left | right, results.lung)
    assert (
        np.argwhere(left)[:, 2].mean() * results.ct.GetDirection()[0]
        > np.argwhere(right)[:, 2].mean() * (results.ct.GetDirection()[0])
    ), "x grows towards the patient's left"
    (lesion,) = results.segments("lesion-seg").values()
    assert np.array_equal(lesion, results.lesion) and not (lesion & ~results.lung).any()
    assert results.lesion.any(), "a scan without lesions would compare nothing"


def test_tables_and_json_hold_what_the_voxels_give(results: Results) -> None:
    with (results.folder / "findings.csv").open(newline="") as file:
        rows = {row["region"]: row for row in csv.DictReader(file)}
    stored = json.loads(next(results.folder.rglob("volume-ratio.json")).read_text())
    for regions in (rows, by_region(results.findings), by_region(stored)):
        assert set(regions) == set(results.expected)
        for name, figures in results.expected.items():
            for figure in FIGURES:
                same(regions[name][figure], figures[figure], 0.0006, f"{name} {figure}")
    counts = {int(rows["lungs"]["lesion_count"]), results.findings["lesion_count"], stored["lesion_count"]}
    assert counts == {results.lesion_count}
    assert {row["uid"] for row in rows.values()} == {results.findings["uid"]} == {stored["uid"]}


def by_region(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["region"]: one for one in found["regions"]}


def same(given: Any, expected: float | None, within: float, what: str) -> None:
    assert (given in (None, "")) == (expected is None), what
    if expected is not None:
        assert float(given) == pytest.approx(expected, abs=within), what


def test_the_text_of_the_ratio_holds_the_same(results: Results) -> None:
    text = next(results.folder.rglob("volume-ratio.txt")).read_text()
    lines = re.findall(r"^(.+): lung (\S+) ml, lesion (\S+) ml, ratio (\S+) %$", text, re.MULTILINE)
    assert {name for name, *_ in lines} == set(results.expected)
    for name, *numbers in lines:
        for figure, number in zip(FIGURES, numbers, strict=False):
            same(number, results.expected[name][figure], 0.0006, f"{name} {figure}")
    assert f"lesions: {results.lesion_count}\n" in text


def test_the_report_of_measurements_holds_the_same(results: Results) -> None:
    names = ("Volume", "Volume of lesion in region", "Lesion volume as a part of lung volume")
    for region, figures in results.expected.items():
        for name, figure in zip(names, FIGURES, strict=False):
            same(results.number(region, name), figures[figure], 1e-4, f"{region} {name}")
        if figures["lung_mean_hu"] is not None:
            same(results.number(region, "Attenuation Coefficient"), figures["lung_mean_hu"], 1e-4, region)
    whole = results.expected["lungs"]
    same(results.number("COVID-19 lesion", "Volume"), whole["lesion_ml"], 1e-4, "lesion")
    same(results.number("COVID-19 lesion", "Attenuation Coefficient"), whole["lesion_mean_hu"], 1e-4, "lesion HU")
    assert results.number("COVID-19 lesion", "Number of separate lesions") == results.lesion_count


def test_each_volume_of_the_report_is_that_of_the_segment_it_refers_to(results: Results) -> None:
    for name, structures in (("lung-seg", results.sides), ("lesion-seg", results.segments("lesion-seg"))):
        seg = results.dicom(name)
        for item in seg.SegmentSequence:
            label = str(item.SegmentLabel)
            group = results.report[label if label in results.report else "COVID-19 lesion"]
            assert group["segmentationSOPInstanceUID"] == seg.SOPInstanceUID
            assert int(group["ReferencedSegment"]) == item.SegmentNumber
            measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
            voxel_ml = np.prod([*map(float, measures.PixelSpacing), float(measures.SpacingBetweenSlices)]) / 1000
            own_ml = np.count_nonzero(structures[label]) * voxel_ml
            assert results.number(group["TrackingIdentifier"], "Volume") == pytest.approx(own_ml, rel=1e-5)


def test_probabilities_are_the_same_everywhere(results: Results) -> None:
    with (results.folder / "findings.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    with next(results.folder.rglob("classification.csv")).open(newline="") as file:
        rows = {row["class"]: float(row["probability"]) for row in csv.DictReader(file)}
    stored = json.loads(next(results.folder.rglob("classification.json")).read_text())["probabilities"]
    assert sum(results.probabilities.values()) == pytest.approx(1, abs=2e-4)
    text = " ".join(results.pdf_text("classification", layout=True).split())
    for name, value in results.probabilities.items():
        assert float(first[f"probability {name}"]) == rows[name] == results.findings["probabilities"][name]
        assert rows[name] == pytest.approx(value, abs=0.0006) and stored[name] == pytest.approx(value, abs=0.00006)
        assert results.number("classification", f"Probability of {name}") == pytest.approx(stored[name], abs=1e-6)
        shown = "< 0.01" if stored[name] < 0.01 else "> 0.99" if stored[name] > 0.99 else f"{stored[name]:.2f}"
        assert re.search(rf"(?<!-){re.escape(name)} {re.escape(shown)}\b", text), f"{name} {shown}"


def page_rows(results: Results) -> list[tuple[str, list[str]]]:
    """Each row of the page's table: its region and its cells."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in results.pdf_text("volume-ratio", layout=True).splitlines()]
    rows = [cells for cells in lines if cells[0] in ("Lungs", "Right lung", "Left lung", *map(str.capitalize, THIRDS))]
    found, side = [], ""
    for name, *cells in (row[:6] for row in rows):
        side = name.lower() if name.endswith("ung") or name == "Lungs" else side
        region = side if side == name.lower() else f"{side} {name.lower()}"
        found.append((region, cells))
    return found


def test_the_table_of_the_page_shows_the_same(results: Results) -> None:
    rows = page_rows(results)
    assert sorted(region for region, _ in rows) == sorted(results.expected)
    for region, cells in rows:
        for figure, cell in zip(FIGURES, cells, strict=True):
            is_shown(cell, results.expected[region][figure], f"{region} {figure}")


def test_the_headline_and_the_slices_of_the_page_show_the_same(results: Results) -> None:
    text = " ".join(results.pdf_text("volume-ratio").split())
    many = "1 lesion" if results.lesion_count == 1 else f"{results.lesion_count} separate lesions"
    ill, all_ = re.search(rf"([\d.]+) ml of ([\d\s.]+) ml; {many}", text).groups()  # type: ignore[union-attr]
    is_shown(ill, results.expected["lungs"]["lesion_ml"], "headline, lesions")
    is_shown(all_, results.expected["lungs"]["lung_ml"], "headline, lungs")
    shown = {int(number) for number in re.findall(r"Slice (\d+), z", text)}
    assert shown == set(results.findings["key_slices"])
    assert all(results.lesion[k].any() for k in shown)


def is_shown(cell: str, expected: float | None, what: str) -> None:
    """A number as a page prints it: thousands apart, a long minus, and no more decimals than it shows."""
    plain = re.sub(r"\s", "", cell).replace("\u2013", "-").replace("\u2212", "-")
    if expected is None or plain == "-":
        assert (expected is None) == (plain == "-"), what
    elif plain.startswith("<"):
        assert 0 < expected < float(plain[1:]), what
    else:
        decimals = len(plain.partition(".")[2])
        assert float(plain) == pytest.approx(expected, abs=0.5 * 10.0**-decimals + 1e-6), what


def test_each_segment_names_its_bundle(results: Results) -> None:
    known = results.bundles
    for task, name in (("lung", "lung-seg"), ("lesion", "lesion-seg")):
        for item in results.dicom(name).SegmentSequence:
            made = item.SegmentationAlgorithmIdentificationSequence[0]
            assert (made.AlgorithmName, made.AlgorithmVersion) == known[task][:2]
            assert known[task][2] in made.AlgorithmParameters


def test_each_group_of_the_report_names_its_bundle(results: Results) -> None:
    known = results.bundles
    makers = {**dict.fromkeys(results.expected, "lung"), "COVID-19 lesion": "lesion", "classification": "covid"}
    for group, task in makers.items():
        made = results.report[group]["measurementAlgorithmIdentification"]
        assert (made["AlgorithmName"], made["AlgorithmVersion"]) == known[task][:2], group
        assert f"bundle_sha256={known[task][2]}" in made["AlgorithmParameters"], group


def test_findings_and_pages_name_their_bundles(results: Results) -> None:
    known = results.bundles
    short = {task: f"{name} {version} {sha256[:12]}" for task, (name, version, sha256) in known.items()}
    assert results.findings["made_by"] == {
        "volume_ratio": [short["lesion"], short["lung"]],
        "classification": short["covid"],
    }
    for name, tasks in (("volume-ratio", ("lesion", "lung")), ("classification", ("covid",))):
        text = " ".join(results.pdf_text(name).split())
        for task in tasks:
            assert f"{known[task][0]} {known[task][1]} by Carina, bundle sha256 {known[task][2][:16]}" in text


def test_every_warning_is_in_the_manifest_and_is_one(results: Results) -> None:
    assert set(results.findings["warnings"]) <= results.warnings
    text = next(results.folder.rglob("volume-ratio.txt")).read_text()
    assert set(re.findall(r"^warning: (.+)$", text, re.MULTILINE)) == set(results.findings["warnings"])
    page = " ".join(results.pdf_text("volume-ratio").split())
    assert all(said in page for said in results.findings["warnings"])
    for said in results.warnings:
        assert re.fullmatch(r"[A-Z0-9].*\.", said), said
    facts = results.manifest["operators"]["lung-lesions"]["facts"]
    left_out = [said for said in results.warnings if "were left out" in said]
    assert [f"{facts['left_out_ml']:.2f}" in said for said in left_out] == [True] * (facts["left_out_ml"] >= 0.1)


def test_objects_belong_to_the_study_of_their_source(results: Results) -> None:
    source, objects = results.source_slices, results.objects
    assert {str(one.StudyInstanceUID) for one in (*source, *objects.values())} == {str(source[0].StudyInstanceUID)}
    written = {}
    for record in results.manifest["operators"].values():
        written.update(record["facts"].get("objects", {}))
    assert written == {name: str(one.SOPInstanceUID) for name, one in objects.items()}
    assert results.findings["uid"] == str(source[0].SeriesInstanceUID)


def test_objects_refer_to_each_other(results: Results) -> None:
    objects, slices = results.objects, {str(one.SOPInstanceUID) for one in results.source_slices}
    for name in ("lung-seg", "lesion-seg"):
        (series,) = objects[name].ReferencedSeriesSequence
        assert {str(one.ReferencedSOPInstanceUID) for one in series.ReferencedInstanceSequence} == slices
    segs = {str(objects[name].SOPInstanceUID) for name in ("lung-seg", "lesion-seg")}
    assert evidence_of(objects["measurements"]) == slices | segs
