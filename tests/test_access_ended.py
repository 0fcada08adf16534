"""A log-in that ends while somebody paints, uploads or presses a button: plain words, the way back, nothing lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import update

from access_nodes import PASSWORD, Guarded, guarded
from carina.api.result import Run
from carina.corrections.masks import MaskName, network_mask, strokes_file
from carina.corrections.painting import Painting
from carina.database import JOB
from corrected_runs import ready, saved
from test_access_browser import log_in, look_over
from viewer_runs import posed, write_run

LONG_S = 30 * 24 * 3600.0
ENDED = "You are no longer logged in."


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Guarded]:
    """A node whose job has a run that can be corrected."""
    with guarded(tmp_path) as one:
        phantom = posed("plain", (24, 48, 48))
        lesion = replace(phantom.lesion, names={1: "COVID-19 lesion"})
        write_run(replace(phantom, lesion=lesion), folder_of(one))
        with one.node.engine.begin() as connection:
            connection.execute(update(JOB).where(JOB.c.id == one.job).values(folder=f"runs/{one.job}"))
        yield one


def folder_of(node: Guarded) -> Path:
    return node.node.folder / "runs" / str(node.job)


def strokes(node: Guarded) -> Painting:
    run = Run(folder_of(node))
    return Painting(network_mask(run, MaskName.LESION), strokes_file(run.folder, MaskName.LESION))


def entered(browser: Browser, node: Guarded, role: str, path: str) -> Page:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_cookies([{"name": "carina", "value": node.cookies[role], "url": node.url}])
    page = context.new_page()
    page.goto(node.url + path)
    return page


def come_back(page: Page, role: str) -> None:
    page.get_by_role("link", name="Log in").first.click()  # the line of the page may lead there too
    log_in(page, f"{role}.one", PASSWORD)


def test_what_is_painted_after_the_log_in_ended_is_kept_and_stored_by_who_comes_back(
    browser: Browser, node: Guarded
) -> None:
    place = f"/jobs/{node.job}/view/correct/lesion"
    page = entered(browser, node, "reader", f"{place}?at=12,20,26")
    ready(page)
    page.keyboard.press(" ")
    saved(page)
    node.clock.wait(seconds=LONG_S)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press(" ")
    kept = f"{ENDED} 1 stroke not saved, kept in this browser and sent once you are logged in."
    expect(page.locator("#saved")).to_contain_text(kept)
    expect(page.get_by_role("button", name="Accept")).to_be_disabled()
    expect(page.locator("#undecidable")).to_contain_text("not all strokes are saved")
    assert strokes(node).revision == 1
    come_back(page, "reader")
    saved(page)
    assert page.url.startswith(node.url + place) and "at=" in page.url
    assert strokes(node).revision == 2
    page.context.close()


def test_what_one_person_painted_waits_for_that_person(browser: Browser, node: Guarded) -> None:
    page = entered(browser, node, "reader", f"/jobs/{node.job}/view/correct/lesion?at=12,20,26")
    ready(page)
    node.clock.wait(seconds=LONG_S)
    page.keyboard.press(" ")
    expect(page.locator("#saved")).to_contain_text("1 stroke not saved")
    come_back(page, "operator")
    ready(page)
    expect(page.locator("#saved")).to_have_text("Nothing painted yet.")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press(" ")
    saved(page)
    assert strokes(node).revision == 1
    node.clock.wait(seconds=LONG_S)
    page.reload()
    log_in(page, "reader.one", PASSWORD)
    saved(page)
    assert strokes(node).revision == 2
    assert painters(node) == ["operator.one", "reader.one"]
    page.context.close()


def test_who_only_looks_or_decides_is_told_and_led_back(browser: Browser, node: Guarded) -> None:
    page = entered(browser, node, "reader", f"/jobs/{node.job}/view/correct/lesion?at=12,20,26")
    ready(page)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    node.clock.wait(seconds=LONG_S)
    expect(page.locator("#saved")).to_contain_text(f"{ENDED} Nothing painted yet.")  # by itself
    page.get_by_role("button", name="Accept").click()
    expect(page.locator("#said")).to_have_text("You are no longer logged in: log in, then do it again.")
    other = page.context.new_page()
    other.goto(node.url)
    log_in(other, "reader.one", PASSWORD)
    expect(other.get_by_role("heading", name="Worklist")).to_be_visible()
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    ready(page)
    expect(page.locator("#said")).to_be_empty()
    page.route("**/view/**", lambda route: route.fulfill(status=404, body="{}"))  # for who may not see it
    unseen = "Whoever is logged in now does not see this run, or it is gone."
    expect(page.locator("#saved")).to_contain_text(unseen)
    page.locator(".axial .picture").press(" ")
    kept = "1 stroke not saved, kept in this browser and sent once the run is seen again: log in as who painted them,"
    expect(page.locator("#saved")).to_contain_text(f"{unseen} {kept} or ask")
    page.unroute("**/view/**")
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    saved(page)
    assert faults == []
    page.goto(f"{node.url}/jobs/{node.job}/view/")
    node.clock.wait(seconds=LONG_S)
    page.locator(".axial .picture").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#place")).to_contain_text(ENDED)
    expect(page.locator("#place").get_by_role("link", name="Log in")).to_be_visible()
    page.context.close()


ANOTHER = "This page is that of reader.one, and operator.one is logged in now: log in as reader.one again, or"


def log_in_elsewhere(page: Page, node: Guarded, role: str) -> None:
    """Somebody else logs in in another tab of the same browser."""
    other = page.context.new_page()
    other.goto(f"{node.url}/account")
    other.get_by_role("button", name="Log out", exact=True).click()
    log_in(other, f"{role}.one", PASSWORD)
    expect(other.get_by_role("heading", name="Worklist")).to_be_visible()
    other.close()


def painters(node: Guarded) -> list[str]:
    lines = strokes_file(folder_of(node), MaskName.LESION).read_text().splitlines()
    kept = [json.loads(line.split(" ", 1)[1]) for line in lines]  # a checksum comes first
    return [one["reader"] for one in kept if "reader" in one]


@pytest.mark.parametrize("is_told_first", [True, False])
def test_a_page_that_is_somebody_elses_by_now_says_so_and_takes_and_does_nothing(
    browser: Browser, node: Guarded, *, is_told_first: bool
) -> None:
    page = entered(browser, node, "reader", f"/jobs/{node.job}/view/correct/lesion?at=12,20,26")
    ready(page)
    page.keyboard.press(" ")
    saved(page)
    if not is_told_first:
        page.route("**/standing.json", lambda route: route.abort())
    log_in_elsewhere(page, node, "operator")
    line, said = page.locator("#saved"), page.locator("#said")
    if is_told_first:
        expect(line).to_contain_text(ANOTHER)  # by itself
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press(" ")
    expect(line).to_contain_text(ANOTHER)
    waiting = "1 stroke not saved, kept in this browser and sent once reader.one is logged in again."
    if not is_told_first:
        expect(line).to_contain_text(waiting)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press(" ")
    expect(said).to_contain_text(ANOTHER)
    for name in ("Accept", "Reject", "Finish the correction"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()
    expect(page.locator("#undecidable")).to_contain_text("Finish wait: somebody else is logged in now")
    assert painters(node) == ["reader.one"]
    look_over(page, 1280)
    if is_told_first:
        page.get_by_role("link", name="Open the page anew").click()
        ready(page)
        page.locator(".axial .picture").press("Shift+ArrowDown")  # away from what reader.one painted
        with page.expect_response("**/strokes"):
            page.keyboard.press(" ")
        saved(page)
        assert painters(node) == ["reader.one", "operator.one"]
    else:
        log_in_elsewhere(page, node, "reader")
        page.evaluate("window.dispatchEvent(new Event('focus'))")
        saved(page)
        expect(said).to_be_empty()
        assert painters(node) == ["reader.one", "reader.one"]
    page.context.close()


@pytest.mark.parametrize("path", ["/", "/jobs/{job}", "/jobs/{job}/view/", "/jobs/{job}/view/report"])
def test_a_page_that_changes_by_itself_says_that_its_log_in_ended_and_becomes_that_of_who_came(
    browser: Browser, node: Guarded, path: str
) -> None:
    page = entered(browser, node, "reader", path.format(job=node.job))
    said = page.locator("#connection")
    expect(page.locator("#live")).to_have_count(1)
    log_in_elsewhere(page, node, "operator")
    expect(said).to_contain_text("This page shows what was last known.")
    look_over(page, 1280)
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(page.locator(".who a")).to_contain_text("operator.one")
    expect(said).to_be_empty()
    page.context.close()


def test_an_object_is_not_sent_from_the_page_of_somebody_else(node: Guarded) -> None:
    same = {"sec-fetch-site": "same-origin", "origin": node.url}
    sending = {"number": 1, "reader": "reader.one"}
    answer = node.person("operator", **same).post(f"/jobs/{node.job}/view/correct/lesion/send", json=sending)
    assert (answer.status_code, answer.json()["code"]) == (409, "corrections.another-reader")


def test_who_logs_in_in_place_of_another_ends_that_session(node: Guarded) -> None:
    browser = node.person("reader")
    token = re.findall(r'name="token" value="([^"]+)"', browser.get("/account").text)[-1]
    entering = {"name": "operator.one", "password": PASSWORD, "token": token}
    assert browser.post("/login", data=entering, follow_redirects=False).status_code == 303, "by a form of their own"
    assert node.person("reader").get("/api/v1/jobs").status_code == 401


def test_an_upload_says_what_is_kept_and_leads_back(browser: Browser, node: Guarded, tmp_path: Path) -> None:
    page = entered(browser, node, "operator", "/")
    file = tmp_path / "chest.nii"
    file.write_bytes(b"x" * 1000)
    node.clock.wait(seconds=LONG_S)
    page.get_by_label("Files or a zip").set_input_files(file)
    expect(page.locator("#upload-said")).to_contain_text(f"{ENDED} What has come is kept: log in,")
    come_back(page, "operator")
    expect(page.get_by_role("heading", name="Run on files of your own")).to_be_visible()
    assert page.url == f"{node.url}/"
    page.context.close()


def test_a_button_pressed_after_the_end_is_answered_with_the_way_back(node: Guarded) -> None:
    nobody = node.person(None)
    for came_from, to in ((f"{node.url}/jobs/1?a=b", "%2Fjobs%2F1%3Fa%3Db"), ("http://elsewhere.example/x", "%2F")):
        answer = nobody.post("/act", data={"what": "cancel", "id": "1"}, headers={"referer": came_from})
        assert answer.status_code == 401
        assert "You are no longer logged in, so nothing was done: log in, then do it again." in answer.text
        assert f'<a href="/login?to={to}" autofocus aria-describedby="said">Log in</a>' in answer.text
