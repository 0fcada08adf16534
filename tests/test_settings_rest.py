"""``carina serve --check`` of settings with mistakes of both kinds: of keys by themselves, and across keys."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from called import called
from carina.config import Settings, sound_settings

PROGRAM = Path(sys.executable).with_name("carina")

MISTAKEN = """
[runtime]
speed = 3
[web]
port = "x"
host = "0.0.0.0"
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
destinations = ["NOWHERE", "PACS", "FAX"]
pipelines = ["nothing"]
[destinations.PACS]
kind = "dicom"
host = "h"
port = 99999
ae_title = "P"
[destinations.FAX]
kind = "fax"
[destinations.share]
kind = "folder"
[models]
lung = "no-such"
folders = [1]
"""


def test_mistakes_of_keys_and_across_keys_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "carina.toml").write_text(MISTAKEN)
    done = subprocess.run([PROGRAM, "serve", "--check"], cwd=tmp_path, capture_output=True, text=True)
    keys = {re.sub(r"^(carina: )?carina\.toml:\d+: ", "", line).partition(": ")[0] for line in done.stderr.splitlines()}
    assert done.returncode == 4
    assert keys == {
        "runtime.speed",
        "web.port",
        "web.host",
        "web.names",
        "destinations.PACS.port",
        "destinations.FAX.kind",
        "destinations.share",
        "models.folders",
        "models.lung",
        "sources.scanner.destinations",
        "sources.scanner.pipelines.0",
    }
    assert "'NOWHERE'" in done.stderr and "'PACS'" not in done.stderr and "'FAX'" not in done.stderr


@pytest.mark.parametrize("text", ["destinations = 1", "[web]\nport = [1]", "[sources.a]\nkind = 1", "[x.y]\nz = 1"])
def test_what_is_left_of_any_mistaken_settings_is_sound(tmp_path: Path, text: str) -> None:
    file = tmp_path / "carina.toml"
    file.write_text(text)
    left, gone = sound_settings(file, {})
    assert left == Settings() and gone


def test_a_destination_with_a_mistake_is_known_by_its_name(tmp_path: Path) -> None:
    told = checked(tmp_path, MISTAKEN.replace('"NOWHERE"', '"NOWHERE", "ELSEWHERE"'))
    (line,) = [one for one in told.splitlines() if "'ELSEWHERE'" in one]
    assert {"share", "PACS", "FAX"} == set(line.rpartition("known: ")[2].rstrip(".").split(", "))


def test_a_folder_where_no_files_are_kept_is_said_so(tmp_path: Path) -> None:
    told = checked(tmp_path, '[node]\nfolder = "/proc/carina"\n')
    assert "/proc is on a file system that keeps no files; choose a folder on a disk" in told
    assert "must stay free" not in told


def checked(folder: Path, text: str) -> str:
    (folder / "carina.toml").write_text(text)
    return called("serve", "--check", folder=folder).stderr
