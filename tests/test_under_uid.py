"""A link by the UID of a series or a study never leads to another patient's results without a word."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import pytest
from playwright.sync_api import Browser, expect
from pydicom import dcmread
from pydicom.uid import UID, SegmentationStorage
from sqlalchemy import delete, update

from carina.database import ARRIVAL, INSTANCE, JOB, seeing
from carina.service.node import RunningNode
from carina.service.pages.under_uid import patients_under
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from carina.web_settings import DEFAULT_PROJECT
from served_nodes import add_job, hold, opened, serving, write_result
from test_access_browser import look_over

SLICES = 3


@dataclass(frozen=True, kw_only=True)
class Linked:
    """A node that is served, and slices of one series."""

    node: RunningNode
    url: str
    files: Sequence[Path]
    folder: Path

    def of(self, patient: str, name: str = "", **changes: object) -> list[Path]:
        """The series as another's, in objects of their own."""
        place = self.folder / (name or patient or "nobody")
        place.mkdir()
        for number, file in enumerate(self.files):
            dataset = dcmread(file)
            dataset.PatientID = dataset.PatientName = patient
            for keyword, value in changes.items():
                setattr(dataset, keyword, value)
            dataset.SOPInstanceUID = UID(f"2.25.{int.from_bytes(place.name.encode())}.{number}")
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.save_as(place / file.name)
        return sorted(place.iterdir())

    def came(self, files: Sequence[Path], whose: str = "", state: str = "queued", *, is_run: bool = True) -> int:
        """They came, and were run; gives the job's id, or the arrival's."""
        arrival = hold(self.node, files, state=state)
        with self.node.engine.begin() as connection:
            connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == arrival).values(whose_sha256=whose))
        return self.run_on(arrival, files) if is_run else arrival

    def run_on(self, arrival: int, files: Sequence[Path]) -> int:
        job = add_job(self.node, arrival, source=f"incoming/{arrival}")
        write_result(self.node, job, files[0], SegmentationStorage)
        (self.node.folder / "runs" / str(job) / "manifest.json").write_text("{}")
        return job

    def lose(self, job: int, *, with_results: bool = False) -> None:
        """Its instances are removed, and what it made."""
        with self.node.engine.begin() as connection:
            arrival = connection.execute(JOB.select().where(JOB.c.id == job)).one().arrival_id
            connection.execute(delete(INSTANCE).where(INSTANCE.c.arrival_id == arrival))
            connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == arrival).values(state="removed"))
        shutil.rmtree(self.node.folder / "incoming" / str(arrival))
        if with_results:
            shutil.rmtree(self.node.folder / "runs" / str(job))

    def links(self, query: str = "") -> Iterator[httpx.Response]:
        header = dcmread(self.files[0])
        for path in (f"/series/{header.SeriesInstanceUID}", f"/studies/{header.StudyInstanceUID}"):
            yield httpx.get(f"{self.url}{path}{query}")

    def check_leads_to(self, job: int) -> None:
        for answer in self.links("?at=lesion-2"):
            assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job}/view/?at=lesion-2")

    def check_choice(self, *addresses: str) -> str:
        """Each link shows these addresses to choose from; gives the last page's text."""
        text = ""
        for answer in self.links("?at=lesion-2"):
            assert (answer.status_code, "Several patients under one UID" in answer.text) == (200, True)
            assert tuple(re.findall(r'<th scope="row"><a href="([^"]+)"', answer.text)) == addresses
            text = answer.text
        assert not {"FIRST", "OTHER"} & set(re.findall(r"\w+", text)), "no page names a patient"
        return text


@pytest.fixture
def linked(tmp_path: Path) -> Iterator[Linked]:
    volume = chest_phantom(shape=(SLICES, 32, 32), lesions=0, seed=5).volume
    how = SeriesSettings(patient_id="FIRST", shuffled=False)
    files = list(write_ct_series(volume, tmp_path / "ct", settings=how))
    node = opened(tmp_path)
    with serving(node) as url:
        yield Linked(node=node, url=url, files=files, folder=tmp_path)
    node.engine.dispose()


def _view(job: int) -> str:
    return f"/jobs/{job}/view/?at=lesion-2"


def _lose_both(linked: Linked, first: int, other: int) -> None:
    linked.lose(first)
    linked.lose(other)


LATER: Mapping[str, Callable[[Linked, int, int], None]] = {
    "all is there": lambda linked, first, other: None,
    "the first one's instances were removed": lambda linked, first, other: linked.lose(first),
    "the other's were": lambda linked, first, other: linked.lose(other),
    "both were": _lose_both,
}


