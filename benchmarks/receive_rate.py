"""How many instances a second are received: Carina's listener, fsynced, beside DCMTK's ``storescp``, in one run.

``storescu`` sends the same slices of 512x512 to both, over one association and over eight. What the disk allows is
measured beside it, by the three flushes that each accepted instance costs, the row's after the others or beside them.
For research use only. Not for diagnosis.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from carina.config import DicomSettings, DicomSource, NodeSettings, Settings
from carina.jobs.places import open_node
from carina.receive.listener import DicomListener
from carina.receive.store import InstanceStore
from carina.testing.ports import free_port

QUICK = {"TCP_NODELAY": "1", "TCP_BUFFER_LENGTH": "131072"}
"""DCMTK's switches against waiting for delayed acknowledgements; without them everything is at 20 a second."""

TITLE = "BENCH"


def write_slices(folder: Path, count: int) -> None:
    """Slices of noise, all of one series."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"2.25.1.{folder.name}.{number + 1}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.2", f"2.25.3.{folder.name}"
        dataset.Modality, dataset.PatientName, dataset.PatientID = "CT", "BENCHMARK", "BENCHMARK"
        dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, number + 1
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PixelRepresentation = 512, 512, 1, 1
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.PixelData = rng.integers(-1000, 1000, (512, 512), dtype=np.int16).tobytes()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(folder / f"{number:05}.dcm", enforce_file_format=True)


def serve(folder: Path, port: int) -> None:
    """Receive into a folder until the process is ended."""
    settings = Settings(
        node=NodeSettings(folder=str(folder), free_gb=0),
        dicom=DicomSettings(port=port),
        sources={"bench": DicomSource(ae_title=TITLE)},
    )
    DicomListener(InstanceStore(settings, open_node(settings))).start()
    Event().wait()


@contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """A listener as a process of its own, until the block ends; gives its number."""
    process = subprocess.Popen(command, env=os.environ | QUICK, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def rate(folders: list[Path], port: int) -> float:
    """Instances a second, all folders at once, an association for each."""
    command = ["storescu", "-aec", TITLE, "+sd", "127.0.0.1", str(port)]
    began = time.perf_counter()
    senders = [subprocess.Popen([*command, str(folder)], env=os.environ | QUICK) for folder in folders]
    if any(sender.wait() for sender in senders):
        raise RuntimeError("storescu could not send everything")
    sent = sum(len(list(folder.iterdir())) for folder in folders)
    return sent / (time.perf_counter() - began)


def processor_s(process: int) -> float:
    """Processor time that a process has taken so far (proc(5): fields 14 and 15)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def flushes(folder: Path, count: int = 100, *, at_once: bool) -> float:
    """Instances a second if all they cost were their three flushes: file and folder, then the row, or all at once."""
    folder.mkdir()
    content = bytes(2 * 512 * 512)
    database = sqlite3.connect(folder / "flushes.sqlite", isolation_level=None)
    database.executescript("pragma journal_mode=wal; pragma synchronous=full; create table row (number)")
    handle = os.open(folder, os.O_RDONLY)
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        for number in range(count):
            with (folder / f"{number}").open("wb") as file:
                file.write(content)
                file.flush()
                begun = [pool.submit(os.fsync, one) for one in (file.fileno(), handle)]
                if not at_once:
                    wait(begun)
                database.execute("insert into row values (?)", (number,))
                wait(begun)
    taken = time.perf_counter() - began
    os.close(handle)
    database.close()
    return count / taken


def compare(work: Path, count: int, associations: int) -> dict[str, float]:
    """The rates of both listeners, and of the disk."""
    slices = [work / "slices" / str(number + 1) for number in range(associations)]
    for folder in slices:
        write_slices(folder, count)
    found = {}
    ours, theirs = work / "carina", work / "storescp"
    for many in (1, associations):
        shutil.rmtree(ours, ignore_errors=True)
        shutil.rmtree(theirs, ignore_errors=True)
        ours.mkdir()
        theirs.mkdir()
        port = free_port()
        with running([sys.executable, __file__, "--serve", str(ours), "--port", str(port)], port) as process:
            before = processor_s(process)
            found[f"carina, {many} associations"] = rate(slices[:many], port)
            found[f"processor ms an instance, {many}"] = 1000 * (processor_s(process) - before) / (many * count)
        held = len(list(ours.glob("incoming/*/*.dcm")))
        if held != many * count:
            raise RuntimeError(f"{held} instances are there, {many * count} were sent")
        port = free_port()
        with running(["storescp", "--fork", "-od", str(theirs), "-aet", TITLE, str(port)], port):
            found[f"storescp, {many} associations"] = rate(slices[:many], port)
    found["three flushes, file and folder before the row"] = flushes(work / "in turn", at_once=False)
    found["three flushes at once"] = flushes(work / "at once", at_once=True)
    return found


def main() -> None:
    """Compare, or be the listener that is compared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="slices of each association")
    parser.add_argument("--associations", type=int, default=8)
    parser.add_argument("--serve", type=Path)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.port)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(compare(Path(folder), given.count, given.associations), indent=1))


if __name__ == "__main__":
    main()
