"""``carina fetch``: CT series of a PACS into the node."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina.cli.node import CONFIG, looked, node_settings, noted
from carina.cli.terminal import SOME_FAILED, complain, say, say_table

if TYPE_CHECKING:
    from carina.config import Settings
    from carina.receive.fetch import FoundSeries


@click.command()
@click.argument("name", metavar="NODE")
@click.option("--accession", default="", help="Accession number of the study.")
@click.option("--patient", "patient_id", default="", help="Patient ID: every study of the patient.")
@click.option("--study", "study_uid", default="", help="Study Instance UID.")
@click.option("--series", "series_uid", default="", help="Series Instance UID, beside one of the above.")
@click.option("--source", default="", help="Source of the settings that it counts as; default: the first.")
@click.option("--move", is_flag=True, help="C-MOVE to our listener in place of C-GET (DICOM only).")
@click.option("--list", "only_list", is_flag=True, help="Show what there is, and fetch nothing.")
@CONFIG
def fetch(
    name: str,
    accession: str,
    patient_id: str,
    study_uid: str,
    series_uid: str,
    source: str,
    move: bool,
    only_list: bool,
    config: Path | None,
) -> None:
    """Fetch CT series from NODE, a DICOM or DICOMweb destination of the settings, as if it had sent them.

    For research use only. Not for diagnosis.
    """
    from carina.jobs.places import check_beside, open_node_beside
    from carina.receive.fetch import Wanted
    from carina.receive.pull import find_at, peer_called

    wanted = Wanted(accession=accession, patient_id=patient_id, study_uid=study_uid, series_uid=series_uid)
    if not (accession or patient_id or study_uid):
        raise click.UsageError("say what to fetch: --accession, --patient or --study.")
    settings = node_settings(config)
    check_beside(settings)  # before the PACS is asked
    found = find_at(name, peer_called(name, settings), wanted)
    if not found:
        complain(f"{name}: no CT series there fits what was asked for.")
        sys.exit(SOME_FAILED)
    if only_list:
        looked(open_node_beside(settings), *(f"series {one.series_uid} of {name}: listed" for one in found))
        header = ("series", "study", "date", "instances", "description")
        shown = [(one.series_uid, one.study_uid, one.study_date, str(one.instances), one.description) for one in found]
        say_table(header, shown)
    elif not _fetched(name, found, settings, source, is_moved=move):
        sys.exit(SOME_FAILED)


def _fetched(name: str, found: Sequence[FoundSeries], settings: Settings, source: str, *, is_moved: bool) -> bool:
    """Fetch series from a node, and say of each what came; whether all of it did."""
    from carina.jobs.places import open_node_beside
    from carina.receive.pull import peer_called, pull, source_called
    from carina.receive.store import InstanceStore
    from carina.receive.unfinished import FetchWish, written_down

    is_whole = True
    store = InstanceStore(settings, open_node_beside(settings))
    as_source = source_called(source, settings)
    noted(store.engine, "fetched", *(f"series {one.series_uid} of {name}: asked for" for one in found))
    wishes = [
        FetchWish(
            peer=name,
            source=as_source,
            study_uid=one.study_uid,
            series_uid=one.series_uid,
            instances=one.instances,
            is_moved=is_moved,
        )
        for one in found
    ]
    peer = peer_called(name, settings)
    with written_down(store.folder, wishes) as ended:
        for series, outcome in zip(found, pull(name, peer, found, store, as_source, is_moved=is_moved), strict=True):
            ended(series.series_uid)
            say(outcome.words)
            is_whole &= outcome.is_whole
    return is_whole
