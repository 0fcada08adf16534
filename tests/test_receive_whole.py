"""What is released is judged with all that lies in its folder, as when it settled: others may be known since."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, update

from carina.database import ARRIVAL, database_now
from carina.receive.complete import complete_arrivals
from test_receive_apart import Node, arrivals, bring, changed, files, jobs, node, read_by, settle
from test_receive_mixed import of_another
from test_receive_named import end_jobs, nameless_of, remove
from test_receive_parting import DAMAGED, kept, released, uids

__all__ = ["files", "node"]


def come(node: Node, files: Sequence[Path], source: str = "scanner") -> None:
    bring(node, files, source)
    settle(node)


def read_in(node: Node) -> list[set[str]]:
    """The instances that each job reads."""
    return [{name.removesuffix(".dcm") for name in read_by(node, job)} for job in jobs(node)]


def check_each_is_run_or_waits(node: Node, nobodys: set[str]) -> None:
    """No run has what is nobody's with what is somebody's, and nothing is in no run that doesn't wait."""
    where, rows = kept(node), {row.id: row for row in arrivals(node)}
    read = read_in(node)
    assert not [one for one in read if one & nobodys and one - nobodys]
    assert [row.state for row in rows.values() if row.state in ("arriving", "complete")] == []
    waiting = {uid for uid, number in where.items() if rows[number].state in ("quarantined", "apart")}
    assert set(where) - set().union(*read) <= waiting
    check_held([rows[where[uid]] for uid in nobodys], nobodys)


def check_held(held: Sequence[Row[Any]], nobodys: set[str]) -> None:
    """What is nobody's waits, and is named."""
    assert all(row.state == "quarantined" for row in held)
    assert all(row.reason.startswith("instances without a patient came where") for row in held)
    assert all(uid in row.reason for uid, row in zip(nobodys, held, strict=True))


def wait_by_a_rule(node: Node, files: Sequence[Path]) -> None:
    """Have what comes wait for a reason that has nothing to do with patients."""
    bring(node, files)
    is_last = ARRIVAL.c.id == arrivals(node)[-1].id
    with node.engine.begin() as connection:
        long_ago = database_now(connection) - timedelta(hours=1)
        connection.execute(update(ARRIVAL).where(is_last).values(last_at=long_ago))
    complete_arrivals(node.settings, node.engine)
    with node.engine.begin() as connection:
        waiting = {"state": "quarantined", "reason": "a rule"}
        connection.execute(update(ARRIVAL).where(is_last, ARRIVAL.c.state == "complete").values(**waiting))
    assert (arrivals(node)[-1].state, "patient" in arrivals(node)[-1].reason) == ("quarantined", False)


KNOWN: Mapping[str, Callable[[Node, Sequence[Path]], object]] = {
    "apart": come,
    "another source's": lambda node, others: come(node, others, "pacs"),
}
"""How another patient becomes known."""


@pytest.mark.parametrize(("first", "gone"), [("run", False), ("run", True), ("waits", False)])
@pytest.mark.parametrize("known", KNOWN)
def test_a_nameless_one_that_waited_is_released_without_what_is_somebodys(
    node: Node, files: Sequence[Path], tmp_path: Path, first: str, known: str, *, gone: bool
) -> None:
    """It lay with the first patient's, who was the only one known when it came."""
    if first == "run":
        come(node, files)
        end_jobs(node)
    else:
        wait_by_a_rule(node, files)
    nameless = nameless_of(files, tmp_path)
    wait_by_a_rule(node, nameless)
    if gone:
        remove(node, [1])
    KNOWN[known](node, of_another(files, tmp_path / "other", "all"))
    after = released(node, 2)
    assert (after.state, len(after.parts)) == ("joined", 1)
    settle(node)
    check_each_is_run_or_waits(node, uids(nameless))
    released(node, after.parts[0])
    assert uids(nameless) in read_in(node), "it is run by itself"


@pytest.mark.parametrize(("first", "gone"), [("run", False), ("run", True), ("waits", False)])
@pytest.mark.parametrize("source", ["", "pacs"])
@pytest.mark.parametrize("known", KNOWN)
def test_what_waited_with_a_nameless_one_is_released_without_it(
    node: Node, files: Sequence[Path], tmp_path: Path, first: str, source: str, known: str, *, gone: bool
) -> None:
    """Of the same patient's that came before, all is in the run."""
    nameless = nameless_of(files, tmp_path)
    if first == "run":
        come(node, [*files[:6], *nameless])
        end_jobs(node)
    else:
        wait_by_a_rule(node, files[:6])
        wait_by_a_rule(node, nameless)
    wait_by_a_rule(node, files[6:])
    waiting = arrivals(node)[-1].id
    if gone:
        remove(node, [1])
    KNOWN[known](node, of_another(files, tmp_path / "other", "all"))
    after = released(node, waiting, source)
    assert (after.state, len(after.parts)) == ("joined", 1)
    assert read_in(node)[-1] == uids(files)
    settle(node)
    check_each_is_run_or_waits(node, set() if first == "run" else uids(nameless))


def test_what_had_joined_what_waited_and_is_left_by_what_comes_later_waits_again(
    node: Node, files: Sequence[Path], tmp_path: Path
) -> None:
    nameless = nameless_of(files, tmp_path)
    wait_by_a_rule(node, nameless)
    wait_by_a_rule(node, files[:6])
    come(node, of_another(files, tmp_path / "other", "all"))
    come(node, files[6:])
    assert read_in(node) == [uids(files)]
    settle(node)
    check_each_is_run_or_waits(node, uids(nameless))


@pytest.mark.parametrize("known", [True, False])
def test_what_is_released_with_all_of_one_patient_is_run_as_it_lies(
    node: Node, files: Sequence[Path], tmp_path: Path, *, known: bool
) -> None:
    nameless = [] if known else nameless_of(files, tmp_path)
    wait_by_a_rule(node, [*files[:6], *nameless])
    wait_by_a_rule(node, files[6:])
    if known:
        come(node, of_another(files, tmp_path / "other", "all"))
    assert released(node, 2).parts == ()
    assert read_in(node) == [uids([*files, *nameless])]


@pytest.mark.parametrize("how", DAMAGED)
@pytest.mark.parametrize("with_others", [True, False])
def test_what_the_disk_has_lost_by_the_time_it_settles_is_not_said_to_name_no_patient(
    node: Node, files: Sequence[Path], tmp_path: Path, how: str, *, with_others: bool
) -> None:
    nameless, others = nameless_of(files, tmp_path), of_another(files, tmp_path / "other", "all")
    come(node, others, "pacs")
    bring(node, [*files, *nameless, *(changed(others, tmp_path / "more", is_renamed=True) if with_others else [])])
    [lost], [name] = uids(files[-1:]), uids(nameless)
    DAMAGED[how](node.store.folder / f"incoming/2/{lost}.dcm")
    settle(node)
    reason = arrivals(node)[-1].reason
    if with_others:
        assert f"; 1 without a patient: {name}; 1 damaged or missing on the node's disk: {lost})" in reason
    else:
        assert reason.startswith("instances that were accepted are damaged or missing on the node's disk, and several")
        assert f"It is {lost}. instances without a patient came where" in reason and reason.endswith(f"It is {name}.")
