"""Series that are no jobs yet, in quarantine or arriving, beside a search: those that it is for, and their number."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from sqlalchemy import insert

from carina.database import ARRIVAL
from carina.service.pages.worklist import ROWS, WorklistAsked, worklist
from served_nodes import NOON, opened, serving

SERIES = [("Thorax 1.0", "20260301", "ward"), ("ABDOMEN", "20260302101500", "scanner"), ("Größe 100%", "", "ward")]
"""Of each series its description, when it was studied, and its source; their UIDs are 1.2.0.1 and so on."""


def rows(state: str) -> list[dict[str, object]]:
    return [
        {
            "series_uid": f"1.2.{number}.1",
            "study_uid": f"1.2.{number}",
            "study_description": f"study of {words}",
            "series_description": words,
            "studied": studied,
            "source": source,
            "sender": "SCANNER@127.0.0.1",
            "state": state,
            "reason": "held",
            "first_at": NOON,
            "last_at": NOON,
        }
        for number, (words, studied, source) in enumerate(SERIES)
    ]


@pytest.mark.parametrize(
    ("query", "found", "words"),
    [
        ("", 3, "in quarantine: series"),
        ("state=faulted", 3, "in quarantine, no jobs yet and not part of the search: series"),
        ("reading=unread&pipeline=default&is_warned=true", 3, "no jobs yet and not part of the search"),
        ("uid=1.2.1", 1, "in quarantine as searched for: series"),
        ("uid=1.2.2.1", 1, "as searched for"),
        ("uid=1.2", 0, ""),
        ("description=abdomen", 1, "as searched for"),
        ("description=STUDY OF", 3, "as searched for"),
        ("description=gr%C3%B6sse", 1, "as searched for"),
        ("received_by=ward", 2, "as searched for"),
        ("studied_from=2026-03-02", 1, "as searched for"),
        ("studied_to=2026-03-02", 2, "as searched for"),
        ("studied_from=2026-03-02&studied_to=2026-03-02&received_by=ward", 0, ""),
        ("state=faulted&description=thorax", 1, "as searched for"),
    ],
)
def test_what_stands_beside_a_search_is_of_the_search(tmp_path: Path, query: str, found: int, words: str) -> None:
    node = opened(tmp_path, '[sources.ward]\nkind = "dicom"\nae_title = "WARD"\n')
    with node.engine.begin() as connection:
        connection.execute(insert(ARRIVAL), [*rows("quarantined"), *rows("arriving")])
    asked = WorklistAsked(**dict(httpx.QueryParams(query)))
    values = worklist(node, asked)
    assert [len(values["quarantine"]), len(values["arriving"])] == [found, found]
    with serving(node) as url:
        page = " ".join(re.sub(r"<[^>]+>", "", httpx.get(f"{url}/?{query}").text).split())
    assert (f"{found} in quarantine" in page) == bool(found)
    assert words in page


def test_a_search_finds_what_lies_behind_the_first_page_of_quarantine(tmp_path: Path) -> None:
    node = opened(tmp_path)
    later = [{**rows("quarantined")[1], "series_uid": f"1.3.{number}", "study_uid": "1.3"} for number in range(ROWS)]
    with node.engine.begin() as connection:
        connection.execute(insert(ARRIVAL), [rows("quarantined")[0], *later])
    assert [len(worklist(node, WorklistAsked(uid=uid))["quarantine"]) for uid in ("1.2.0", "1.3", "")] == [
        1,
        ROWS,
        ROWS,
    ]
