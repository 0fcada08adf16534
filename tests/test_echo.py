"""``carina echo``: each destination is tried, what is wrong is named, and how deliveries are confirmed is said."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from called import called
from carina.testing.difficult_pacs import DifficultPacs
from carina.testing.ports import free_port


def carina(folder: Path, *words: str) -> CompletedProcess[str]:
    return called(*words, folder=folder)


def test_each_destination_is_tried(tmp_path: Path) -> None:
    pacs = DifficultPacs(commits=True)
    plain = DifficultPacs(answers_queries=False)
    (tmp_path / "carina.toml").write_text(
        f'[destinations.archive]\nkind = "dicom"\nhost = "127.0.0.1"\nport = {pacs.port}\nae_title = "A"\n'
        f"commitment = true\n"
        f'[destinations.asked]\nkind = "dicom"\nhost = "127.0.0.1"\nport = {pacs.port}\nae_title = "A"\n'
        f'[destinations.plain]\nkind = "dicom"\nhost = "127.0.0.1"\nport = {plain.port}\nae_title = "B"\n'
        f'[destinations.dead]\nkind = "dicom"\nhost = "127.0.0.1"\nport = {free_port()}\nae_title = "D"\n'
        f'[destinations.share]\nkind = "folder"\npath = "share"\n'
    )
    pacs.up()
    plain.up()
    try:
        every, some = carina(tmp_path, "echo"), carina(tmp_path, "echo", "share", "asked")
    finally:
        pacs.down()
        plain.down()
    assert every.returncode == 6
    assert every.stdout.splitlines() == [
        "archive: answers; what is sent there is confirmed by storage commitment.",
        "asked: answers; what is sent there is confirmed by query.",
        "plain: answers; what is sent there is confirmed by the status of its answer alone (it answers no queries).",
        "share: answers; what is sent there is confirmed by comparing the copy.",
    ]
    (line,) = every.stderr.splitlines()
    assert line.startswith("dead (D@127.0.0.1:") and line.endswith("[delivery.unreachable]")
    assert some.returncode == 0 and [line.split(":")[0] for line in some.stdout.splitlines()] == ["share", "asked"]


def test_a_peer_that_takes_queries_and_answers_none_is_found_out(tmp_path: Path) -> None:
    entity = AE(ae_title="STRICT")
    entity.add_supported_context(Verification)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    refusing = [(evt.EVT_C_FIND, lambda event: event.assoc.abort())]
    port = free_port()
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=refusing)
    (tmp_path / "carina.toml").write_text(
        f'[destinations.strict]\nkind = "dicom"\nhost = "127.0.0.1"\nport = {port}\nae_title = "STRICT"\n'
    )
    try:
        done = carina(tmp_path, "echo")
    finally:
        server.shutdown()
    assert done.returncode == 6 and not done.stdout
    assert done.stderr.startswith(f"strict (STRICT@127.0.0.1:{port}) did not answer what it has: ")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", "carina: no destination or source is there; known: none. Add it under [destinations] or [sources]."),
        ('[destinations.a]\nkind = "folder"\npath = "x"\n', "carina: no destination or source is called b; known: a."),
    ],
)
def test_a_destination_that_is_not_there_is_named(tmp_path: Path, settings: str, words: str) -> None:
    (tmp_path / "carina.toml").write_text(settings)
    done = carina(tmp_path, "echo", *(["b"] if settings else []))
    assert done.returncode == 4 and done.stderr.startswith(words)
