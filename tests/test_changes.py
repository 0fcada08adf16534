"""Two scans of a patient: what changed in numbers and words, and slices of the same height beside each other."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from html import unescape
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage, generate_uid

from carina import RESEARCH_ONLY
from carina.api.result import Run
from carina.corrections.decisions import decide
from carina.corrections.masks import MaskName
from carina.corrections.standing import Decision
from carina.measure.change import LesionChange, LungHeight, ScanFindings, lung_height, matched_heights
from carina.measure.findings import RegionFindings
from carina.report.change import change_sentences
from carina.report.overlay import layout
from carina.service.viewer.server import run_app
from carina.synth.phantom import PhantomLesion, chest_phantom
from viewer_runs import POSES, posed, served, write_run


def scan(on: date | None, lung_ml: float, lesion_ml: float, network: str = "net 1") -> ScanFindings:
    ratio = 100 * lesion_ml / lung_ml if lung_ml else 0.0
    lungs = RegionFindings(region="lungs", lung_ml=lung_ml, lesion_ml=lesion_ml, ratio_percent=ratio)
    return ScanFindings(on=on, lungs=lungs, network=network)


MARCH, APRIL = date(2020, 3, 1), date(2020, 4, 4)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        *((129, 129.4, "stayed at 129"), (129.4, 129.6, "stayed near 130"), (129, 131.1, "rose from 129 to 131")),
        *(
            (99.9, 100.2, "stayed near 100"),
            (1234, 1243, "stayed near 1\u00a0243"),
            (1234, 1255, "rose from 1\u00a0234"),
        ),
        *((0.04, 0.1, "stayed near 0.1"), (0.3, 0.1, "fell from 0.3 to 0.1"), (0, 0.04, "rose from 0 to < 0.1")),
        *((10.04, 9.94, "stayed near 9.9"), (2.0, 1.8, "fell from 2.0 to 1.8"), (0.1, 0, "fell from 0.1 to 0")),
    ],
)
def test_a_volume_and_a_ratio_rise_or_fall_by_more_than_their_last_digit(
    before: float, after: float, said: str
) -> None:
    (told, *_) = change_sentences(LesionChange(earlier=scan(MARCH, 5000, before), later=scan(APRIL, 5000, after)))
    assert f"lesion {said}" in told and ("(" in told) <= ("stayed" not in told.partition(", ")[0])


@given(st.floats(0.01, 99.0))
def test_what_rounding_alone_makes_of_a_ratio_is_no_change(percent: float) -> None:
    (told, *_) = change_sentences(
        LesionChange(earlier=scan(MARCH, 100, percent), later=scan(APRIL, 100, percent * 1.0001))
    )
    assert "rose" not in told and "fell" not in told


@pytest.mark.parametrize(
    ("earlier", "later", "said"),
    [
        (
            scan(MARCH, 4000, 200),
            scan(APRIL, 4100, 82),
            [
                r"Within 34 days the volume marked as lesion fell from 200 to 82\.0 ml \(.59 %\), its ratio to the "
                r"lungs fell from 5\.00 to 2\.00 %\."
            ],
        ),
        (
            scan(None, 4000, 0),
            scan(APRIL, 4000, 0),
            [r"Between the two scans the volume .* stayed at 0 ml, its ratio to the lungs stayed at 0 %\."],
        ),
        (
            scan(MARCH, 4000, 100, "net 1"),
            scan(MARCH, 3000, 100, "net 2"),
            [
                r"On the same day .* stayed at 100 ml, .* rose from 2\.50 to 3\.33 %",
                r"lungs are 25 % smaller .* another breath",
                r"different networks \(net 1, net 2\)",
            ],
        ),
        (
            scan(MARCH, 4010, 129),
            scan(APRIL, 3995, 129),
            [r"stayed at 129 ml, its ratio to the lungs stayed near 3\.23 %"],
        ),
        (scan(APRIL, 4000, 10), scan(MARCH, 4000, 20), [r"34 days younger than this one"]),
        (
            scan(date(2016, 1, 1), 100, 2),
            scan(APRIL, 4100, 4000),
            [
                r"^Within 1\u00a0555 days .* rose from 2\.0 to 4\u00a0000 ml \(\+199\u00a0900 %\)",
                r"4\u00a0000 % larger",
            ],
        ),
        (scan(APRIL, 4000, 10), scan(date(2016, 1, 1), 4000, 20), [r"1\u00a0555 days younger than this one"]),
        (scan(MARCH, 0, 0), scan(APRIL, 4000, 20), [r"no lung was found, so nothing can be compared"]),
    ],
)
def test_a_change_is_told_with_what_else_can_be_its_reason(
    earlier: ScanFindings, later: ScanFindings, said: list[str]
) -> None:
    told = change_sentences(LesionChange(earlier=earlier, later=later))
    assert len(told) == len(said)
    for sentence, wanted in zip(told, said, strict=True):
        assert re.search(wanted, sentence), sentence


@given(st.integers(0, 500), st.integers(1, 500), st.booleans(), st.integers(0, 500))
def test_a_height_and_its_slice_are_each_others_inverse(low: int, span: int, turned: bool, index: int) -> None:  # noqa: FBT001
    height = LungHeight(base=low + span * turned, apex=low + span * (not turned))
    assert height.index(height.share(index)) == index


@pytest.mark.parametrize("pose", [*POSES, "oblique"])
def test_the_base_is_nearer_to_the_feet_in_every_pose(pose: str) -> None:
    phantom = posed(pose)
    axis = layout(phantom.volume.grid, "axial").normal
    height = lung_height(phantom.lung, axis)
    assert height is not None
    ends = []
    for index in (height.base, height.apex):
        middle = [count / 2 for count in phantom.volume.grid.shape]
        middle[axis] = index
        ends.append(phantom.volume.grid.points_mm(np.array(middle))[2])
    assert ends[0] < ends[1] - 100
    empty = replace(phantom.lung, labels=np.zeros_like(phantom.lung.labels))
    assert lung_height(empty, axis) is None


def cut_short(pose: str, end: str, slices: int) -> tuple[LungHeight, list[int]]:
    """The height of a scan that lacks slices at an end, and which of a whole one's each of its slices is, from feet."""
    mask = posed(pose, (24, 48, 48)).lung
    order = np.arange(24) if pose == "plain" else np.arange(24)[::-1]
    filled = np.flatnonzero(mask.labels[order].any(axis=(1, 2)))
    lost = slices and slices + int(filled[0] if end == "base" else 23 - filled[-1])
    kept = np.flatnonzero(order >= lost if end == "base" else order < 24 - lost)
    grid = replace(mask.grid, shape=(len(kept), 48, 48))
    found = lung_height(replace(mask, labels=mask.labels[kept], grid=grid), 0)
    assert found is not None
    return found, order[kept].tolist()


