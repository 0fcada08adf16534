"""``carina backup`` and ``carina restore``: a node saved while it runs, and brought back."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina.cli.node import CONFIG, acting_by_command, node_settings
from carina.cli.places import PATH
from carina.cli.terminal import SOME_FAILED, say

if TYPE_CHECKING:
    from carina.keeping.backup import Backup


@click.command()
@click.argument("to", type=PATH)
@CONFIG
def backup(to: Path, config: Path | None) -> None:
    """Save the node to the folder TO, which must be empty or not be there. The node may run meanwhile.

    Everything accepted before is in it. The settings file and what it names (keys, rules) are not: keep them yourself.
    Where the node itself has lost an instance or a result, or has it altered, it is named, and the exit status is
    not 0. So it is where the node's database is damaged, which is saved as it is.
    """
    from carina.keeping.backup import save_node

    made = save_node(node_settings(config), to, datetime.now(UTC), who=acting_by_command())
    say(f"{to}: saved as of {made.at:%Y-%m-%d %H:%M:%S} UTC; instances: {made.instances}, runs: {made.runs}")
    _warn_if_open(to)
    _tell_lost(made, "saved without what was lost, and a restore does without it")
    _tell_damage(made, to)
    if made.lost or made.lost_results or made.database_damage:
        sys.exit(SOME_FAILED)


def _tell_lost(made: Backup, consequence: str) -> None:
    for lost, instead, remedy in (
        (made.lost, "what came", "Have it sent again."),
        (
            made.lost_results,
            "what its run, or a reader, wrote",
            "Bring it back from an earlier backup, or run the series again.",
        ),
    ):
        if lost:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            words = f"missing or not {instead}: {consequence}"
            say(f"{made.folder}: {lost[0]}{more}: {words}. {remedy}", err=True)


def _tell_damage(made: Backup, to: Path) -> None:
    from carina.jobs.places import DATABASE
    from carina.keeping.saved import mend_command

    if made.database_damage:
        saved = "it is saved as it is, and with it all that lies in the node's folder"
        how = f"Stop the node, and restore an earlier backup; where there is none, mend this one: {mend_command(to)}"
        say(f"{Path(made.folder) / DATABASE}: is damaged ({made.database_damage}): {saved}. {how}", err=True)


def _warn_if_open(folder: Path) -> None:
    from carina.jobs.places import is_private

    if not is_private(folder):
        say(f"{folder}: can be read by other users of this machine: its file system keeps no rights", err=True)


@click.command()
@click.argument("backup_folder", metavar="FROM", type=PATH)
@CONFIG
def restore(backup_folder: Path, config: Path | None) -> None:
    """Make the node of the settings from a backup in the folder FROM. The node's folder must be empty or not there.

    What lies in FROM and was not saved by carina backup is left out and named.
    """
    from carina.keeping.restore import restore_node

    settings = node_settings(config)
    said = restore_node(settings, backup_folder, datetime.now(UTC), who=acting_by_command())
    what = f"as of {said.at:%Y-%m-%d %H:%M:%S} UTC; instances: {said.instances}, runs: {said.runs}"
    say(f"{settings.node.folder}: {what}; start it by: carina serve")
    if not said.sha256:
        from carina.keeping.backup import BACKUP_FILE

        words = "has no SHA-256 of itself, like those of earlier versions: whether it was changed can't be seen"
        say(f"{backup_folder / BACKUP_FILE}: {words}", err=True)
    _tell_lost(said, "it was lost before the backup was made, and the restored node is without it")
    if said.left_out:
        more = f" and {len(said.left_out) - 1} more" if len(said.left_out) > 1 else ""
        words = f"{said.left_out[0]}{more}: lies in the backup's folder and was not saved with it: left out"
        say(f"{backup_folder}: {words}. Put it in place by hand where it is wanted", err=True)
    _warn_if_open(Path(settings.node.folder))
