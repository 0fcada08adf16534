"""A node that receives, for tests of its listener, and those who send to it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import Verification
from sqlalchemy import Engine, func, select

from carina.config import DicomSettings, DicomSource, NodeSettings, Settings
from carina.database import INSTANCE
from carina.receive.commitment import failure_reasons, read_request, report_on
from carina.receive.listener import DicomListener
from carina.receive.store import InstanceStore
from carina.testing.ports import free_port
from carina.web_settings import DEFAULT_PROJECT

QUICK = {**os.environ, "TCP_NODELAY": "1", "TCP_BUFFER_LENGTH": "131072"}


def receiver_settings(tmp_path: Path) -> Settings:
    """Settings of a node on a free port, with sources that let in everyone, some, and nobody from here."""
    (tmp_path / "node").mkdir()
    return Settings(
        node=NodeSettings(folder=str(tmp_path / "node"), database=f"sqlite:///{tmp_path}/n.sqlite", free_gb=0),
        dicom=DicomSettings(port=free_port(), idle_s=2, instance_mb=1, associations=30),
        sources={
            "any": DicomSource(ae_title="CARINA"),
            "ward": DicomSource(ae_title="WARD", callers=("CT1",), addresses=("127.0.0.0/8",)),
            "far": DicomSource(ae_title="FAR", addresses=("192.0.2.0/24",)),
        },
    )


@contextmanager
def listening(node: Settings, engine: Engine) -> Iterator[DicomListener]:
    """A listener that listens until the block ends."""
    made = DicomListener(InstanceStore(node, engine))
    made.start()
    try:
        yield made
    finally:
        made.stop()


def rows(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(INSTANCE)).scalar_one())


def storescu(port: int, *more: str, called: str = "CARINA", calling: str = "CT1") -> subprocess.CompletedProcess[str]:
    program = shutil.which("storescu") or pytest.skip("storescu is not installed; on Debian: apt-get install dcmtk")
    command = [str(program), "-v", "-aet", calling, "-aec", called, "127.0.0.1", str(port), "+sd", *more]
    return subprocess.run(command, capture_output=True, text=True, env=QUICK, check=False)


def commitment_report(settings: Settings, engine: Engine, asked: Dataset, project: str = "") -> tuple[int, Dataset]:
    """The event type and the report on a request for storage commitment."""
    request = read_request(encode(asked, False, True) or b"", project or DEFAULT_PROJECT)
    return report_on(request, failure_reasons(settings, engine, request))


def echo(port: int) -> bool:
    peer = AE(ae_title="CT1")
    peer.add_requested_context(Verification)
    association = peer.associate("127.0.0.1", port, ae_title="CARINA")
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return bool(status) and status.Status == 0
