"""Accepting instances: what was promised survives a crash, what can't be is refused, nothing leaves its folder."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from sqlalchemy import Engine, func, select, update

from carina.config import DicomSettings, FolderSource, NodeSettings, Settings
from carina.database import ARRIVAL, INSTANCE, database_now, open_database, upgrade_schema
from carina.jobs.projects import assign_series
from carina.receive import store as store_module
from carina.receive.complete import complete_arrivals, release
from carina.receive.instance import NO_ROOM, NOT_UNDERSTOOD, WRONG_CLASS, Arriving, NotAccepted
from carina.receive.recover import recover
from carina.receive.store import Accepted, InstanceStore, SentBy
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series

ORIGIN = SentBy("scanner", "CT1@127.0.0.1")


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    (tmp_path / "node").mkdir()
    return Settings(
        node=NodeSettings(folder=str(tmp_path / "node"), free_gb=0),
        dicom=DicomSettings(instance_mb=1),
        sources={"scanner": FolderSource(path=str(tmp_path), quiet_s=0.001)},
    )


@pytest.fixture
def engine(node_database: str) -> Iterator[Engine]:
    made = open_database(node_database)
    upgrade_schema(made)
    yield made
    made.dispose()


def instance(uid: str = "1.2.3.4", series: str = "1.2.3", *, rows: int = 4, **more: object) -> Arriving:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = CTImageStorage, uid, "CT"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2", series
    dataset.Rows, dataset.Columns, dataset.BitsAllocated = rows, rows, 16
    dataset.PixelData = bytes(2 * rows * rows)
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = False, True
    write_dataset(stream, dataset)
    return Arriving(
        sop_class_uid=CTImageStorage,
        sop_instance_uid=uid,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        data=stream.getvalue(),
    )


def rows(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(INSTANCE)).scalar_one())


def states(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(select(ARRIVAL.c.state).order_by(ARRIVAL.c.id)).scalars())


def files(node: Settings) -> list[Path]:
    return sorted(file for file in (Path(node.node.folder) / "incoming").rglob("*") if file.is_file())


def test_what_is_accepted_is_stored_as_it_came(node: Settings, engine: Engine) -> None:
    arriving = instance()
    assert InstanceStore(node, engine).accept(arriving, ORIGIN) is Accepted.NEW
    (file,) = files(node)
    assert file.read_bytes().endswith(bytes(arriving.data))
    assert dcmread(file).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    with engine.connect() as connection:
        row = connection.execute(select(INSTANCE, ARRIVAL).join(ARRIVAL)).one()
    assert Path(node.node.folder) / row.path == file
    assert (row.series_uid, row.source, row.sender, row.state) == ("1.2.3", "scanner", "CT1@127.0.0.1", "arriving")


def test_the_same_again_is_known_and_another_content_is_kept_apart(node: Settings, engine: Engine) -> None:
    store = InstanceStore(node, engine)
    became = [store.accept(one, ORIGIN) for one in (instance(), instance(), instance(PatientID="X"), instance())]
    assert became == [Accepted.NEW, Accepted.REPEATED, Accepted.APART, Accepted.REPEATED]
    assert rows(engine) == len(files(node)) == 2
    complete_arrivals(node, engine)
    assert states(engine) == ["quarantined", "apart"]


TRIALS = {name: FolderSource(path="/data", project=name.partition("-")[0]) for name in ("a-ct", "a-pacs", "b-ct")}


@settings(max_examples=12, deadline=None)
@given(
    sent=st.lists(
        st.tuples(st.sampled_from(sorted(TRIALS)), st.sampled_from(["1", "2"]), st.sampled_from(["1.2.3", "1.2.4"])),
        max_size=8,
    )
)
@example(sent=[("a-ct", "1", "1.2.3"), ("b-ct", "2", "1.2.3"), ("a-pacs", "2", "1.2.3")])
def test_a_project_is_as_if_no_other_were_there(
    tmp_path_factory: pytest.TempPathFactory, sent: list[tuple[str, str, str]]
) -> None:
    """What becomes of what is sent into a project, whatever is sent into others under the same UIDs meanwhile."""

    def become(them: list[tuple[str, str, str]]) -> list[tuple[str, Accepted]]:
        folder = tmp_path_factory.mktemp("node")
        with_trials = Settings(node=NodeSettings(folder=str(folder), free_gb=0), sources=TRIALS)
        made = open_database(f"sqlite:///{folder / 'node.sqlite'}")
        upgrade_schema(made)
        store = InstanceStore(with_trials, made)
        became = [
            (by, store.accept(instance(series=series, PatientID=who), SentBy(by, "CT1@127.0.0.1")))
            for by, who, series in them
        ]
        made.dispose()
        return became

    together = become(sent)
    for project in "ab":
        alone = [one for one in sent if one[0].startswith(project)]
        assert [one for one in together if one[0].startswith(project)] == become(alone)


def test_what_is_moved_is_compared_where_it_is(node: Settings, engine: Engine) -> None:
    there = Settings(node=node.node, sources=TRIALS)
    store = InstanceStore(there, engine)
    a, b = SentBy("a-ct", "CT1@127.0.0.1"), SentBy("b-ct", "CT2@127.0.0.1")
    assert store.accept(instance(), a) is Accepted.NEW
    with engine.begin() as connection:
        assign_series(connection, connection.execute(select(ARRIVAL)).one(), "a-ct", "b")
    assert store.accept(instance(), a) is Accepted.REPEATED
    assert store.accept(instance(PatientID="X"), a) is Accepted.APART
    assert store.accept(instance(PatientID="Y"), b) is Accepted.APART
    assert store.accept(instance(series="1.2.4"), a) is Accepted.NEW


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"sop_instance_uid": "../../x"}, NOT_UNDERSTOOD, "SOP Instance UID '../../x' is no UID"),
        ({"sop_class_uid": ""}, NOT_UNDERSTOOD, "SOP Class UID '' is no UID"),
        ({"transfer_syntax_uid": "x"}, NOT_UNDERSTOOD, "transfer syntax 'x' is no UID"),
        ({"data": b""}, NOT_UNDERSTOOD, "has no data set"),
        ({"data": b"\x00" * 300}, NOT_UNDERSTOOD, "instance 1.2.3.4"),
        ({"sop_instance_uid": "1.2.9"}, WRONG_CLASS, "names another instance or class"),
        ({"data": bytes(1_000_001)}, NO_ROOM, "over the limit of 1 MB"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    node: Settings, engine: Engine, change: dict[str, object], status: int, told: str
) -> None:
    known = {name: getattr(instance(), name) for name in Arriving.__dataclass_fields__}
    with pytest.raises(NotAccepted, match=told) as caught:
        InstanceStore(node, engine).accept(Arriving(**known | change), ORIGIN)
    assert caught.value.status == status
    assert files(node) == []
    assert rows(engine) == 0


@pytest.mark.parametrize("after", [b"\n", b"\r", b"\t", b"\x1b"])
@pytest.mark.parametrize("uid", [b"1.2.3.4", b"1.2.3", b"1.2"])
def test_what_follows_a_uid_is_not_left_out(node: Settings, engine: Engine, uid: bytes, after: bytes) -> None:
    """The SOP instance's, the series', the study's: each is padded by one byte."""
    sent = instance()
    data = bytes(sent.data)
    said = bytes([len(uid) + 1, 0]) + uid
    assert data.count(said + b"\0") == 1
    changed = replace(sent, data=data.replace(said + b"\0", said + after))
    with pytest.raises(NotAccepted, match=r"UID has more than digits, dots and one byte of padding") as caught:
        InstanceStore(node, engine).accept(changed, ORIGIN)
    assert (caught.value.code, caught.value.message.isprintable()) == ("receive.uid", True)
    assert (files(node), rows(engine)) == ([], 0)


