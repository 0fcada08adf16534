"""What Carina made comes back: kept and not run, by every writer; phantoms and de-identified scans are run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import Engine, insert, select

from carina.config import FolderSource, NodeSettings, Settings
from carina.database import ARRIVAL, DELIVERY, JOB, database_now, open_database, upgrade_schema
from carina.dicom.confidentiality import Profile
from carina.dicom.deidentify import deidentified
from carina.dicom.find import choose_source, find_series
from carina.dicom.instances import SliceSeries, colour_slices, mask_slices, volume_slices
from carina.dicom.pdf import encapsulated_pdf
from carina.dicom.pseudonyms import Pseudonyms
from carina.dicom.seg import segmentation
from carina.dicom.seg_reader import Correction, reader_segmentation
from carina.dicom.series import Series
from carina.dicom.sr import measurements
from carina.jobs.intake import take_up
from carina.receive.complete import complete_arrivals, release
from carina.receive.instance import Arriving
from carina.receive.store import InstanceStore, SentBy
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from dicom_objects_samples import MAKERS, PRODUCER, make_mask, make_ratio, make_series, pdf_bytes
from test_dicom_slices import gradient, volume_of

SCANNER, PACS = SentBy("scanner", "CT1@127.0.0.1"), SentBy("pacs", "PACS@127.0.0.1")


@pytest.fixture
def store(tmp_path: Path, node_database: str) -> Iterator[InstanceStore]:
    (tmp_path / "node").mkdir()
    source = FolderSource(path=str(tmp_path), quiet_s=0.001)
    engine = open_database(node_database)
    upgrade_schema(engine)
    node = NodeSettings(folder=str(tmp_path / "node"), free_gb=0)
    yield InstanceStore(Settings(node=node, sources={"scanner": source, "pacs": source}), engine)
    engine.dispose()


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    folder = tmp_path_factory.mktemp("phantom")
    write_ct_series(chest_phantom(shape=(36, 200, 200), lesions=1, seed=4).volume, folder)
    return [dcmread(file) for file in sorted(folder.rglob("*.dcm"))]


def without_patient(scan: Iterable[Dataset]) -> list[Dataset]:
    names, profile = Pseudonyms(b"k" * 32, "P-1"), Profile(frozenset())
    return [deidentified(one, one.pixel_array[None], profile, names) for one in scan]


def come(store: InstanceStore, objects: Iterable[Dataset], by: SentBy = SCANNER) -> str:
    """Send objects of one series to a node; gives the state that they end in."""
    for dataset in objects:
        stream = DicomBytesIO()
        stream.is_implicit_VR, stream.is_little_endian = False, True
        write_dataset(stream, dataset)
        arriving = Arriving(
            sop_class_uid=str(dataset.SOPClassUID),
            sop_instance_uid=str(dataset.SOPInstanceUID),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            data=stream.getvalue(),
        )
        store.accept(arriving, by)
    assert complete_arrivals(store.settings, store.engine) == 1
    with store.engine.connect() as connection:
        return str(connection.execute(select(ARRIVAL.c.state).order_by(ARRIVAL.c.id.desc()).limit(1)).scalar_one())


def send(engine: Engine, objects: Iterable[Dataset], arrival_id: int | None = None) -> None:
    """Have a job in the ledger that sends objects."""
    with engine.begin() as connection:
        now = database_now(connection)
        job = {"source": "s", "pipeline": "p", "folder": "f", "state": "stopped", "priority": 2, "created_at": now}
        made = insert(JOB).values(arrival_id=arrival_id, memory_mb=1, cores=1, **job).returning(JOB.c.id)
        row = {"job_id": connection.execute(made).scalar_one(), "destination": "pacs", "path": "", "state": "sent"}
        rows = [
            row | {"sop_class_uid": one.SOPClassUID, "sop_instance_uid": one.SOPInstanceUID, "created_at": now}
            for one in objects
        ]
        connection.execute(insert(DELIVERY), rows)


def slices(made: SliceSeries) -> list[Dataset]:
    return [made.make(k) for k in range(made.count)]


CORRECTION = Correction(reader="Roe", earlier=None, is_from_network=True)

WRITERS: dict[str, Callable[[Series], list[Dataset]]] = {
    "volume": lambda series: slices(volume_slices(volume_of(series), series, PRODUCER)),
    "mask": lambda series: slices(mask_slices(make_mask(series), series, PRODUCER)),
    "colour": lambda series: slices(colour_slices(gradient, series, PRODUCER, description="CT", digest="d")),
    "seg": lambda series: [segmentation(make_mask(series), series, PRODUCER)],
    "corrected": lambda series: [reader_segmentation(make_mask(series), series, PRODUCER, CORRECTION)],
    "sr": lambda series: [measurements(make_ratio(1.0), None, series, MAKERS)],
    "pdf": lambda series: [encapsulated_pdf(pdf_bytes(), series, PRODUCER, "A report", digest="said")],
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_any_writer_made_is_kept_and_not_run_whichever_node_made_it(store: InstanceStore, writer: str) -> None:
    assert come(store, WRITERS[writer](make_series())) == "kept"


@pytest.mark.parametrize("writer", WRITERS)
def test_what_was_kept_becomes_a_job_once_it_is_released(store: InstanceStore, writer: str) -> None:
    """By hand alone: what comes of it later is kept again. A volume that another node wrote can be read then."""
    made = WRITERS[writer](make_series())
    assert come(store, made[:-1] or made) == "kept"
    with store.engine.begin() as connection:
        assert release(connection, 1)
        assert not release(connection, 1)
        (job,) = take_up(connection, store.settings, database_now(connection))
        source = connection.execute(select(JOB.c.source).where(JOB.c.id == job)).scalar_one()
    if writer == "volume":
        folder = Path(store.settings.node.folder) / source
        chosen = choose_source(find_series(folder), uid=str(made[0].SeriesInstanceUID))
        assert isinstance(chosen, Series) and len(chosen.instances) == len(made) - 1
    if len(made) > 1:
        assert come(store, made[-1:]) == "kept"


def test_a_phantom_is_run_although_carina_made_it(store: InstanceStore, phantom: list[Dataset]) -> None:
    assert come(store, phantom) == "complete"


def test_a_deidentified_series_is_run_unless_this_node_sent_it(store: InstanceStore, phantom: list[Dataset]) -> None:
    made = without_patient(phantom)
    assert come(store, made) == "complete"
    send(store.engine, made)
    assert come(store, made, PACS) == "kept"


def test_a_scan_is_run_where_one_of_its_instances_is_no_result(store: InstanceStore, phantom: list[Dataset]) -> None:
    made = without_patient(phantom)
    send(store.engine, made[:-1])
    assert come(store, made) == "complete"


def test_a_scan_is_run_again_that_a_job_was_given_and_passed_on(store: InstanceStore, phantom: list[Dataset]) -> None:
    assert come(store, phantom) == "complete"
    with store.engine.connect() as connection:
        arrival_id = connection.execute(select(ARRIVAL.c.id)).scalar_one()
    send(store.engine, phantom, arrival_id)
    assert come(store, phantom, PACS) == "complete"
