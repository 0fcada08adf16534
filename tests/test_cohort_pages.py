"""The page of a cohort: what it counts, orders, keeps and calls far; every figure opens its case, no path does else."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html import unescape
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from carina import RESEARCH_ONLY
from carina.api.cohort_table import CohortTable, Fate
from carina.errors import BadConfig
from carina.service.viewer.cohort_pages import cohort_routes
from carina.service.viewer.cohort_rows import chosen_rows, cohort_asked, column_spreads
from carina.service.viewer.server import run_app
from carina.service.viewer.ways_to_correct import Correcting
from viewer_runs import served, write_cohort

MANY = 12


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohorts") / "spring"
    write_cohort(folder, MANY)
    return folder


@pytest.fixture(scope="module")
def client(cohort: Path) -> Iterator[httpx.Client]:
    with asking(cohort) as found:
        yield found


@contextmanager
def asking(app: Path | Starlette) -> Iterator[httpx.Client]:
    with served(app) as url, httpx.Client(base_url=url, timeout=120) as found:
        yield found


def names(page: str) -> list[str]:
    """The names of the table's rows, in order: where a row is called by its place, what stands below it."""
    cells = (cell.split("<br>")[-1] for cell in re.findall(r'<th scope="row">(.*?)</th>', page))
    return [unescape(re.sub("<[^>]*>", "", cell)) for cell in cells]


def test_the_page_counts_shows_and_says_what_it_is(client: httpx.Client) -> None:
    page = client.get("/").text
    assert RESEARCH_ONLY in page
    assert "13 rows" in page and "12 done" in page and "1 failed" in page
    assert names(page) == [*(f"case-{number}" for number in range(MANY)), "<b>head</b>"]
    assert '>head<br><span class="hash">&lt;b&gt;head' in page
    assert "No chest." in page and "<b>head" not in page


def test_a_column_orders_and_rows_without_it_come_last(client: httpx.Client) -> None:
    falling = names(client.get("/", params={"order": "-lungs ratio_percent"}).text)
    assert falling[:2] == ["case-11", "case-10"] and falling[-1] == "<b>head</b>"
    assert names(client.get("/", params={"order": "lungs ratio_percent"}).text)[:2] == ["case-0", "case-1"]
    page = client.get("/", params={"order": "-name"}).text
    assert names(page)[:3] == ["<b>head</b>", "case-11", "case-10"], "by what is shown, head, and by numbers"
    assert re.findall(r'aria-sort="(\w+)"[^\n]*?>(\w+)</a></th>', page) == [("descending", "Name")]


def test_every_column_leads_back_to_itself_and_says_what_it_holds(client: httpx.Client) -> None:
    page = client.get("/").text
    heads = re.findall(r'<th scope="col"[^>]*><a id="([^"]+)" href="[^"]*#([^"]+)">([^<]+)</a>', page)
    assert all(own == target for own, target, _ in heads)
    assert len({own for own, _, _ in heads}) == len(heads) == page.count("order=")
    assert [title for _, _, title in heads if "COVID" in title] == [
        f"Probability of {name}" for name in ("COVID-19", "non-COVID-19")
    ]


def test_only_the_case_far_from_the_others_is_called_so(client: httpx.Client) -> None:
    page = client.get("/", params={"far": "yes"}).text
    assert names(page) == ["case-11"]
    assert page.count("(far above the others)") == 1


def test_every_bar_opens_its_rows_and_every_figure_its_case(client: httpx.Client) -> None:
    page = client.get("/").text
    bars = re.findall(r'<a href="(\?[^"]*)" aria-label="Ratio % ([^"]*): (\d+)"', page)
    assert sum(int(count) for _, _, count in bars) == MANY
    for link, values, count in bars:
        chosen = client.get("/" + unescape(link)).text
        assert len(names(chosen)) == int(count)
        assert f"Without the filter (Ratio % from {values})" in chosen
    for case in set(re.findall(r'href="(/cases/[^"]*)"', page)):
        assert client.get(case).status_code == 200
    report = client.get("/cases/case-3/report").text
    assert '<a href="/">Cohort</a>' in report and RESEARCH_ONLY in report


@pytest.mark.parametrize("case", ["..", "%2e%2e", "nobody", "case-0%2f..%2fcase-1", "%2fetc", "cohort.csv"])
def test_a_case_that_the_table_does_not_name_is_not_there(client: httpx.Client, case: str) -> None:
    assert client.get(f"/cases/{case}/report").status_code in (404, 307)
    assert client.get(f"/cases/{case}/files/manifest.json").status_code == 404
    leads_back(client.get(f"/cases/{case}/report", follow_redirects=True))


