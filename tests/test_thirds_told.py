"""Where less than half of the lungs' height is in view, no output tells thirds, and each says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import httpx
import numpy as np
import pytest
from pydicom import Dataset

from carina.dicom.sr import measurements
from carina.measure.findings import RatioFindings
from carina.measure.lesion_sites import lesion_sites
from carina.measure.ratio import lesion_ratio
from carina.measure.table import findings_rows
from carina.measure.thirds import THIRDS, THIRDS_NOT_TOLD
from carina.service.viewer.cohort_rows import blank_text
from carina.synth.phantom import Phantom
from carina.volume import Mask
from dicom_objects_samples import MAKERS, make_series
from viewer_runs import posed, served, write_run

LUNGS_ALONE = ["lungs", "left lung", "right lung"]

BOTTOM, TOP, WHOLE = (0.0, 0.4), (0.6, 1.0), (0.0, 1.0)


def cut(low: float, high: float) -> Phantom:
    """A chest with slices of the lungs' height from one share of it to another."""
    chest = posed("plain")
    present = np.flatnonzero(chest.lung.labels.any(axis=(1, 2)))
    first, last = (round(present[0] + share * (present[-1] + 1 - present[0])) for share in (low, high))
    grid = replace(chest.volume.grid, shape=(last - first, *chest.volume.grid.shape[1:]))

    def of(mask: Mask) -> Mask:
        return replace(mask, labels=mask.labels[first:last], grid=grid)

    volume = replace(chest.volume, hu=chest.volume.hu[first:last], grid=grid)
    return replace(chest, volume=volume, lung=of(chest.lung), lesion=of(chest.lesion))


def measured(phantom: Phantom) -> RatioFindings:
    return lesion_ratio(phantom.lesion, phantom.lung, phantom.volume)


def words_of(report: Dataset) -> list[str]:
    return [str(one.value) for one in report.iterall() if one.keyword in ("TextValue", "CodeMeaning")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = write_run(cut(*BOTTOM), tmp_path_factory.mktemp("cut") / "run")
    with served(folder) as address, httpx.Client(base_url=address, timeout=120) as found:
        yield found


@pytest.mark.parametrize(("low", "high"), [BOTTOM, TOP])
def test_findings_have_no_thirds_and_a_warning(low: float, high: float) -> None:
    phantom = cut(low, high)
    found = measured(phantom)
    assert [one.region for one in found.regions] == LUNGS_ALONE
    assert found.warnings == (THIRDS_NOT_TOLD,)
    assert found.lesions and {one.region for one in found.lesions} == {"left lung"}
    assert found.lesions == lesion_sites(phantom.lesion, phantom.lung)
    assert found.regions[1].lesion_ml == found.regions[0].lesion_ml == pytest.approx(phantom.lesion.volume_ml())


def test_whole_lungs_have_them() -> None:
    found = measured(cut(*WHOLE))
    assert len(found.regions) == 9 and not found.warnings
    assert all(one.region.endswith(THIRDS) for one in found.lesions)


def test_tables_and_the_structured_report_hold_the_lungs_alone_and_say_so() -> None:
    found = measured(cut(*BOTTOM))
    rows = findings_rows(found)
    assert [row["region"] for row in rows] == LUNGS_ALONE and THIRDS_NOT_TOLD in str(rows[0]["warnings"])
    written = words_of(measurements(found, None, make_series(), MAKERS))
    assert THIRDS_NOT_TOLD in written and "Inferior" not in written
    assert "Inferior" in words_of(measurements(measured(cut(*WHOLE)), None, make_series(), MAKERS))


@pytest.mark.parametrize("address", ["/", "/report"])
def test_pages_say_so_in_place_of_the_thirds(page: httpx.Client, address: str) -> None:
    told = page.get(address).text
    assert told.count('<th scope="row">Thirds</th><td>not told</td>') == 2
    assert "er third" not in told and ("left lung, third not told" in told) == (address == "/")


@pytest.mark.parametrize(
    ("whole_ml", "third_ml", "said"), [(900.0, np.nan, "not told"), (900.0, 300.0, ""), (np.nan, np.nan, "")]
)
def test_a_cohort_says_so_in_place_of_a_number(whole_ml: float, third_ml: float, said: str) -> None:
    row = {"lungs lung_ml": whole_ml, "left lung lower third lung_ml": third_ml}
    assert blank_text(row, "left lung lower third lesion_mean_hu") == said
    assert blank_text(row, "lungs lesion_mean_hu") == ""
