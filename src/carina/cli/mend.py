"""``carina mend``: a damaged database of a node, or of a backup, replaced by what can still be read of it."""

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
    from carina.keeping.mended_rows import MendedTable


@click.command()
@click.argument("backup_folder", metavar="[BACKUP]", type=PATH, required=False)
@CONFIG
def mend(backup_folder: Path | None, config: Path | None) -> None:
    """Mend the node's damaged SQLite database, while nothing runs on it, or the one in the folder BACKUP.

    Every row that can still be read is put into a new database, which takes the place of the damaged one once it is
    whole; that one is kept beside it as damaged.sqlite. Where rows are missing, the exit status is not 0.
    """
    from carina.keeping.mend import KEPT_AS, mend_backup, mend_node

    now, who = datetime.now(UTC), acting_by_command()
    if backup_folder is not None:
        mended = mend_backup(backup_folder, now, who)
    else:
        mended = mend_node(node_settings(config), now, who)
    if mended is None:
        say("the database is whole: nothing to mend")
        return
    say(f"{mended.file}: mended; it was damaged ({mended.damage}), and is kept as {mended.file.with_name(KEPT_AS)}")
    for table in mended.tables:
        say(f"{table.name}: {_in_words(table)}", err=not table.is_whole)
    if any(not table.is_whole or table.left_out for table in mended.tables):
        say(
            "What came, and is in no row any more, is put into unknown/ of the node's folder when the node starts, as "
            "are runs of jobs after the last one: hand it in again from there (carina submit). Series that lost their "
            "jobs wait in quarantine (carina arrivals).",
            err=True,
        )
        sys.exit(SOME_FAILED)


def _in_words(table: MendedTable) -> str:
    words = [f"rows found: {table.found}"]
    if not table.is_whole:
        known = f"known to be missing: {table.missing}" if table.missing else "a part of it can't be read"
        words.append(known)
    if table.unnumbered > table.missing:
        words.append(f"numbers without a row, removed before or missing: {table.unnumbered}")
    if table.remade:
        words.append(f"made again from other rows: {table.remade}")
    if table.left_out:
        words.append(f"left out, since what they belong to is missing: {table.left_out}")
    return "; ".join(words)
