"""Small DICOM files for tests of what receives them, and nodes that they are brought to."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy import Engine, func, select

from carina.config import DicomSettings, NodeSettings, Settings
from carina.database import ARRIVAL, INSTANCE, open_database, upgrade_schema
from carina.receive.presence import RECEIVING_LOCK
from carina.receive.store import InstanceStore
from carina.testing.ports import free_port


def small_ct(uid: str = "1.2.3.4", series: str = "1.2.3", *, rows: int = 4, **more: object) -> bytes:
    """A DICOM file of one slice that is all zeros."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = CTImageStorage, uid, "CT"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2", series
    dataset.Rows, dataset.Columns, dataset.BitsAllocated = rows, rows, 16
    dataset.PixelData = bytes(2 * rows * rows)
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    written = BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


def new_store(folder: Path, *, free_gb: float = 0, instance_mb: int = 1) -> InstanceStore:
    """A store below a folder, on a database of its own."""
    node = folder / "node"
    node.mkdir()
    engine = open_database(f"sqlite:///{folder}/node.sqlite")
    upgrade_schema(engine)
    settings = Settings(
        node=NodeSettings(folder=str(node), free_gb=free_gb),
        dicom=DicomSettings(port=free_port(), instance_mb=instance_mb),
    )
    return InstanceStore(settings, engine)


def stored_files(store: InstanceStore) -> list[Path]:
    """Every file below a store's folder but its lock."""
    return sorted(file for file in store.folder.rglob("*") if file.is_file() and file.name != RECEIVING_LOCK)


def instance_rows(engine: Engine) -> int:
    """How many instances a database says are there."""
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(INSTANCE)).scalar_one())


def arrival_states(engine: Engine) -> list[str]:
    """The states of all arrivals, the first one first."""
    with engine.connect() as connection:
        return list(connection.execute(select(ARRIVAL.c.state).order_by(ARRIVAL.c.id)).scalars())
