"""A node's folder that goes away while the node runs, an empty one in its place: nothing is taken, judged or failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select, update

from carina.config import Settings
from carina.database import ARRIVAL, JOB, FolderAway, open_database
from carina.jobs.execute import execute
from carina.jobs.places import open_node
from carina.jobs.queue import Attempt
from carina.jobs.worker import Worker
from carina.receive import store as store_module
from carina.receive.complete import complete_arrivals
from carina.receive.instance import NotAccepted
from carina.receive.store import InstanceStore
from test_node_folder_away import node, put_away, take_in

__all__ = ["node"]


def bring_back(settings: Settings, real: Path) -> None:
    folder = Path(settings.node.folder)
    if folder.exists():
        folder.rename(folder.with_name("instead"))
    real.rename(folder)


@pytest.mark.parametrize("instead", ["empty", "absent"])
def test_nothing_is_accepted_or_claimed_while_it_is_away(node: Settings, tmp_path: Path, instead: str) -> None:
    engine = open_node(node)
    store, worker = InstanceStore(node, engine), Worker(node, engine)
    real = put_away(node, instead)
    with pytest.raises(NotAccepted, match=r"the node's folder is not there|can't be written"):
        take_in(node, engine, tmp_path, store)
    assert worker.turn() is False
    assert not Path(node.node.folder).exists() or not list(Path(node.node.folder).glob("incoming/*/*"))
    with engine.connect() as connection:
        assert connection.execute(select(JOB.c.state, JOB.c.attempt)).all() == [("pending", 0)]
    bring_back(node, real)
    take_in(node, engine, tmp_path, store)
    engine.dispose()


def test_what_was_placed_as_it_went_is_not_answered(
    node: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_node(node)
    store, real = InstanceStore(node, engine), list[Path]()
    settle: Callable[..., None] = InstanceStore._settle

    def go_then(*given: object) -> None:
        settle(*given)
        real.append(put_away(node, "empty"))

    for file in Path(node.node.folder).glob("incoming/1/*.dcm"):
        file.unlink()  # so that the same is taken anew
    with monkeypatch.context() as patched:
        patched.setattr(store_module.InstanceStore, "_settle", go_then)
        with pytest.raises(NotAccepted, match="the node's folder is not there"):
            take_in(node, engine, tmp_path, store)
    bring_back(node, real[0])
    take_in(node, engine, tmp_path, store)
    engine.dispose()


def test_a_job_that_ran_as_it_went_is_tried_again_without_end(node: Settings) -> None:
    engine = open_node(node)
    with engine.begin() as connection:
        connection.execute(
            update(JOB).values(state="running", attempt=1, arrival_id=select(ARRIVAL.c.id).scalar_subquery())
        )
    put_away(node, "empty")
    elsewhere = open_database(node.node.database)
    with pytest.raises(FolderAway, match="the node's folder is not there"):
        execute(node, elsewhere, Attempt(1, 1))
    with elsewhere.connect() as connection:
        assert connection.execute(select(JOB.c.state, JOB.c.error_code)).one() == ("running", "")
    elsewhere.dispose()
    engine.dispose()


def test_a_series_is_not_judged_as_it_goes(node: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, real = open_node(node), list[Path]()

    def gone(*_: object) -> None:
        real.append(put_away(node, "empty"))

    monkeypatch.setattr("carina.receive.complete.check_intact", gone)
    monkeypatch.setattr("carina.receive.complete._link_others", lambda *_: set())
    settings = node
    with engine.begin() as connection:
        connection.execute(update(ARRIVAL).values(expected=2))
    monkeypatch.setattr("carina.receive.complete._due", due_of(engine))
    with pytest.raises(FolderAway, match="the node's folder is not there"):
        complete_arrivals(settings, engine)
    with engine.connect() as connection:
        assert connection.execute(select(ARRIVAL.c.state)).scalar_one() == "arriving"
    engine.dispose()


def due_of(engine: object) -> Callable[..., list[tuple[object, object]]]:
    """The node's only arrival, as due, of a source that is in the settings."""

    def due(*_: object) -> list[tuple[object, object]]:
        with engine.connect() as connection:  # type: ignore[attr-defined]
            return [(connection.execute(select(ARRIVAL)).one(), object())]

    return due