@pytest.mark.parametrize("path", ["/nowhere", "/cases/case-0/nowhere", "/agreement/nowhere"])
def test_an_unknown_address_leads_back(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404 and "There is no such page here." in answer.text
    leads_back(answer)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"order": "height"}, "no column of numbers 'height'"),
        ({"column": "lungs lung_ml", "least": "many"}, "least='many': expected a number"),
        ({"column": "lungs lung_ml", "most": "nan"}, "most='nan': expected a number"),
        ({"start": "x"}, "start='x': expected a number"),
        ({"colour": "red"}, "does not know"),
    ],
)
def test_what_can_not_be_asked_is_said_in_one_line(client: httpx.Client, query: dict[str, str], words: str) -> None:
    answer = client.get("/", params=query)
    assert answer.status_code == 400
    assert words in unescape(answer.text)
    leads_back(answer)


def leads_back(answer: httpx.Response) -> None:
    """The page of an error leads to the cohort and nowhere else."""
    assert re.findall(r'<a href="([^"]+)">([^<]+)', answer.text.partition("<main")[2]) == [("/", "Cohort")]


def test_downloads_are_the_table(client: httpx.Client, cohort: Path) -> None:
    assert client.get("/cohort.csv").content == (cohort / "cohort.csv").read_bytes()
    table = pd.read_parquet(io.BytesIO(client.get("/cohort.parquet").content))
    assert list(table["name"])[:2] == ["case-0", "case-1"]
    assert table["lungs ratio_percent"].iloc[MANY - 1] == 60.0


def test_a_cohort_that_goes_on_is_read_again(tmp_path: Path) -> None:
    items = write_cohort(tmp_path, 2)
    waiting = [replace(item, fate=Fate.WAITING, findings={}) for item in items]
    CohortTable(tmp_path / "cohort.csv", waiting).write()
    with asking(Starlette(routes=cohort_routes(tmp_path, Correcting(source=lambda _request, _run: None)))) as asked:
        assert "3 waiting" in asked.get("/").text
        CohortTable(tmp_path / "cohort.csv", items).write()
        assert "2 done" in asked.get("/").text


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a,b\n1,2\n"])
def test_what_is_no_table_of_a_cohort_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cohort.csv").write_bytes(content)
    with pytest.raises(BadConfig, match=r"cohort\.csv: can't be read .*carina run --each"):
        run_app(tmp_path)


def test_a_folder_that_a_table_names_elsewhere_is_not_opened(tmp_path: Path) -> None:
    items = [replace(item, name="away") for item in write_cohort(tmp_path / "other", 1)]
    CohortTable(tmp_path / "out" / "cohort.csv", items).write()
    table = tmp_path / "out" / "cohort.csv"
    table.write_text(table.read_text().replace(",case-0,", ",../other/case-0,"))
    with asking(tmp_path / "out") as asked:
        for case in ("..%2fother%2fcase-0", "../other/case-0"):
            assert asked.get(f"/cases/{case}/report").status_code == 404


VALUES = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=40)
COLUMN = "lungs lung_ml"


def of_values(values: list[float | None]) -> pd.DataFrame:
    """A cohort with one column of numbers."""
    numbers = pd.Series(values, dtype=float)
    return pd.DataFrame({"name": [str(n) for n in range(len(values))], "state": "done", COLUMN: numbers})


@settings(max_examples=60, deadline=None)
@given(values=VALUES, falls=st.booleans())
def test_rows_are_ordered_by_their_values_and_those_without_come_last(
    *, values: list[float | None], falls: bool
) -> None:
    table = of_values(values)
    rows = chosen_rows(table, cohort_asked({"order": ("-" if falls else "") + COLUMN}), column_spreads(table))
    assert sorted(rows) == list(range(len(values)))
    got = [values[row] for row in rows]
    known = [value for value in got if value is not None]
    assert known == sorted(known, reverse=falls) and got[: len(known)] == known


@settings(max_examples=60, deadline=None)
@given(values=VALUES)
def test_what_is_far_lies_beyond_three_widths_of_the_middle_half(values: list[float | None]) -> None:
    table = of_values(values)
    far = chosen_rows(table, cohort_asked({"far": "yes"}), column_spreads(table))
    known = [value for value in values if value is not None]
    low, high = np.percentile(known, [25, 75]) if len(known) >= 8 else (0.0, 0.0)
    beyond = [
        n for n, value in enumerate(values) if value is not None and max(low - value, value - high) > 3 * (high - low)
    ]
    assert far == (beyond if high > low else [])