@pytest.mark.parametrize("pose", ["plain", "feet first"])
@pytest.mark.parametrize("end", ["base", "apex"])
@pytest.mark.parametrize("cut", [(3, 0), (0, 3), (3, 2)])
def test_a_scan_that_ends_before_the_lungs_do_is_matched_from_the_end_that_both_show(
    pose: str, end: str, cut: tuple[int, int]
) -> None:
    earlier, first = cut_short("plain", end, cut[0])
    later, second = cut_short(pose, end, cut[1])
    is_cut = [(one.is_base_cut, one.is_apex_cut) for one in (earlier, later)]
    assert is_cut == [(bool(slices) and end == "base", bool(slices) and end == "apex") for slices in cut]
    matched = matched_heights(earlier, later)
    assert matched.shown == ("apex" if end == "base" else "base")
    for place in range(8, 16):
        assert first[matched.earlier.index(matched.later.share(second.index(place)))] == place


def test_scans_that_are_cut_at_either_end_are_matched_by_what_is_in_view() -> None:
    first, second = LungHeight(base=0, apex=9, is_base_cut=True), LungHeight(base=3, apex=9, is_apex_cut=True)
    for one, other in ((first, second), (second, first), (first, replace(first, is_apex_cut=True))):
        matched = matched_heights(one, other)
        assert (matched.earlier, matched.later, matched.shown) == (one, other, "")


