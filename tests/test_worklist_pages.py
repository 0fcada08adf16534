"""From page to page of the worklist, and back."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from sqlalchemy import insert

from carina.database import JOB
from carina.service.pages.worklist import ROWS
from served_nodes import NOON, opened, serving

JOBS = 3 * ROWS + 7


def row(number: int) -> dict[str, object]:
    return {
        "source": f"/in/{number}",
        "pipeline": "default",
        "folder": f"runs/{number}",
        "state": "stopped",
        "ended": "healthy" if number % 5 else "faulted",
        "priority": 1,
        "memory_mb": 100.0,
        "cores": 1.0,
        "created_at": NOON,
        "stopped_at": NOON,
        "searched": "chest",
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [("", JOBS), ("order=oldest", JOBS), ("state=healthy", JOBS * 4 // 5), ("description=Chest&order=oldest", JOBS)],
)
def test_the_pages_that_lead_on_lead_back_by_the_same_steps(tmp_path: Path, query: str, found: int) -> None:
    node, (back, on) = opened(tmp_path), ("Newer", "Older")
    if "oldest" in query:
        back, on = on, back
    with node.engine.begin() as connection:
        connection.execute(insert(JOB), [row(number) for number in range(JOBS)])

    with serving(node) as url:

        def seen(path: str) -> tuple[list[str], dict[str, str]]:
            text = httpx.get(url + path.replace("&amp;", "&")).raise_for_status().text
            links = re.search(r'aria-label="Pages of jobs">(.*?)</nav>', text, re.DOTALL)
            assert links
            named = re.findall(r'<a href="([^"]*)"[^>]*>(\w+)</a>', links[1])
            return re.findall(r'id="row-of-job-(\d+)"', text), {word: link for link, word in named}

        pages = [seen(f"/?{query}")]
        while on in pages[-1][1]:
            pages.append(seen(pages[-1][1][on]))
        ids = [one for shown, _ in pages for one in shown]
        assert len(ids) == len(set(ids)) == found and len(pages) == -(-found // ROWS)
        assert back not in pages[0][1]
        for before, page in pairwise(pages):
            assert seen(page[1][back])[0] == before[0]
