"""Whether a series that comes in is one that Carina made: by what its objects say, or by this node's ledger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Engine, select

from carina.database import DELIVERY, EVERY_PROJECT, INSTANCE, JOB
from carina.dicom.objects import is_stamped
from carina.dicom.part10 import open_file
from carina.errors import BadSeries


def is_made_by_us(engine: Engine, folder: Path) -> bool:
    """Whether every instance in a folder is a result of Carina's.

    Results say so themselves, whichever node made them. A de-identified series says of its device no more than is
    harmless, so it is known by this node's deliveries alone: another node's is a scan like any other.
    """
    files = sorted(folder.glob("*.dcm"))
    return bool(files) and _are_ours(engine, files[:1]) and _are_ours(engine, files)


def _are_ours(engine: Engine, files: Sequence[Path]) -> bool:
    unmarked = set()
    for file in files:
        try:
            opened = open_file(file, ["SOPInstanceUID", "SoftwareVersions"])
        except BadSeries:
            return False
        if opened is None:
            return False
        if not is_stamped(opened.text("SoftwareVersions")):
            unmarked.add(opened.text("SOPInstanceUID"))
    return not unmarked or unmarked <= _delivered(engine, unmarked)


def _delivered(engine: Engine, uids: set[str]) -> set[str]:
    """Those of the UIDs under which a job of this node had an object to send that it had not been given itself."""
    sent = select(DELIVERY.c.sop_instance_uid).where(DELIVERY.c.sop_instance_uid.in_(uids))
    passed_on = (
        select(INSTANCE.c.sop_instance_uid)
        .join(JOB, JOB.c.arrival_id == INSTANCE.c.arrival_id)
        .join(DELIVERY, DELIVERY.c.job_id == JOB.c.id)
        .where(INSTANCE.c.sop_instance_uid.in_(uids), DELIVERY.c.sop_instance_uid == INSTANCE.c.sop_instance_uid)
    )
    every = EVERY_PROJECT  # through one PACS what a project sends comes back into another
    with engine.connect() as connection:
        found = set(connection.execute(sent.execution_options(**every)).scalars())
        return found - set(connection.execute(passed_on.execution_options(**every)).scalars()) if found else found