def test_a_uid_that_is_padded_by_a_blank_is_taken(node: Settings, engine: Engine) -> None:
    sent = instance()
    changed = replace(sent, data=bytes(sent.data).replace(b"1.2.3.4\0", b"1.2.3.4 "))
    assert InstanceStore(node, engine).accept(changed, ORIGIN) is Accepted.NEW


def test_a_full_disk_refuses(node: Settings, engine: Engine) -> None:
    full = msgspec.structs.replace(node, node=msgspec.structs.replace(node.node, free_gb=1e9))
    with pytest.raises(NotAccepted, match=r"are to stay free \(node.free_gb\)") as caught:
        InstanceStore(full, engine).accept(instance(), ORIGIN)
    assert caught.value.status == NO_ROOM


@pytest.mark.parametrize("place", ["_open", "_move", "_flush"])
def test_a_node_that_starts_takes_nothing_from_a_fetch_beside_it(
    node: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Halfway through an instance of another process, the node's start waits for it."""
    original: Callable[..., object] = getattr(store_module, place)
    removed: list[int] = []
    start = threading.Thread(target=lambda: removed.append(recover(node, engine)))

    def meanwhile(*arguments: object, **named: object) -> object:
        if not start.ident:
            start.start()
            start.join(0.2)
            assert start.is_alive()
        return original(*arguments, **named)

    monkeypatch.setattr(store_module, place, meanwhile)
    assert InstanceStore(node, engine).accept(instance("1.2.3.1"), ORIGIN) is Accepted.NEW
    start.join()
    assert removed == [0]
    assert [file.name for file in files(node)] == ["1.2.3.1.dcm"]


@settings(max_examples=60, deadline=None)
@given(uid=st.text(max_size=70), noise=st.binary(max_size=400))
def test_whatever_comes_is_accepted_or_refused_below_its_folder(
    node: Settings, tmp_path: Path, uid: str, noise: bytes
) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/fuzz.sqlite")
    upgrade_schema(engine)
    known = instance()
    before = {file for file in tmp_path.rglob("*") if "node" not in file.parts and "fuzz" not in file.name}
    for data in (known.data, bytes(known.data)[:40] + noise, noise):
        arriving = Arriving(
            sop_class_uid=CTImageStorage,
            sop_instance_uid=uid or "1.2.3.4",
            transfer_syntax_uid=DeflatedExplicitVRLittleEndian if len(noise) % 2 else ExplicitVRLittleEndian,
            data=bytes(data),
        )
        try:
            InstanceStore(node, engine).accept(arriving, ORIGIN)
        except NotAccepted as error:
            assert "\n" not in error.message
    assert before == {file for file in tmp_path.rglob("*") if "node" not in file.parts and "fuzz" not in file.name}


def send_series(node: Settings, engine: Engine, folder: Path) -> None:
    store = InstanceStore(node, engine)
    for file in sorted(folder.glob("*.dcm")):
        dataset = dcmread(file)
        stream = DicomBytesIO()
        stream.is_implicit_VR, stream.is_little_endian = False, True
        meta = dataset.file_meta
        write_dataset(stream, dataset)
        store.accept(
            Arriving(
                sop_class_uid=dataset.SOPClassUID,
                sop_instance_uid=dataset.SOPInstanceUID,
                transfer_syntax_uid=meta.TransferSyntaxUID,
                data=stream.getvalue(),
            ),
            ORIGIN,
        )


def _refuse(*_: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("is_linked", [True, False])
def test_slices_that_come_later_complete_the_series(
    node: Settings, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_linked: bool
) -> None:
    if not is_linked:
        monkeypatch.setattr(os, "link", _refuse)
    write_ct_series(chest_phantom(shape=(40, 192, 192), lesions=0).volume, tmp_path / "ct")
    late = sorted((tmp_path / "ct").glob("*.dcm"))[:4]
    kept = [file.rename(tmp_path / file.name) for file in late]
    send_series(node, engine, tmp_path / "ct")
    assert complete_arrivals(node, engine) == 1
    assert states(engine) == ["quarantined"], "there are gaps"
    (tmp_path / "late").mkdir()
    for file in kept:
        file.rename(tmp_path / "late" / file.name)
    send_series(node, engine, tmp_path / "late")
    assert complete_arrivals(node, engine) == 1
    assert states(engine) == ["queued", "complete"], "what was quarantined waits no longer"
    assert len(list((Path(node.node.folder) / "incoming" / "2").glob("*.dcm"))) == 40


def test_what_fits_no_rule_waits_in_quarantine_until_it_is_released(node: Settings, engine: Engine) -> None:
    store = InstanceStore(node, engine)
    store.accept(instance(), ORIGIN)
    assert complete_arrivals(node, engine) == 1
    with engine.begin() as connection:
        row = connection.execute(select(ARRIVAL)).one()
        assert row.state == "quarantined"
        assert row.reason
        assert "\n" not in row.reason
        assert release(connection, row.id)
        assert not release(connection, row.id)
    assert states(engine) == ["complete"]


def test_our_own_results_are_kept_and_not_run(node: Settings, engine: Engine) -> None:
    InstanceStore(node, engine).accept(instance(Modality="SEG", SoftwareVersions="carina 0.2.0"), ORIGIN)
    complete_arrivals(node, engine)
    assert states(engine) == ["kept"]
    assert [file.name for file in files(node)] == ["1.2.3.4.dcm"]


def several(node: Settings, engine: Engine, count: int, source: str) -> None:
    store = InstanceStore(node, engine)
    for number in range(count):
        uid = f"1.2.{len(states(engine))}.{number}"
        store.accept(instance(f"{uid}.1", uid), SentBy(source, "CT1@127.0.0.1"))


@pytest.mark.parametrize(("source", "ends"), [("slow", "arriving"), ("gone", "quarantined")])
def test_no_source_holds_up_another(
    node: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch, source: str, ends: str
) -> None:
    monkeypatch.setattr("carina.receive.complete.ARRIVALS_JUDGED", 2)
    slow = {"slow": FolderSource(path=node.node.folder, quiet_s=3600)}
    several(node, engine, 3, source)
    several(node, engine, 1, "scanner")
    for _ in range(3):
        complete_arrivals(msgspec.structs.replace(node, sources={**node.sources, **slow}), engine)
    assert states(engine) == [ends, ends, ends, "quarantined"]
    with engine.connect() as connection:
        reason = connection.execute(select(ARRIVAL.c.reason).order_by(ARRIVAL.c.id)).scalars().first()
    assert ("source gone is not in the settings any more" in (reason or "")) == (source == "gone")


@pytest.mark.parametrize("fault", [ValueError, RecursionError, MemoryError, PermissionError])
def test_a_series_that_breaks_the_reader_holds_up_no_other(
    node: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise fault("as no test has seen it yet")

    monkeypatch.setattr("carina.receive.complete.find_series", breaks)
    several(node, engine, 2, "scanner")
    assert complete_arrivals(node, engine) == 2
    assert states(engine) == ["quarantined"] * 2


def test_while_the_node_was_away_no_series_became_complete(node: Settings, engine: Engine) -> None:
    patient = msgspec.structs.replace(node, sources={"scanner": FolderSource(path=node.node.folder, quiet_s=60)})
    several(node, engine, 1, "scanner")
    with engine.begin() as connection:
        long_ago = database_now(connection) - timedelta(hours=1)
        connection.execute(update(ARRIVAL).values(last_at=long_ago))
    recover(patient, engine)
    assert complete_arrivals(patient, engine) == 0, "its sender had no time to continue"
    assert states(engine) == ["arriving"]


def test_where_the_clock_is_set_back_a_series_begins_to_be_quiet_anew(node: Settings, engine: Engine) -> None:
    patient = msgspec.structs.replace(node, sources={"scanner": FolderSource(path=node.node.folder, quiet_s=60)})
    several(node, engine, 1, "scanner")
    with engine.begin() as connection:
        connection.execute(update(ARRIVAL).values(last_at=database_now(connection) + timedelta(hours=5)))
    assert complete_arrivals(patient, engine) == 0, "its sender may be at it still"
    with engine.connect() as connection:
        last_at = connection.execute(select(ARRIVAL.c.last_at)).scalar_one()
        assert last_at <= database_now(connection)
    assert complete_arrivals(node, engine) == 1


@pytest.mark.parametrize("source", ["scanner", "gone"])
def test_a_series_in_pieces_waits_once_and_none_of_it_is_lost(node: Settings, engine: Engine, source: str) -> None:
    store = InstanceStore(node, engine)
    for number in range(3):
        store.accept(instance(f"1.2.3.{number}"), SentBy(source, "CT1@127.0.0.1"))
        complete_arrivals(node, engine)
    assert states(engine) == ["queued", "queued", "quarantined"]
    assert len(list((Path(node.node.folder) / "incoming" / "3").glob("*.dcm"))) == 3
