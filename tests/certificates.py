"""Certificates that sign themselves, for tests of TLS; the tests are skipped where nothing can make them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def self_signed(folder: Path, *names: str) -> Path:
    """Makes ``NAME.crt`` and ``NAME.key`` of this machine for each name; gives the folder."""
    program = shutil.which("openssl") or pytest.skip("openssl is not installed; on Debian: apt-get install openssl")
    for name in names:
        made = [str(program), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={name}"]
        made += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        files = ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt"]
        subprocess.run([*made, *files], check=True, capture_output=True)
    return folder
