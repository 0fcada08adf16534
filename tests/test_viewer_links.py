"""Links to places of a run that are not there: each opens the page, which says so."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from test_viewer_pages import asked, text_of
from viewer_runs import posed, served, write_run


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    run: Path = write_run(posed("plain"), tmp_path_factory.mktemp("links") / "run")
    with served(run) as address:
        yield address


ELSEWHERE = {
    "lesion-3": "There is no lesion-3: this run has 2 lesions, numbered from the largest. ",
    "<script>": "'<script>' is no place",
    "NaN,NaN,NaN": "'NaN,NaN,NaN' is no place",
    "1,2": "'1,2' is no place",
    "": "'' is no place",
    "a" * 5000: " ... ",
    "-4,20,1000": "There is no voxel -4,20,1000 in this scan",
    "9999999,2,3": "the nearest, 59,2,3, is shown",
    "12.4,20,30": "",
}
"""Places of links that are none of the run's, and what is said of them."""


@pytest.mark.parametrize("at", ELSEWHERE, ids=lambda at: at[:20])
@pytest.mark.parametrize("page_of", ["/", "/correct/lesion"])
def test_a_link_to_a_place_that_is_not_there_opens_the_page_and_says_so(url: str, page_of: str, at: str) -> None:
    status, page, _ = asked(f"{url}{page_of}?{urlencode({'at': at})}")
    assert status == 200 and ELSEWHERE[at] in text_of(page)
    assert (b'id="outside"' in page) == bool(ELSEWHERE[at]) and b"<script>'" not in page
    scene = json.loads(page.decode().partition('id="scene">')[2].partition("</script>")[0])
    assert all(0 <= index < count for index, count in zip(scene["at"], scene["shape"], strict=True))


def test_the_list_marks_the_lesion_that_is_shown_whatever_the_link_said(url: str) -> None:
    lesions = json.loads(asked(f"{url}/")[1].decode().partition('id="scene">')[2].partition("</script>")[0])["lesions"]
    marked = {"lesion-1": ["1"], "lesion-2": ["2"], "lesion-9": ["1"], "": ["1"], "0,0,0": []}
    marked |= {",".join(map(str, at)): [str(number)] for number, at in enumerate(lesions, start=1)}
    for at, numbers in marked.items():
        page = asked(f"{url}/?{urlencode({'at': at})}")[1].decode()
        assert re.findall(r'lesion-(\d)" aria-current="true"', page) == numbers, at
    assert len(lesions) == 2
