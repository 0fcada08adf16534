"""PACS on the loopback address for tests: Orthanc where it is installed, and a small in-memory one everywhere.

Both give a ``Pacs``; ports are chosen free, storage is temporary, and nothing outside the machine can connect.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.sop_class import Verification

from carina.pipeline.json_text import read_json
from carina.testing.dicom import TRANSFER_SYNTAXES
from carina.testing.ports import LOOPBACK, free_port

ORTHANC_NAMES = ("Orthanc", "orthanc")
PLUGIN_FOLDERS = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins")


@dataclass(frozen=True, kw_only=True)
class Pacs:
    """A running PACS. ``http_url`` and ``dicomweb_url`` are empty where it speaks DIMSE only.

    ``instances()`` gives the SOP Instance UIDs that it has stored, ``fetch(uid)`` one of its files as bytes.
    """

    host: str
    dicom_port: int
    ae_title: str
    instances: Callable[[], tuple[str, ...]]
    fetch: Callable[[str], bytes]
    http_url: str = ""
    dicomweb_url: str = ""


def orthanc_program() -> str | None:
    """Where Orthanc is installed, None where it is not (Debian: ``orthanc orthanc-dicomweb``)."""
    paths = (shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") for name in ORTHANC_NAMES)
    return next((path for path in paths if path), None)


@contextmanager
def orthanc(
    *,
    modalities: Mapping[str, tuple[str, str, int]] | None = None,
    settings: Mapping[str, object] | None = None,
    timeout_s: float = 30.0,
) -> Iterator[Pacs]:
    """Run Orthanc with DICOMweb on free loopback ports and empty temporary storage until the block ends.

    ``modalities`` are the nodes that it may send to: name to (AE title, host, port); ``settings`` are further ones of
    Orthanc's own, by their names.

    Raises:
        RuntimeError: Orthanc is not installed, or did not start in time; the message has its last log lines.
    """
    program = orthanc_program()
    if program is None:
        raise RuntimeError("Orthanc is not installed; on Debian: apt-get install orthanc orthanc-dicomweb")
    with tempfile.TemporaryDirectory(prefix="carina-orthanc-") as name:
        folder = Path(name)
        http, dimse = free_port(), free_port()
        configuration = folder / "orthanc.json"
        configured = _configuration(folder, http, dimse, modalities or {}) | dict(settings or {})
        configuration.write_text(json.dumps(configured))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([program, str(configuration)], stdout=log, stderr=subprocess.STDOUT)
        try:
            pacs = _orthanc_pacs(http, dimse)
            _wait(pacs, process, folder / "log", timeout_s)
            yield pacs
        finally:
            # Killed, not asked: an orderly stop takes seconds, and the storage is thrown away with the block.
            process.kill()
            process.wait()


def _configuration(
    folder: Path, http: int, dimse: int, modalities: Mapping[str, tuple[str, str, int]]
) -> dict[str, object]:
    plugins = [str(Path(place) / "libOrthancDicomWeb.so") for place in PLUGIN_FOLDERS]
    return {
        "Name": "Carina test PACS",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [plugin for plugin in plugins if Path(plugin).is_file()][:1],
        "HttpPort": http,
        "HttpServerEnabled": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomPort": dimse,
        "DicomAet": "ORTHANC",
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomCheckCalledAet": False,
        "DicomModalities": {key: list(value) for key, value in modalities.items()},
        "DicomThreadsCount": 2,
        "HttpThreadsCount": 4,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
    }


def _orthanc_pacs(http: int, dimse: int) -> Pacs:
    url = f"http://{LOOPBACK}:{http}"

    def instances() -> tuple[str, ...]:
        rows = read_json(_get(f"{url}/instances?expand"))
        return tuple(sorted(row["MainDicomTags"]["SOPInstanceUID"] for row in rows))

    def fetch(uid: str) -> bytes:
        request = urllib.request.Request(f"{url}/tools/lookup", data=uid.encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            found = [row["ID"] for row in read_json(answer.read()) if row["Type"] == "Instance"]
        if not found:
            raise KeyError(uid)
        return _get(f"{url}/instances/{found[0]}/file")

    return Pacs(
        host=LOOPBACK,
        dicom_port=dimse,
        ae_title="ORTHANC",
        instances=instances,
        fetch=fetch,
        http_url=url,
        dicomweb_url=f"{url}/dicom-web",
    )


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        content: bytes = answer.read()
        return content


def _wait(pacs: Pacs, process: subprocess.Popen[bytes], log: Path, timeout_s: float) -> None:
    """Come back when Orthanc answers over HTTP and takes DICOM connections."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and process.poll() is None:
        try:
            with suppress(urllib.error.HTTPError):  # one with users of its own answers 401
                _get(f"{pacs.http_url}/system")
            with socket.create_connection((pacs.host, pacs.dicom_port), timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    last = " | ".join(log.read_text(errors="replace").splitlines()[-5:])
    raise RuntimeError(f"Orthanc did not start within {timeout_s:g} s; its log ends: {last}")


@dataclass(kw_only=True)
class _Shelf:
    """What the in-memory PACS has stored, by SOP Instance UID."""

    files: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def memory_pacs(*, ae_title: str = "MEMORY", statuses: Iterator[int] | None = None) -> Iterator[Pacs]:
    """Run a C-STORE and C-ECHO SCP that keeps objects in memory, until the block ends.

    ``statuses`` gives the DIMSE status to answer to each C-STORE in turn, to play a PACS that fails (0xA700: out of
    resources; 0 when it has run out); objects refused so are not kept.
    """
    shelf = _Shelf()
    answers = statuses if statuses is not None else iter(())

    def store(event: Event) -> int:
        status = next(answers, 0x0000)
        if status == 0x0000:
            shelf.files[str(event.request.AffectedSOPInstanceUID)] = event.encoded_dataset()
        return status

    entity = AE(ae_title=ae_title)
    entity.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, _syntaxes())
    handlers: list[EventHandlerType] = [(evt.EVT_C_STORE, store)]
    server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
    if server is None:
        raise RuntimeError("the in-memory PACS could not open a port on the loopback address")
    try:
        yield Pacs(
            host=LOOPBACK,
            dicom_port=server.server_address[1],
            ae_title=ae_title,
            instances=lambda: tuple(sorted(shelf.files)),
            fetch=lambda uid: shelf.files[uid],
        )
    finally:
        server.shutdown()


def _syntaxes() -> list[str]:
    return [str(syntax) for syntax in TRANSFER_SYNTAXES]


def send(pacs: Pacs, datasets: list[Dataset], *, calling_ae_title: str = "SENDER") -> tuple[int, ...]:
    """C-STORE datasets to a PACS over one association and give back their DIMSE statuses in order.

    Raises:
        RuntimeError: the PACS did not take the association.
    """
    entity = AE(ae_title=calling_ae_title)
    for sop_class, syntax in {(str(d.SOPClassUID), str(d.file_meta.TransferSyntaxUID)) for d in datasets}:
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate(pacs.host, pacs.dicom_port, ae_title=pacs.ae_title)
    if not association.is_established:
        raise RuntimeError(f"{pacs.ae_title} at {pacs.host}:{pacs.dicom_port} did not take the association")
    try:
        answers = [association.send_c_store(dataset) for dataset in datasets]
    finally:
        association.release()
    return tuple(int(answer.Status) if "Status" in answer else 0xFFFF for answer in answers)
