"""Series from a watched folder: none is run in part while the rest of it lies there, none is spoiled by half a file."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import msgspec
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1

from carina.config import FolderSource
from carina.receive.complete import complete_arrivals
from carina.receive.folder import FileFate, WatchedFolder
from carina.receive.instance import Arriving
from carina.receive.store import Accepted, SentBy
from received_files import arrival_states, new_store, small_ct


class Inbox:
    """A watched folder whose series are complete as soon as nothing holds them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now_s = folder / "inbox", 0.0
        self.folder.mkdir()
        self.store = new_store(folder)
        source = FolderSource(path=str(self.folder), quiet_s=10)
        self.settings = msgspec.structs.replace(
            self.store.settings, sources={"inbox": msgspec.structs.replace(source, quiet_s=0.0)}
        )
        self.watching = WatchedFolder("inbox", source, self.store, clock_s=lambda: self.now_s)

    def put(self, name: str, content: bytes) -> None:
        """Write a file below the folder."""
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_bytes(content)

    def look(self) -> dict[FileFate, int]:
        """Look after the quiet time."""
        self.now_s += 10
        return dict(self.watching.look())

    def settle(self) -> int:
        """Settle what is complete now."""
        return complete_arrivals(self.settings, self.store.engine, self.store.untaken)


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    made = Inbox(tmp_path)
    yield made
    made.store.engine.dispose()


def test_no_series_is_complete_while_files_are_taken_that_were_there(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        series = "1.2.3" if number % 4 == 0 else f"1.2.3.{number}"  # the first, the fifth, the last
        inbox.put(f"d{number}/IM", small_ct(f"1.2.9.{number}", series))
    accept, settled = inbox.store.accept, []

    def slowly(arriving: Arriving, origin: SentBy) -> Accepted:
        settled.append(inbox.settle())
        return accept(arriving, origin)

    monkeypatch.setattr(inbox.store, "accept", slowly)
    assert inbox.look() == {}
    assert inbox.look() == {FileFate.NEW: 9}
    assert settled == [0] * 9
    assert inbox.settle() == 7


def test_a_series_waits_for_what_was_seen_beside_it_and_was_not_quiet_yet(inbox: Inbox) -> None:
    inbox.put("IM1", small_ct("1.2.9.1"))
    inbox.look()
    inbox.put("IM2", small_ct("1.2.9.2"))
    inbox.now_s += 5
    inbox.watching.look()
    inbox.now_s += 5
    assert inbox.watching.look() == {FileFate.NEW: 1}
    assert inbox.settle() == 0
    assert inbox.look() == {FileFate.NEW: 1}
    assert inbox.settle() == 1


def test_files_that_come_without_end_or_can_not_be_read_hold_no_series(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox.put("IM", small_ct())
    inbox.put("closed", b"")
    read = WatchedFolder._accept

    def denied(self: WatchedFolder, file: Path, form: object) -> FileFate:
        if file.name == "closed":
            raise PermissionError(13, "Permission denied")
        return read(self, file, form)  # type: ignore[arg-type]

    monkeypatch.setattr(WatchedFolder, "_accept", denied)
    for look in range(4):
        for number in range(3):
            inbox.put(f"other{look}/{number}", small_ct(f"1.2.8.{look}.{number}", f"1.2.7.{look}"))
        inbox.put("log", b"grows" * (look + 1))
        inbox.look()
        inbox.settle()
    assert "quarantined" in arrival_states(inbox.store.engine)[:1]


def test_a_series_waits_for_files_that_a_full_disk_keeps_waiting(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        inbox.put(f"IM{number}", small_ct(f"1.2.9.{number}"))
    inbox.look()
    node = inbox.store.settings.node
    accept = inbox.store.accept

    def then_full(arriving: Arriving, origin: SentBy) -> Accepted:
        became = accept(arriving, origin)
        full = msgspec.structs.replace(node, free_gb=1e9)
        inbox.store.settings = msgspec.structs.replace(inbox.store.settings, node=full)
        return became

    monkeypatch.setattr(inbox.store, "accept", then_full)
    assert inbox.look() == {FileFate.NEW: 1}
    inbox.look()
    assert inbox.settle() == 0
    monkeypatch.undo()
    inbox.store.settings = msgspec.structs.replace(inbox.store.settings, node=node)
    assert inbox.look() == {FileFate.NEW: 2}
    assert inbox.settle() == 1


def encapsulated_ct() -> bytes:
    dataset = dcmread(BytesIO(small_ct("1.2.3.1")))
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    written = BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


WHOLE = small_ct("1.2.3.1")
CUTS = {
    "at the pixels": (WHOLE, WHOLE.rfind(b"\xe0\x7f\x10\x00"), "it ends before its pixel data"),
    "in the header": (WHOLE, WHOLE.rfind(b"\x28\x00\x10\x00"), "it ends before its pixel data"),
    "at the delimiter": (encapsulated_ct(), -8, "no delimiter follows its pixel data (PS3.5 A.4)"),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_file_that_a_stalled_writer_left_without_its_end_spoils_nothing(
    inbox: Inbox, cut: str, caplog: pytest.LogCaptureFixture
) -> None:
    content, end, why = CUTS[cut]
    inbox.put("IM1", content[:end])
    inbox.put("IM2", small_ct("1.2.3.2"))
    inbox.look()
    assert inbox.look() == {FileFate.REFUSED: 1, FileFate.NEW: 1}
    assert [one for one in caplog.messages if "is truncated" in one and why in one]
    inbox.put("IM1", content)
    inbox.look()
    assert inbox.look() == {FileFate.NEW: 1}
    assert "apart" not in arrival_states(inbox.store.engine)
