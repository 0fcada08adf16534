"""Small result objects, and a node's database with a job in it, for the tests of delivery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, EncapsulatedPDFStorage, ExplicitVRLittleEndian, SegmentationStorage
from sqlalchemy import Connection, Engine, insert

from carina.database import JOB, SCHEMA, open_database
from waiting import wait_until

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PATIENCE_S = 60.0
CLASSES = (
    SegmentationStorage,
    SegmentationStorage,
    EncapsulatedPDFStorage,
    EncapsulatedPDFStorage,
    ComprehensiveSRStorage,
)


def write_objects(folder: Path, *, study: str = "1.2.3", classes: Sequence[str] = CLASSES) -> list[Path]:
    """One object of each class; their UIDs follow from the study's and their place."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, sop_class in enumerate(classes, start=1):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, f"{study}.9.{number}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.8.{number}"
        dataset.PatientID, dataset.PatientName, dataset.Modality = "1", "Doe^Jane", "OT"
        dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
        dataset.EncapsulatedDocument = b"%PDF-1.4 " + b"x" * 1000 + bytes(1)
        path = folder / f"object{number}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        written.append(path)
    return written


def new_ledger(place: Path | str) -> Engine:
    """A node's database: on SQLite in a folder, or at an address."""
    engine = open_database(f"sqlite:///{place}/node.sqlite" if isinstance(place, Path) else place)
    SCHEMA.create_all(engine)
    return engine


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    wait_until(is_so)


def add_job(connection: Connection) -> int:
    """A job that has ended healthy."""
    row = {"source": "x", "pipeline": "default", "folder": "runs/1", "state": "stopped", "ended": "healthy"}
    made = connection.execute(insert(JOB).values(**row, priority=1, memory_mb=1, cores=1, created_at=NOW))
    key = made.inserted_primary_key
    assert key is not None
    return int(key[0])