def dated(run: Path, on: str) -> Path:
    """A run with an object that carries a study date."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.StudyDate = SegmentationStorage, generate_uid(), on
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    (run / "dicom").mkdir()
    dataset.save_as(run / "dicom" / "lesion.dcm", enforce_file_format=True)
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """This scan, one a month earlier with a larger lesion stored feet first, and one whose date nobody knows."""
    folder = tmp_path_factory.mktemp("scans")
    larger = [PhantomLesion(centre_mm=(80.0, 30.0, -55.0), radii_mm=(26.0, 26.0, 26.0))]
    earlier = chest_phantom(shape=(40, 96, 96), lesions=larger, seed=4)
    this = dated(write_run(posed("feet first"), folder / "this"), "20200404")
    return this, dated(write_run(earlier, folder / "earlier"), "20200301"), write_run(posed("plain"), folder / "other")


@pytest.fixture(scope="module")
def client(runs: tuple[Path, Path, Path]) -> Iterator[httpx.Client]:
    app = run_app(runs[0], runs[1:])
    with served(app) as url, httpx.Client(base_url=url, timeout=120) as asked:
        yield asked


def test_the_page_shows_both_scans_and_says_what_changed(client: httpx.Client) -> None:
    page = unescape(client.get("/changes").text)
    assert RESEARCH_ONLY in page
    assert re.search(r"Within 34 days the volume marked as lesion fell from [\d.]+ to [\d.]+ ml", page)
    dates = re.findall(r"<th scope=\"row\" class=\"date\">([^<]*)<", page)
    assert dates[:2] == ["2020-03-01", "2020-04-04"]
    assert re.findall(r"<figcaption><span class=\"name\">([^<]*)<", page) == [
        "Earlier, 2020-03-01",
        "This scan, 2020-04-04",
    ]
    assert 'href="/changes"' in client.get("/").text


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_the_two_pictures_show_the_same_height_of_the_lungs(
    client: httpx.Client, runs: tuple[Path, Path, Path], share: float
) -> None:
    first = client.get("/changes").text
    ends = [tuple(map(int, found)) for found in re.findall(r'data-foot="(\d+)" data-apex="(\d+)"', first)]
    (before_base, before_apex), (base, apex) = ends
    assert base > apex and before_base < before_apex  # stored feet first, and head first
    at = round(base + share * (apex - base))
    page = client.get("/changes", params={"at": at}).text
    shown = [int(index) for index in re.findall(r"/slice/axial/(\d+)\.png", page)]
    assert shown[1] == at
    assert (shown[0] - before_base) / (before_apex - before_base) == pytest.approx(share, abs=0.05)
    for picture in re.findall(r'<img[^>]*src="([^"]*)"', page):
        assert client.get(unescape(picture)).headers["content-type"] == "image/png"


def test_a_link_to_a_slice_that_is_not_there_opens_the_nearest_or_the_usual_one(client: httpx.Client) -> None:
    def shown(**query: str) -> str:
        page = client.get("/changes", params=query).raise_for_status().text
        return str(re.findall(r"/slice/axial/(\d+)\.png", page)[1])

    for at in ("x", "NaN", "1e3", "", "9" * 30):
        assert shown(at=at) == shown(), at
    assert (shown(at="-7"), shown(at="4.2"), shown(at="99999999")) == ("0", "4", "59")
    said = "There is no axial slice {} in this scan, which has 0 to 59: the nearest, {}, is shown."
    for at, words in {"-7": said.format(-7, 0), "60": said.format(60, 59), "59": "", "x": ""}.items():
        page = client.get("/changes", params={"at": at}).text
        assert words in page and ("There is no axial slice" in page) == bool(words), at


def test_the_earlier_run_opens_and_leads_back(client: httpx.Client) -> None:
    assert '<a href="../../changes">Changes</a>' in client.get("/earlier/1/report").text
    page = unescape(client.get("/changes", params={"earlier": 2}).text)
    assert "Between the two scans" in page


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"earlier": "3"}, 404, "There is no earlier run 3; known: 1, 2"),
        ({"earlier": "0"}, 404, "There is no earlier run 0"),
        ({"earlier": "x"}, 400, "earlier='x': expected a whole number"),
        ({"earlier": "9" * 30}, 400, "expected a whole number"),
    ],
)
def test_what_can_not_be_compared_is_said(client: httpx.Client, query: dict[str, str], status: int, words: str) -> None:
    answer = client.get("/changes", params=query)
    assert answer.status_code == status
    assert words in unescape(answer.text)


def test_a_mask_that_a_reader_rejected_is_said_beside_the_sentence(
    runs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    earlier = tmp_path / "earlier"
    shutil.copytree(runs[1], earlier)
    decide(Run(earlier), MaskName.LUNG, Decision.ACCEPTED, "Roe", datetime(2020, 5, 1, tzinfo=UTC))
    decide(Run(earlier), MaskName.LESION, Decision.REJECTED, "Roe", datetime(2020, 5, 1, tzinfo=UTC))
    with served(run_app(runs[0], (earlier,))) as url:
        page = unescape(httpx.get(f"{url}/changes", timeout=120).text)
    said = "The figures above are the networks'. A reader differs for the earlier scan: lesion rejected."
    assert page.index("the volume marked as lesion fell") < page.index(said) < page.index("<figure")


def test_runs_without_images_are_compared_by_their_numbers(runs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(runs[1], bare)
    shutil.rmtree(bare / "volume")
    with served(run_app(runs[0], [bare])) as url:
        page = unescape(httpx.get(f"{url}/changes", timeout=120).text)
    assert "no slices can be shown" in page and "Within 34 days" in page
