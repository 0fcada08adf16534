"""A step that sends, in a job: the node sends, and the run warns of what goes nowhere and of nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import Connection, select

from carina.api.result import Run
from carina.api.study import RunSettings, run
from carina.config import FolderDestination, Settings
from carina.database import DELIVERY, database_now
from carina.deliver.onward import Onward
from carina.jobs import execute as execute_module
from carina.jobs.execute import execute
from carina.jobs.intake import take_up
from carina.jobs.queue import Room, claim
from carina.service.changes import release_arrival
from carina.service.node import RunningNode
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from foreign_definitions import definition, foreign, python, trusting
from served_nodes import add_job, hold, opened

NAMES = ("share", "back", "sender", "other", "lost")
"""What the steps name: two destinations of the source, who sent the series, one of the settings, and nobody."""

SETTINGS = """
[deidentify]
key = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
pipelines = ["{pipeline}"]
destinations = {destinations}
[destinations.share]
kind = "folder"
path = "share"
[destinations.other]
kind = "folder"
path = "other"
[destinations.back]
kind = "dicom"
host = "127.0.0.1"
port = 104
ae_title = "SCANNER"
"""

STEP = """
- name: send-{name}
  container: {{image: carina/register-results, command: [r, --agent, ClaraSCU, --data, '["{name}"]']}}
  input: [{{from: deidentify, name: dicom, path: /input}}]
"""

ROOM = Room(100_000, 4)


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put into a node has no digests of what came."""
    monkeypatch.setattr(execute_module, "check_intact", lambda *_: None)


def node_of(folder: Path, destinations: list[str]) -> RunningNode:
    """A node whose source runs a pipeline that takes the patient out and has a step for each of the names."""
    file = folder / "sends.yaml"
    first = "- name: deidentify\n  container: {image: carina/deidentify}\n  input: [{path: /input}]\n"
    outputs = "  output: [{path: /output, name: series}, {path: /dicom, name: dicom}]\n"
    steps = first + outputs + "".join(STEP.format(name=name) for name in NAMES)
    file.write_text(f"api-version: 0.4.0\nname: sends\noperators:\n{steps}")
    return opened(folder, SETTINGS.format(pipeline=file, destinations=json.dumps(destinations)))


def received(node: RunningNode, folder: Path, state: str) -> int:
    """A series in a node, as it was received; gives the arrival's id."""
    phantom = chest_phantom(shape=(12, 96, 96), spacing_mm=(3.0, 1.5, 1.5), lesions=0)
    return hold(node, write_ct_series(phantom.volume, folder / "ct"), state=state)


def warned_and_sent(node: RunningNode) -> tuple[dict[str, str], set[str]]:
    """What the steps of the node's one job warned of, by the name that each has, and to where its objects go."""
    with node.engine.begin() as connection:
        now = database_now(connection)
        take_up(connection, node.settings, now)
        claimed = claim(connection, "worker", ROOM, ROOM, now)
    assert claimed is not None and execute(node.settings, node.engine, claimed[0])
    run = Run(node.folder / "runs" / str(claimed[0].job_id))
    records = {name: run.manifest.operators[f"send-{name}"] for name in NAMES}
    assert all(len(one.warnings) <= 1 for one in records.values())
    assert all((run.folder / name).is_dir() == bool(one.warnings) for name, one in records.items())
    with node.engine.connect() as connection:
        return {name: one.warnings[0] for name, one in records.items() if one.warnings}, _goes_to(connection)


def _goes_to(connection: Connection) -> set[str]:
    return set(connection.execute(select(DELIVERY.c.destination).distinct()).scalars())


