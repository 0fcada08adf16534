"""Messages begin small, behind the word of a command line; alone on a page they begin with a capital."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser

import carina.service
from carina.service.problems import as_sentence
from test_viewer_browser import opened
from viewer_runs import posed, served, write_run

SERVICE = Path(carina.service.__file__).parent
TEMPLATES = sorted((SERVICE / "pages" / "templates").glob("*.html")) + sorted(SERVICE.glob("viewer/templates/*.html"))

MESSAGE = r"\b(?:said|error(?!\.)|message|warning|reason|not_computed|done)\b"
ALONE = re.compile(rf"<(?:p|li|dd)\b[^>]*>\{{\{{ *(?P<shown>[^}}]*{MESSAGE}[^}}]*)\}}\}}")
"""What a template puts first into a paragraph or an item of a list, where that is a message."""

MESSAGES = [
    ("there is no job 99.", "There is no job 99."),
    ("series 1.2.3: it is a localizer.", "Series 1.2.3: it is a localizer."),
    ("can't be reached", "Can't be reached"),
    ("volume.mha: it is cut short.", "volume.mha: it is cut short."),
    ("default: there is no pipeline of this name.", "default: there is no pipeline of this name."),
    ("reader.two has no role", "reader.two has no role"),
    ("case7 is damaged", "case7 is damaged"),
    ("PACS can't be reached", "PACS can't be reached"),
    ("share (/srv/results) can't be written", "share (/srv/results) can't be written"),
    ("first, second", "First, second"),
    ("28.92 ml marked", "28.92 ml marked"),
    ("", ""),
]


@pytest.mark.parametrize(("told", "shown"), MESSAGES)
def test_a_message_gets_its_capital_and_a_name_keeps_its_letters(told: str, shown: str) -> None:
    assert as_sentence(told) == shown


def test_scripts_write_messages_as_templates_do(browser: Browser, tmp_path: Path) -> None:
    with served(write_run(posed("plain"), tmp_path / "run")) as url, opened(browser, f"{url}/") as page:
        write = 'async (texts) => texts.map((await import("/static/words.js")).sentence)'
        assert page.evaluate(write, [told for told, _ in MESSAGES]) == [shown for _, shown in MESSAGES]


@pytest.mark.parametrize("template", TEMPLATES, ids=[f"{one.parts[-3]}/{one.name}" for one in TEMPLATES])
def test_no_template_shows_a_message_as_it_came(template: Path) -> None:
    found = [one["shown"].strip() for one in ALONE.finditer(template.read_text())]
    assert not [shown for shown in found if not shown.endswith("sentence")]


def test_the_templates_do_show_messages() -> None:
    assert sum(len(ALONE.findall(template.read_text())) for template in TEMPLATES) > 10
