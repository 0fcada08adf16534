"""Nodes to serve in tests: what they hold is put there directly, and a real server answers on loopback."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage
from sqlalchemy import insert, select
from starlette.types import ASGIApp

from carina.config import Settings, load_settings
from carina.database import ARRIVAL, INSTANCE, JOB
from carina.jobs.sources import kept_source
from carina.receive.files import read_says
from carina.service.check import listen
from carina.service.node import RunningNode
from carina.service.serve import node_of, server_config
from carina.service.visitors import FairListener
from carina.testing.ports import free_port

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def settings_of(folder: Path, text: str = "") -> Settings:
    """Settings of a node below a folder, with two free ports."""
    file = folder / "carina.toml"
    file.write_text(
        f'{text}\n[node]\nfolder = "{folder / "node"}"\nfree_gb = 0.0\nsubmit_below = ["{folder}"]\n'
        f"[dicom]\nport = {free_port()}\n[web]\nport = {free_port()}\n"
    )
    return load_settings(file, {})


def opened(folder: Path, text: str = "") -> RunningNode:
    return node_of(settings_of(folder, text))


def hold(node: RunningNode, files: Sequence[Path], *, state: str = "queued", source: str = "scanner") -> int:
    """Put files into a node as if they had been received together; gives the arrival's id."""
    headers = {file: dcmread(file, stop_before_pixels=True) for file in files}
    first = headers[files[0]]
    with node.engine.begin() as connection:
        row = {
            "series_uid": first.SeriesInstanceUID,
            "study_uid": first.StudyInstanceUID,
            "source": source,
            "sender": "SCANNER@127.0.0.1",
            "state": state,
            "reason": "no source has this AE title" if state == "quarantined" else "",
            "first_at": NOON,
            "last_at": NOON,
        }
        arrival = int(connection.execute(insert(ARRIVAL).returning(ARRIVAL.c.id), row).scalar_one())
        for file, header in headers.items():
            path = Path("incoming") / str(arrival) / f"{header.SOPInstanceUID}.dcm"
            (node.folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, node.folder / path)
            data_set = file.read_bytes()[read_says(file).data_offset :]
            instance = {
                "arrival_id": arrival,
                "source": source,
                "sop_instance_uid": header.SOPInstanceUID,
                "sop_class_uid": header.SOPClassUID,
                "transfer_syntax_uid": header.file_meta.TransferSyntaxUID,
                "sha256": hashlib.sha256(data_set).hexdigest(),
                "bytes": len(data_set),
                "path": str(path),
                "accepted_at": NOON,
            }
            connection.execute(insert(INSTANCE), instance)
    return arrival


def add_job(node: RunningNode, arrival_id: int | None = None, **values: object) -> int:
    """Put a job into a node's table as it stands."""
    row: dict[str, object] = {
        "arrival_id": arrival_id,
        "source": "incoming/1",
        "pipeline": "default",
        "folder": "",
        "state": "stopped",
        "ended": "healthy",
        "priority": 1,
        "memory_mb": 100.0,
        "cores": 1.0,
        "created_at": NOON,
        "stopped_at": NOON,
    }
    if arrival_id is not None:
        wanted = select(ARRIVAL.c.series_uid, ARRIVAL.c.study_uid).where(ARRIVAL.c.id == arrival_id)
        with node.engine.connect() as connection:
            row |= connection.execute(wanted).mappings().one()
    row |= values
    row["source"] = kept_source(node.folder, node.folder / str(row["source"]))
    with node.engine.begin() as connection:
        job = int(connection.execute(insert(JOB).returning(JOB.c.id), row).scalar_one())
        connection.execute(JOB.update().where(JOB.c.id == job).values(folder=f"runs/{job}"))
    return job


def write_result(node: RunningNode, job_id: int, like: Path, sop_class: str) -> Path:
    """A result object in a job's run: a SEG of three frames of 5 x 7 single bits, or a PDF."""
    source = dcmread(like, stop_before_pixels=True)
    result = Dataset()
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate"):
        setattr(result, keyword, source.get(keyword, ""))
    number = 1 if sop_class == SegmentationStorage else 2
    result.SOPClassUID, result.SOPInstanceUID = sop_class, f"2.25.7.{job_id}.{number}"
    result.SeriesInstanceUID, result.SeriesNumber = f"2.25.8.{job_id}.{number}", 100 + number
    if sop_class == SegmentationStorage:
        result.Modality, result.NumberOfFrames, result.Rows, result.Columns = "SEG", 3, 5, 7
        result.SamplesPerPixel, result.BitsAllocated, result.BitsStored, result.HighBit = 1, 1, 1, 0
        result.PixelRepresentation, result.PhotometricInterpretation = 0, "MONOCHROME2"
        result.PixelData = bytes(range(1, 15))
    else:
        result.Modality, result.DocumentTitle, result.MIMETypeOfEncapsulatedDocument = (
            "DOC",
            "Report",
            "application/pdf",
        )
        result.EncapsulatedDocument = b"%PDF-1.4 " + bytes(2000) + b"\0"
        result.EncapsulatedDocumentLength = 2009
    result.file_meta = FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = node.folder / "runs" / str(job_id) / "dicom" / f"{number}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    result.save_as(path, enforce_file_format=True)
    return path


@contextmanager
def serving(node: RunningNode, app: ASGIApp | None = None) -> Iterator[str]:
    """Answer requests to a node until the block ends, or let ``app`` answer them; gives its address."""
    config = server_config(node)
    config.app = app or config.app
    server = uvicorn.Server(config)
    listener = FairListener(listen(node.settings.web.host, node.settings.web.port), config.visitors)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{node.settings.web.port}"
    finally:
        node.stop.set()
        server.should_exit = True
        thread.join()
