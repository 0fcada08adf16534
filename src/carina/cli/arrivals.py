"""``carina arrivals``: the series that came in, and those that wait until somebody releases them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina.cli.node import CONFIG, acting_by_command, looked, node_settings
from carina.cli.numbers import BEFORE, NODE_NUMBER
from carina.cli.terminal import say, say_json, say_table
from carina.errors import BadConfig

if TYPE_CHECKING:
    from carina.service.arrivals import Arrival

ARRIVAL_STATES = ("arriving", "complete", "queued", "joined", "quarantined", "apart", "kept", "removed")
COLUMNS = ("id", "state", "source", "from", "first", "instances")


@click.group()
def arrivals() -> None:
    """List the series that came in, and release those that wait. For research use only. Not for diagnosis."""


@arrivals.command("list")
@click.option(
    "--state", "states", type=click.Choice(ARRIVAL_STATES), multiple=True, help="Only arrivals in this state."
)
@BEFORE
@click.option("--count", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Arrivals at most.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@CONFIG
def list_(states: tuple[str, ...], before: int | None, count: int, as_json: bool, config: Path | None) -> None:
    """List what came in, the latest first; what is quarantined or apart waits for a release.

    Of a series that has its jobs, the state is theirs; what is joined is run as part of another arrival.
    """
    import msgspec

    from carina.database import read_only
    from carina.jobs.places import open_existing_node
    from carina.service.arrivals import job_states, list_arrivals

    engine = open_existing_node(node_settings(config))
    looked(engine, "arrivals")
    with read_only(engine) as connection:
        found = list_arrivals(connection, states=states, before=before, at_most=count)
        states_of = job_states(connection, [one.id for one in found])
    if as_json:
        say_json([msgspec.to_builtins(one) | {"jobs": states_of.get(one.id, ())} for one in found])
    else:
        notes = [[f"series {one.series_uid}", *filter(None, [one.reason])] for one in found]
        say_table(COLUMNS, [_row(one, states_of.get(one.id, ())) for one in found], notes)


def _row(one: Arrival, states_of_jobs: tuple[str, ...]) -> tuple[str, ...]:
    state = ", ".join(states_of_jobs) if one.state == "queued" and states_of_jobs else one.state
    first = f"{one.first_at.astimezone():%Y-%m-%d %H:%M}"
    count = f"{one.instances}" if one.expected is None else f"{one.instances} of {one.expected}"
    return str(one.id), state, one.source, one.sender, first, count


@arrivals.command()
@click.argument("arrival_id", type=NODE_NUMBER, metavar="ID")
@click.option("--source", default="", metavar="NAME", help="Run it as what came by this source; default: its own.")
@CONFIG
def release(arrival_id: int, source: str, config: Path | None) -> None:
    """Let a series that is quarantined, apart or kept be run after all, whatever the series rules say."""
    from carina.jobs.places import open_existing_node
    from carina.service.changes import release_arrival
    from carina.service.node import RunningNode
    from carina.service.problems import Conflict, NotThere

    settings = node_settings(config)
    node = RunningNode(settings=settings, engine=open_existing_node(settings))
    acting_by_command()
    try:
        after = release_arrival(node, arrival_id, source)
    except (NotThere, Conflict) as error:
        raise BadConfig(error.code, error.message) from error
    what = "what is of one patient" if after.parts else "it"
    say(f"arrival {after.id}: {after.told}; {what} is run once `carina serve` takes it up")
    if after.warning:
        say(f"warning: {after.warning}", err=True)