@pytest.mark.parametrize("whose", [("a", "b"), ("", "")])
@pytest.mark.parametrize("later", LATER)
def test_of_several_patients_each_ones_are_to_be_chosen(linked: Linked, later: str, whose: tuple[str, str]) -> None:
    first = linked.came(linked.files, whose[0])
    linked.check_leads_to(first)
    other = linked.came(linked.of("OTHER"), whose[1])
    LATER[later](linked, first, other)
    linked.check_choice(_view(first), _view(other))


def test_what_is_gone_altogether_is_told_apart_by_its_arrival(linked: Linked) -> None:
    first = linked.came(linked.files, "a")
    other = linked.came(linked.of("OTHER"), "b")
    linked.lose(first, with_results=True)
    linked.check_choice(f"/jobs/{first}", _view(other))


def test_of_each_patient_the_latest_results_are_named(linked: Linked) -> None:
    linked.came(linked.files)
    linked.came(linked.of("OTHER"))
    first = linked.came(linked.of("FIRST"))
    other = linked.came(linked.of("OTHER", "again"))
    linked.check_choice(_view(first), _view(other))


@pytest.mark.parametrize("state", ["quarantined", "apart", "arriving"])
def test_what_of_another_patient_was_not_run_is_told(linked: Linked, state: str) -> None:
    other = linked.came(linked.of("OTHER"))
    linked.check_leads_to(other)
    waiting = linked.came(linked.files, state=state, is_run=False)
    text = linked.check_choice(_view(other))
    assert f"arrival {waiting}, {SLICES} instances from SCANNER" in text
    assert f'<td data-name="State">{state}</td>' in text


def test_what_came_together_of_several_and_was_not_run_is_told_once_for_each(linked: Linked) -> None:
    other = linked.came(linked.of("OTHER"))
    mixed = [*linked.files, *linked.of("OTHER", "more"), *linked.of("")]
    waiting = linked.came(mixed, state="quarantined", is_run=False)
    assert linked.check_choice(_view(other)).count(f"arrival {waiting}, ") == 1, "the first one's"


@pytest.mark.parametrize("how", ["grown", "nobody's", "anonymiser's", "instances removed", "run again", "all gone"])
def test_one_patients_lead_to_the_latest_results(linked: Linked, how: str) -> None:
    nameless = {"PatientID": "", "PatientName": ""}
    first = linked.came(linked.of("", "removed", **nameless) if how == "nobody's" else linked.files, "a")
    if how == "anonymiser's":
        mixed = [dcmread(file) for file in linked.of("x")]
        for number, dataset in enumerate(mixed):
            dataset.PatientID = f"x{number}"
            dataset.save_as(linked.folder / "x" / f"{number}.dcm")
        files = [linked.folder / "x" / f"{number}.dcm" for number in range(SLICES)]
        last = linked.came(files)
    elif how == "run again":
        last = linked.run_on(1, linked.files)
    else:
        last = linked.came(linked.of("FIRST"), "a")
    if how in {"instances removed", "all gone"}:
        linked.lose(first, with_results=how == "all gone")
    linked.check_leads_to(last)


def test_what_of_another_project_is_not_seen_is_not_told_of(linked: Linked) -> None:
    hidden, own = linked.came(linked.files), linked.came(linked.of("OTHER"))
    with linked.node.engine.begin() as connection:
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == 1).values(project="secret"))
        connection.execute(update(JOB).where(JOB.c.id == hidden).values(project="secret"))
    series = str(dcmread(linked.files[0]).SeriesInstanceUID)
    for projects, expected in (({DEFAULT_PROJECT}, [own]), ({DEFAULT_PROJECT, "secret"}, [hidden, own])):
        with seeing(linked.node.engine, frozenset(projects)).connect() as connection:
            found = patients_under(linked.node, connection, series=series)
        assert [one.job and one.job.id for one in found] == expected


@pytest.mark.parametrize(("scheme", "width"), [("dark", 390), ("light", 1280)])
def test_the_choice_is_to_be_read_by_everybody(
    linked: Linked, browser: Browser, scheme: Literal["dark", "light"], width: int
) -> None:
    linked.came(linked.files, "a")
    linked.came(linked.of("OTHER"), "b")
    linked.came(linked.of("THIRD"), "c", "quarantined", is_run=False)
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 700})
    page.goto(f"{linked.url}/series/{dcmread(linked.files[0]).SeriesInstanceUID}")
    expect(page.locator("tbody tr")).to_have_count(3)
    look_over(page, width)
    page.close()
