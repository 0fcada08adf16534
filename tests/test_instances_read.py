"""A job counts all instances that its run reads, in however many arrivals they came, wherever it is looked at."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from carina.cli.jobs import jobs as jobs_command
from carina.pipeline.manifest import DefinitionRecord, Manifest
from carina.service.access.caller import Caller
from carina.service.access.roles import Role
from carina.service.node import RunningNode
from carina.service.pages.routes import job_values
from carina.service.pages.worklist import WorklistAsked, worklist
from carina.service.progress import progress_of
from test_receive_apart import SLICES, Node, arrivals, bring, changed, files, jobs, let_go, node, read_by, settle

__all__ = ["files", "node"]

ANNE = Caller(name="anne", role=Role.OPERATOR)
GAP = slice(4, 8)
"""Slices without which the others wait in quarantine."""


class Story:
    """What is done with the files of a series, with a folder for those that are changed."""

    def __init__(self, node: Node, files: Sequence[Path], folder: Path) -> None:
        self.node, self.files, self.folder = node, files, folder

    def came(self, *pieces: slice, source: str = "scanner") -> None:
        """These of its slices come, and no more for a while."""
        bring(self.node, [file for piece in pieces for file in self.files[piece]], source)
        settle(self.node)

    def came_changed(self, piece: slice, *, is_renamed: bool = False, **changes: object) -> None:
        bring(self.node, changed(self.files[piece], self.folder / "changed", is_renamed=is_renamed, **changes))
        settle(self.node)

    def released(self, source: str = "") -> None:
        """The latest arrival is let out by hand."""
        let_go(self.node, arrivals(self.node)[-1].id, source)


ALL, MOST, LAST = slice(None), slice(0, 10), slice(10, None)
ENDS = (slice(0, GAP.start), slice(GAP.stop, None))


def quarantined_first(it: Story) -> None:
    it.came(*ENDS)
    it.came(ALL)


def quarantined_twice(it: Story) -> None:
    it.came(slice(0, 2), slice(10, None))
    it.came(slice(2, 4), slice(8, 10))
    it.came(GAP)


def superseded(it: Story) -> None:
    it.came(MOST)
    it.came(LAST)


def repeated(it: Story) -> None:
    it.came(MOST)
    it.came(MOST)
    it.came(ALL)
    it.came(ALL)


def quarantined_and_released(it: Story) -> None:
    it.came(*ENDS)
    it.released()
    it.came(GAP)


def pieces_released(it: Story) -> None:
    it.came(slice(0, 2), slice(10, None))
    it.came(slice(2, 4), slice(8, 10))
    it.released()


def another_content(it: Story) -> None:
    it.came(ALL)
    it.came_changed(slice(0, 5), SeriesDescription="corrected")
    it.released()


def another_patient(it: Story) -> None:
    it.came(ALL)
    it.came_changed(slice(0, 6), is_renamed=True, PatientID="another")
    it.released()


def by_two_sources(it: Story) -> None:
    it.came(MOST)
    it.came(ALL, source="pacs")


def released_as_another_source(it: Story) -> None:
    """What the other source brought of the series lies in another arrival's folder, and is no part of this run."""
    it.came(ALL)
    it.came(*ENDS, source="pacs")
    it.released("scanner")


def pieces_released_as_another_source(it: Story) -> None:
    """What came before by the source that it came by is part of the run, though that is of another source now."""
    it.came(slice(0, 2), slice(10, None), source="pacs")
    it.came(slice(2, 4), slice(8, 10), source="pacs")
    it.released("scanner")


KINDS: Mapping[Callable[[Story], None], list[int]] = {
    quarantined_first: [12],
    quarantined_twice: [12],
    superseded: [10, 12],
    repeated: [10, 12],
    quarantined_and_released: [8, 12],
    pieces_released: [8],
    another_content: [12, 5],
    another_patient: [12, 6],
    by_two_sources: [10, 12],
    released_as_another_source: [12, 8],
    pieces_released_as_another_source: [8],
}
"""How a series comes, and what the runs of its jobs read, the first job first."""


@pytest.mark.parametrize("story", KINDS, ids=lambda it: it.__name__)
def test_a_job_counts_what_its_run_reads(
    story: Callable[[Story], None], node: Node, files: Sequence[Path], tmp_path: Path, node_database: str
) -> None:
    assert len(files) == SLICES
    story(Story(node, files, tmp_path))
    made = jobs(node)
    assert [len(read_by(node, job)) for job in made] == KINDS[story]
    served = RunningNode(settings=node.settings, engine=node.engine)
    rows = worklist(served, WorklistAsked())["rows"]
    counted = {row.job.id: _counted(row.cells(is_project_named=False)) for row in rows}
    assert [counted[job.id] for job in made] == KINDS[story]
    assert [_counted(job_values(served, job.id, ANNE)["came_by"]) for job in made] == KINDS[story]
    assert [progress_of(served, job.id).instances for job in made] == KINDS[story]
    if not node_database.startswith("sqlite"):
        return  # a command's connections to a server end with its process, and the server waits for them
    config = tmp_path / "carina.toml"
    config.write_text(f'[node]\nfolder = "{node.store.folder}"\ndatabase = "{node_database}"\n')
    assert [_shown(config, job.id) for job in made] == KINDS[story]


@pytest.mark.parametrize("node_database", ["sqlite"], indirect=True)
def test_a_run_that_read_fewer_and_a_job_in_its_place_are_said(
    node: Node, files: Sequence[Path], tmp_path: Path
) -> None:
    story = Story(node, files, tmp_path)
    story.came(MOST)
    story.came(LAST)
    first, second = jobs(node)
    definition = DefinitionRecord(name="", file="", sha256="")
    manifest = Manifest(fingerprint="", started="", definition=definition, inputs={"files": {"used": 11}})
    run = node.store.folder / second.folder
    run.mkdir(parents=True)
    (run / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    served = RunningNode(settings=node.settings, engine=node.engine)
    assert "12 instances from CT1@127.0.0.1, of which 11 were read" in job_values(served, second.id, ANNE)["came_by"]
    assert (progress_of(served, first.id).used, progress_of(served, second.id).used) == (None, 11)
    config = tmp_path / "carina.toml"
    config.write_text(f'[node]\nfolder = "{node.store.folder}"\ndatabase = "{node.engine.url}"\n')
    words, shown = _show(config, second.id)
    assert "instances: 12\nused: 11\n" in words and "superseded: " not in words
    assert (shown["used"], shown["superseded_by"]) == (11, None)
    words, shown = _show(config, first.id)
    assert f"superseded: job {second.id} runs on more instances of this series, and has not ended yet\n" in words
    assert (shown["used"], shown["superseded_by"]) == (None, second.id)


def _show(config: Path, job_id: int) -> tuple[str, dict[str, Any]]:
    words, shown = (
        CliRunner().invoke(jobs_command, ["show", str(job_id), *more, "--config", str(config)], catch_exceptions=False)
        for more in ((), ("--json",))
    )
    return words.output, json.loads(shown.output)


def _shown(config: Path, job_id: int) -> int:
    """What the command line says, in words as in JSON."""
    words, shown = _show(config, job_id)
    instances = int(shown["instances"])
    assert f"instances: {instances}\n" in words
    return instances


def _counted(words: str) -> int:
    found = re.search(r"(\d+) instances? from CT1@127\.0\.0\.1", words)
    assert found, words
    return int(found[1])
