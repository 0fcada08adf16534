"""The conformance statement is what the code does: the committed page, and the tables against a running listener."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import conformance
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from carina.dicom.syntaxes import ENCAPSULATED, NATIVE
from carina.receive import listener
from carina.receive.transport import LARGEST_PDU
from received_files import new_store


def test_the_committed_page_is_the_generated_one() -> None:
    committed = conformance.PAGE.read_text(encoding="utf-8")
    assert committed == conformance.page().rstrip("\n") + "\n", "run scripts/conformance.py and commit the page"


def test_a_change_of_a_table_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    before = conformance.page()
    monkeypatch.setattr(conformance, "LARGEST_PDU", 4711)
    assert conformance.page() == before.replace("131072 bytes", "4711 bytes")


def test_every_syntax_that_is_read_has_a_row() -> None:
    text = conformance.page()
    for uid in (*NATIVE, *ENCAPSULATED):
        assert text.count(f"| `{uid}` |") == 1
    assert text.count("| `ISO_IR 192` |") == text.count("| `ISO 2022 IR 87` |") == text.count("| `GB18030` |") == 1


def test_the_listener_supports_the_classes_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def kept(ae_title: str) -> Any:
        made.append(AE(ae_title=ae_title))
        return made[-1]

    monkeypatch.setattr(listener, "AE", kept)
    listening = listener.DicomListener(new_store(tmp_path))
    listening.start()
    listening.stop()
    contexts = {context.abstract_syntax: context for context in made[0].supported_contexts}
    assert set(contexts) == {Verification, StorageCommitmentPushModel}
    assert tuple(sorted(contexts[StorageCommitmentPushModel].transfer_syntax)) == conformance.PLAIN
    assert made[0].maximum_pdu_size == LARGEST_PDU
