"""A backup names what of a finished correction the node itself has lost, whether it was ever sent or not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sqlalchemy import insert

from carina.api.result import Run
from carina.corrections.finish import Draft, finish
from carina.corrections.masks import MaskName, network_mask
from carina.corrections.standing import Decision
from carina.database import JOB, open_database, upgrade_schema
from carina.jobs.reading import Decided
from carina.keeping.results import lost_results, results_named
from viewer_runs import posed, write_run

NOW = datetime(2026, 3, 4, 20, 15, 2, tzinfo=UTC)
PLACE = "runs/1/corrections/lesion-1"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two finished corrections of its lesion mask."""
    folder = tmp_path_factory.mktemp("corrected")
    write_run(posed("plain", (24, 48, 48)), folder / "runs/1")
    run = Run(folder / "runs/1")
    labels = network_mask(run, MaskName.LESION).labels.copy()
    for number in (1, 2):
        labels.reshape(-1)[np.flatnonzero(labels)[:5]] = 0
        finish(run, Draft(layer=MaskName.LESION, labels=labels.copy(), revision=number, reader="Roe", at=NOW), None)
    return folder


def alter_mask(folder: Path) -> None:
    """Another mask in its place, as whole as it."""
    shutil.rmtree(folder / PLACE / "mask")
    shutil.copytree(folder / "runs/1/corrections/lesion-2/mask", folder / PLACE / "mask")


def lose_all(folder: Path) -> None:
    shutil.rmtree(folder / "runs/1/corrections")


HARM: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "nothing": (lambda _: None, []),
    "its mask is lost": (lambda folder: shutil.rmtree(folder / PLACE / "mask"), [f"{PLACE}/mask"]),
    "its mask is another": (alter_mask, [f"{PLACE}/mask"]),
    "its facts are lost": (lambda folder: (folder / PLACE / "correction.json").unlink(), [f"{PLACE}/correction.json"]),
    "it is lost": (lambda folder: shutil.rmtree(folder / PLACE), [PLACE]),
    "all are lost": (lose_all, [PLACE, "runs/1/corrections/lesion-2"]),
}


@pytest.mark.parametrize("harm", HARM)
def test_what_is_lost_of_a_correction_is_named(made: Path, tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "node"
    shutil.copytree(made, folder)
    decided = [Decided(layer="lesion", decision=Decision.CORRECTED, correction=2, reader="Roe", at=NOW)]
    engine = open_database(f"sqlite:///{tmp_path}/node.sqlite")
    upgrade_schema(engine)
    with engine.begin() as connection:
        row = {"id": 1, "source": "x", "pipeline": "default", "folder": "runs/1", "ended": "healthy"}
        row |= {"state": "stopped", "priority": 1, "memory_mb": 1, "cores": 1, "created_at": NOW, "stopped_at": NOW}
        connection.execute(insert(JOB).values(**row, decisions=msgspec.json.encode(decided).decode()))
        named = results_named(connection)
    engine.dispose()
    do, lost = HARM[harm]
    do(folder)
    assert [one for one in lost_results(folder, named) if "/corrections/" in one] == lost
