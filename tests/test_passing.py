"""What may pass by itself stops no start: it is told by the check, the log and health, and over once it has passed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from called import called
from carina.config import Settings, load_settings
from carina.service.check import check_across, start_mistakes
from carina.service.check_passing import look_around, passing_mistakes
from carina.service.health import _resting
from carina.service.node import RunningNode
from carina.testing.ports import free_port

AWAY = {
    "node.free_gb": ("free_gb = 1e9", "node"),
    "node.submit_below": ('submit_below = ["mount/submit"]', "node"),
    "sources.watched.path": ('kind = "folder"\npath = "mount/watched"', "sources.watched"),
    "destinations.share.path": ('kind = "folder"\npath = "mount/share/results"', "destinations.share"),
    "destinations.pacs.tls_trusted": (
        'kind = "dicom"\nhost = "pacs"\nport = 104\nae_title = "P"\ntls_trusted = "mount/pacs.pem"',
        "destinations.pacs",
    ),
}
"""Each thing that lies outside the settings, by its key, where it is away."""

WRONG = {
    "retention.free_gb": "[retention]\nfree_gb = 0.5\n[node]\nfree_gb = 1.0\n",
    "node.folder": '[node]\nfolder = "/dev/null/node"\n',
    "node.submit_below": '[node]\nsubmit_below = ["/"]\n',
    "web.host": '[web]\nhost = "0.0.0.0"\nnames = ["n"]\n',
    "dicom.tls.certificate": '[dicom.tls]\ncertificate = "no.crt"\nkey = "no.key"\n',
    "destinations.d.tls_trusted": '[destinations.d]\nkind = "dicom"\nhost = "h"\nport = 104\nae_title = "P"\n'
    'tls_certificate = "no.crt"\n',
    "sources.s.destinations": '[sources.s]\nkind = "dicom"\nae_title = "S"\ndestinations = ["nobody"]\n',
    "notices.secret": '[notices]\nurl = "https://h"\n',
}
"""Mistakes of the settings themselves, one of each check that has no port to try."""


def settings_of(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Settings:
    monkeypatch.chdir(folder)
    file = folder / "carina.toml"
    file.write_text(text)
    return load_settings(file, {"CARINA_WEB_PORT": str(free_port()), "CARINA_DICOM_PORT": str(free_port())})


def everything_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that are right, of a day on which nothing is there; ``mount`` is a file, so that nobody makes it."""
    tables: dict[str, list[str]] = {}
    for line, table in AWAY.values():
        tables.setdefault(table, []).append(line)
    (folder / "mount").touch()
    text = "".join(f"[{table}]\n" + "\n".join(lines) + "\n" for table, lines in tables.items())
    return settings_of(folder, monkeypatch, text)


@pytest.mark.parametrize("key", WRONG)
def test_a_mistake_of_the_settings_stops_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    settings = settings_of(tmp_path, monkeypatch, WRONG[key])
    assert key in {".".join(one.key) for one in start_mistakes(settings)}
    assert key not in {".".join(one.key) for one in passing_mistakes(settings)}


TLS = {"dicom.tls": ("certificate", "key", "trusted"), "web.tls": ("certificate", "key", "trusted")}


@pytest.mark.parametrize("table", TLS)
def test_a_file_without_which_a_listener_can_not_listen_stops_a_start_by_key_and_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    named = {part: f"mount/{part}.pem" for part in TLS[table]}
    text = f"[{table}]\n" + "".join(f'{part} = "{file}"\n' for part, file in named.items())
    settings = settings_of(tmp_path, monkeypatch, text)
    found = {".".join(one.key): one.words for one in start_mistakes(settings)}
    assert found.keys() == {f"{table}.{part}" for part in named}
    assert all(f"{file!r} is not there" in found[f"{table}.{part}"] for part, file in named.items())
    assert not passing_mistakes(settings)


def test_what_is_away_stops_no_start_and_is_a_mistake_to_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = everything_away(tmp_path, monkeypatch)
    assert start_mistakes(settings) == []
    assert {".".join(one.key) for one in check_across(settings)} == AWAY.keys()
    begun: list[Settings] = []
    monkeypatch.setattr("carina.service.serve.run_node", begun.append)
    monkeypatch.setattr("carina.service.logs.log_to", lambda: None)
    for name in ("WEB", "DICOM"):
        monkeypatch.setenv(f"CARINA_{name}_PORT", str(free_port()))
    assert called("serve", folder=tmp_path).returncode == 0
    assert len(begun) == 1
    assert called("serve", "--check", folder=tmp_path).returncode == 4


def test_what_is_away_is_told_once_and_what_needed_it_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "carina")
    node = RunningNode(settings=everything_away(tmp_path, monkeypatch), engine=create_engine("sqlite://"))
    look_around(node.settings, node.resting)
    look_around(node.settings, node.resting)
    assert sorted(getattr(one, "key") for one in caplog.records) == sorted(AWAY)  # noqa: B009 - a field of ours
    told = [line.partition(": ")[0] for line in _resting(node)]
    assert told == ["node.submit_below", "destinations.share.path"]
    assert not any(str(tmp_path) in line or "mount" in line for line in _resting(node))
    caplog.clear()
    (tmp_path / "mount").unlink()
    for name in ("submit", "watched"):
        (tmp_path / "mount" / name).mkdir(parents=True)
    look_around(node.settings, node.resting)
    assert {".".join(one.key) for one in node.resting} == {"node.free_gb", "destinations.pacs.tls_trusted"}
    assert {one.message for one in caplog.records} == {"what needed this works again"}
    assert _resting(node) == []
