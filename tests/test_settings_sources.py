"""What of sources doesn't fit together: a name twice, one PACS under two names, a word that means something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from carina.config import load_settings
from carina.service.check import start_mistakes
from carina.service.check_passing import passing_mistakes
from carina.service.check_sources import source_mistakes

SOURCE = '[sources.A]\nkind = "dicom"\nae_title = "X"\n{0}\n'
PACS = '[destinations.{0}]\nkind = "dicom"\nhost = "{1}"\nport = 104\nae_title = "PACS"\n'
WEB = '[destinations.{0}]\nkind = "dicomweb"\nurl = "{1}"\n'
BOTH = SOURCE.format('destinations = ["P", "Q"]')


def said(tmp_path: Path, text: str) -> list[str]:
    """The mistakes, each with its key."""
    file = tmp_path / "carina.toml"
    file.write_text(text)
    return [f"{'.'.join(one.key)}: {one.words}" for one in source_mistakes(load_settings(file, {}))]


@pytest.mark.parametrize(
    ("key", "names", "name"),
    [
        ("pipelines", '"default", "default"', "default"),
        ("pipelines", '"a.yaml", "default", "./a.yaml"', "a.yaml"),
        ("destinations", '"P", "P"', "P"),
        ("destinations", '"sender", "P", "sender"', "sender"),
    ],
)
def test_a_name_twice_in_a_list_of_a_source_is_a_mistake(tmp_path: Path, key: str, names: str, name: str) -> None:
    text = SOURCE.format(f"{key} = [{names}]") + PACS.format("P", "pacs")
    assert said(tmp_path, text) == [f"sources.A.{key}: {name!r} is in it 2 times; expected once"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("localhost", "127.0.0.1"),
        ("LOCALHOST", "::1"),
        ("pacs.example", "PACS.example."),
        ("2001:db8::1", "2001:DB8:0::1"),
    ],
)
def test_two_spellings_of_a_host_are_one_pacs(tmp_path: Path, one: str, other: str) -> None:
    found = said(tmp_path, BOTH + PACS.format("P", one) + PACS.format("Q", other))
    assert [words.partition(" are both ")[0] for words in found] == ["sources.A.destinations: P and Q"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://localhost/dicom-web", "http://127.0.0.1:80/dicom-web/"),
        ("https://PACS.example/dicom-web", "https://pacs.example:443/dicom-web"),
        ("http://[::1]:8042/dicom-web", "http://localhost:8042/dicom-web"),
    ],
)
def test_two_spellings_of_an_address_are_one_server(tmp_path: Path, one: str, other: str) -> None:
    found = said(tmp_path, BOTH + WEB.format("P", one) + WEB.format("Q", other))
    assert [words.partition(" are both ")[0] for words in found] == ["sources.A.destinations: P and Q"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("http://a:8042/x", "http://a/x"), ("https://a/x", "http://a/x"), ("https://a/x", "https://a/X")],
)
def test_other_addresses_are_other_servers(tmp_path: Path, one: str, other: str) -> None:
    assert said(tmp_path, BOTH + WEB.format("P", one) + WEB.format("Q", other)) == []


def test_one_pacs_to_which_results_go_back_under_two_names_is_a_mistake(tmp_path: Path) -> None:
    text = SOURCE.format('destinations = ["sender"]') + PACS.format("P", "pacs") + PACS.format("Q", "PACS")
    (found,) = said(tmp_path, text)
    assert found.startswith(
        "sources.A.destinations: P and Q are both PACS@pacs:104: what both take is sent there twice"
    )


def rests(tmp_path: Path, text: str) -> list[str]:
    """What the log of a node that starts says of its sources' destinations, once it has seen that it does start."""
    file = tmp_path / "carina.toml"
    file.write_text(text)
    settings = load_settings(file, {})
    at_start, later = start_mistakes(settings, is_running=True), passing_mistakes(settings)
    assert [one for one in at_start if one.key[0] == "sources"] == []
    return [f"{'.'.join(one.key)}: {one.words}" for one in later if one.key[0] == "sources" and one.key[2] != "path"]


def test_two_ports_of_one_host_that_are_both_the_sender_are_told_by_a_node_that_starts(tmp_path: Path) -> None:
    peers = PACS.format("P", "pacs") + PACS.format("Q", "PACS").replace("port = 104", "port = 105")
    (found,) = rests(tmp_path, SOURCE.format('destinations = ["sender"]') + peers)
    words = "P and Q are both PACS at one host: which of them is `sender` can't be told, and nothing is sent back to"
    assert found.startswith(f"sources.A.destinations: {words} either; give one another ae_title")
    assert rests(tmp_path, SOURCE.format('destinations = ["P"]') + peers) == []


@pytest.mark.parametrize("ports", [(104,), (104, 105), (104, 104)])
def test_a_watched_folder_has_no_sender_whatever_destinations_there_are(tmp_path: Path, ports: tuple[int, ...]) -> None:
    peers = [PACS.format(f"P{n}", "pacs").replace("port = 104", f"port = {port}") for n, port in enumerate(ports)]
    text = f'[sources.A]\nkind = "folder"\npath = "{tmp_path}"\ndestinations = ["sender"]\n'
    (found,) = rests(tmp_path, text + "".join(peers))
    words = "what is put into a watched folder has no AE title that called, so that nothing goes to `sender`"
    assert found == f"sources.A.destinations: {words}; name the destination instead"


def test_no_destination_is_called_sender(tmp_path: Path) -> None:
    found = said(tmp_path, SOURCE.format('destinations = ["sender"]') + PACS.format("sender", "pacs"))
    words = "is what a source's `destinations` call whoever sent the series; give this one another name"
    assert found == [f"destinations.sender: {words}"]
