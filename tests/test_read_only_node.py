"""A node on a file system that can't be written: each command says which folder it is, in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from carina.config import NodeSettings, Settings
from carina.jobs.places import open_node
from carina.testing.ports import free_port

PROGRAM = str(Path(sys.executable).with_name("carina"))
BACKUP = "node: can't be written (Read-only file system), and a backup holds a lock in the node's folder"
DATABASE = "node: can't be written (Read-only file system); the node's database lies there"
CHECK = "carina.toml:2: node.folder: node/incoming: can't be written (Read-only file system)"


def can_mount() -> bool:
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="only who may mount has a file system that can't be written")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("backup ../saved", BACKUP),
        ("jobs list", DATABASE),
        ("arrivals list", DATABASE),
        ("serve --check", CHECK),
    ],
)
def test_the_folder_of_the_node_is_named(tmp_path: Path, command: str, words: str) -> None:
    here = tmp_path / "work"
    here.mkdir()
    (here / "carina.toml").write_text(
        f'[node]\nfolder = "node"\nfree_gb = 0\n[dicom]\nport = {free_port()}\n[web]\nport = {free_port()}\n'
    )
    open_node(Settings(node=NodeSettings(folder=str(here / "node")))).dispose()
    mounted = f"mount --bind node node && mount -o remount,ro,bind node && exec {PROGRAM} {command}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", mounted], cwd=here, capture_output=True, text=True)
    assert done.returncode == 4, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1 and "sqlalche" not in done.stderr and "saved" not in done.stderr
