"""``carina deliveries``: what became of each object on its way to each destination, and another try by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina.cli.node import CONFIG, acting_by_command, looked, node_settings
from carina.cli.numbers import BEFORE, NODE_NUMBER
from carina.cli.terminal import complain, say, say_json, say_table

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from carina.deliver.register import Delivery

STATE = click.Choice(["waiting", "sent", "confirmed", "failed"])
DESTINATION = click.option("--destination", default="", metavar="NAME", help="Only to this destination.")
OF_JOB = click.option("--job", "job_id", type=NODE_NUMBER, metavar="ID", help="Only objects of this job.")
HEADER = ("id", "job", "state", "destination", "object", "attempts", "status", "confirmed by", "what was said")


@click.group()
def deliveries() -> None:
    """Show what became of result objects, and send again. For research use only. Not for diagnosis."""


def _open(config: Path | None, destination: str = "", job_id: int | None = None) -> Engine:
    """A node's database.

    Raises:
        BadConfig: there is none, or no destination has the name, or no job the number, that is given, nor had it.
    """
    from carina.database import read_only
    from carina.jobs.places import open_existing_node
    from carina.service.filters import check_deliveries_filter

    settings = node_settings(config)
    engine = open_existing_node(settings)
    with read_only(engine) as connection:
        check_deliveries_filter(connection, settings, destination, job_id)
    return engine


@deliveries.command("list")
@DESTINATION
@OF_JOB
@click.option("--state", type=STATE, help="Only objects in this state.")
@BEFORE
@click.option("--count", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Rows at most.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@CONFIG
def list_(
    destination: str,
    job_id: int | None,
    state: str | None,
    before: int | None,
    count: int,
    as_json: bool,
    config: Path | None,
) -> None:
    """List objects and destinations, the latest first."""
    import msgspec

    from carina.database import read_only
    from carina.deliver.register import list_deliveries
    from carina.jobs.waiting_for import unknown_destinations

    engine = _open(config, destination, job_id)
    looked(engine, "deliveries")
    with read_only(engine) as connection:
        found = list_deliveries(
            connection, destination=destination, job_id=job_id, state=state or "", before=before, at_most=count
        )
        complain(*unknown_destinations(connection, node_settings(config).destinations).values())
    if as_json:
        say_json(msgspec.to_builtins(found))
    else:
        say_table(HEADER, [_row(one) for one in found])


def _row(one: Delivery) -> tuple[str, ...]:
    from carina.deliver.answers import short_status

    status = "" if one.status is None else short_status(one.status)
    where = (str(one.id), str(one.job_id), one.state, one.destination, one.sop_instance_uid)
    return *where, str(one.attempts), status, one.confirmed_by, one.error or one.note


@deliveries.command()
@CONFIG
def counts(config: Path | None) -> None:
    """Count objects by destination and state."""
    from carina.database import read_only
    from carina.deliver import ledger
    from carina.jobs.waiting_for import unknown_destinations

    with read_only(_open(config)) as connection:
        found = ledger.counts(connection)
        complain(*unknown_destinations(connection, node_settings(config).destinations).values())
    states = list(ledger.DeliveryState)
    say_table(("destination", *states), [(name, *(str(by[state]) for state in states)) for name, by in found.items()])


@deliveries.command()
@DESTINATION
@OF_JOB
@CONFIG
def resend(destination: str, job_id: int | None, config: Path | None) -> None:
    """Let what has failed, waits for its time, or is sent and not confirmed be tried now.

    Each destination is asked first what it has.
    """
    from carina.deliver.unknown_destination import STRANDED, stranded_words
    from carina.errors import BadConfig
    from carina.jobs.waiting_for import unknown_destinations
    from carina.service.changes import audit
    from carina.service.problems import Conflict
    from carina.service.resending import send_what_holds

    settings = node_settings(config)
    known, folder = settings.destinations, Path(settings.node.folder)
    engine = _open(config, destination, job_id)
    if destination and destination not in known:
        raise BadConfig(STRANDED, f"destinations.{destination}: nothing is sent there. {stranded_words(destination)}")
    acting_by_command()
    with engine.begin() as connection:
        try:
            sent = send_what_holds(connection, folder, destination=destination, job_id=job_id, among=known)
        except Conflict as error:
            raise BadConfig(error.code, error.message) from error
        number = sent.deliveries
        if number:
            audit(connection, "changed", f"{number} deliveries: sent again")
        complain(*unknown_destinations(connection, known).values(), *sent.refused)
    waits = "object waits" if number == 1 else "objects wait"
    say(f"{number} {waits} for another try; each destination is asked first what it has.")


@deliveries.command()
@click.argument("old")
@click.argument("new")
@CONFIG
def rename(old: str, new: str, config: Path | None) -> None:
    """Tell that the destination OLD is called NEW in the settings now; the node is to be stopped meanwhile.

    What was confirmed stays so, and what waits, jobs too, goes to NEW.
    """
    from carina.deliver.sender import while_nothing_is_sent
    from carina.jobs.waiting_for import rename_destination
    from carina.service.changes import audit

    settings = node_settings(config)
    engine = _open(config)
    acting_by_command()
    with while_nothing_is_sent(Path(settings.node.folder)), engine.begin() as connection:
        number = rename_destination(connection, old, new, settings.destinations)
        audit(connection, "changed", f"{number} deliveries: renamed from {old} to {new}")
    say(f"{number} {'object is' if number == 1 else 'objects are'} of {new} now.")