@pytest.mark.parametrize(
    ("named", "sent", "state"),
    [
        (["share"], {"share"}, "complete"),
        (["sender"], {"back", "sender"}, "quarantined"),
        (["share", "sender"], {"share", "back", "sender"}, "apart"),
    ],
)
def test_of_what_the_node_sends_no_step_warns_and_of_all_else_it_says_where_to_name_it(
    tmp_path: Path, named: list[str], sent: set[str], state: str
) -> None:
    node = node_of(tmp_path, named)
    arrival = received(node, tmp_path, state)
    if state != "complete":
        release_arrival(node, arrival, "")
    warned, goes_to = warned_and_sent(node)
    assert goes_to == sent - {"sender"}
    assert set(warned) == set(NAMES) - sent
    for name, words in warned.items():
        assert words.startswith(f"nothing is sent to {name} by this step: the node itself sends a run's objects")
        assert f"They are in the folder {name} of the run. Add it to sources.scanner.destinations" in words


@pytest.mark.parametrize(
    ("values", "goes", "words"),
    [
        ({"destinations": '["other"]'}, {"other"}, "Name it where the run is asked for (carina submit --to)"),
        ({"is_prior": 1, "received_by": "scanner"}, set(), "fetched to compare with, of which nothing is sent."),
    ],
    ids=["asked for", "earlier scan"],
)
def test_of_what_no_source_sends_it_is_said_who_would(
    tmp_path: Path, values: dict[str, Any], goes: set[str], words: str
) -> None:
    node = node_of(tmp_path, ["share", "sender"])
    arrival = received(node, tmp_path, "queued")
    values = {"state": "pending", "ended": "", "stopped_at": None, **values}
    add_job(node, source=f"incoming/{arrival}", pipeline=str(tmp_path / "sends.yaml"), **values)
    warned, goes_to = warned_and_sent(node)
    assert goes_to == goes and set(warned) == set(NAMES) - goes
    assert all(words in one for one in warned.values())


WRITES = """
import pathlib, shutil, sys
names = {names}
for number, file in enumerate(sorted(pathlib.Path(sys.argv[1]).rglob("*.dcm"))[:2]):
    place = pathlib.Path(sys.argv[2], str(number))
    place.mkdir()
    shutil.copyfile(file, place / names[number])
    (place / "README").write_text("no object")
"""

READ_BY = """
- name: send-share
  container: {image: carina/register-results, command: [r, --agent, ClaraSCU, --data, '["share"]']}
  input: [{from: theirs, path: /input}]
"""


@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize("is_node", [True, False])
@pytest.mark.parametrize("names", [("made.dcm", "made.dcm"), ("MADE.DCM", "made"), ("1.2.3", "1.2.4")])
def test_objects_that_a_program_leaves_are_sent_where_a_step_sends_them_and_else_said(
    tmp_path: Path, names: tuple[str, str], *, is_read: bool, is_node: bool
) -> None:
    phantom = chest_phantom(shape=(12, 96, 96), spacing_mm=(3.0, 1.5, 1.5), lesions=0)
    write_ct_series(phantom.volume, tmp_path / "ct")
    theirs = foreign("theirs", python(WRITES.format(names=names), "/input", "/output"), "[{path: /input}]")
    file = definition(tmp_path / "theirs.yaml", theirs, READ_BY if is_read else "")
    share = FolderDestination(path=str(tmp_path / "share"))
    settings = Settings(operators=trusting(file), destinations={"share": share})
    onward = Onward(destinations=("share",), remedy="Do.") if is_node else None
    made = run(tmp_path / "ct", tmp_path / "run", RunSettings(settings=settings, pipeline=file, onward=onward))
    check_registered(made, 2 if is_read and is_node else 0)
    assert len([*(tmp_path / "share").glob("*")]) == (2 if is_read and not is_node else 0)
    said = [one for one in made.warnings if "a node lists and sends what lies in dicom/ of the run alone" in one]
    assert all(one.startswith("2 DICOM object(s) of /output lie in steps/theirs/output, and") for one in said)
    assert bool(said) != is_read


def check_registered(made: Run, count: int) -> None:
    """So many objects are among those that are sent, and the manifest has each of them."""
    assert len({dcmread(one).SOPInstanceUID for one in made.dicom}) == len(made.dicom) == count
    if count:
        listed = made.manifest.operators["send-share"].facts["files"]
        assert sorted(listed) == [one.relative_to(made.folder).as_posix() for one in made.dicom]
