"""Certificates that sign themselves, for tests of TLS; the tests are skipped where nothing can make them."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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


CONFIG = """
[ca]
default_ca = here
[here]
database = index.txt
new_certs_dir = .
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
rand_serial = yes
[any]
commonName = supplied
"""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A certificate to make: who signs it, empty: itself; from which to which day it is valid, counted from now."""

    issuer: str = ""
    days: tuple[int, int] = (-1, 365)
    names: str = "DNS:localhost,IP:127.0.0.1"
    is_ca: bool = False


def authority(folder: Path, wanted: Mapping[str, Made]) -> Path:
    """Makes ``NAME.crt`` and ``NAME.key`` of every name, in their order; gives the folder."""
    program = shutil.which("openssl") or pytest.skip("openssl is not installed; on Debian: apt-get install openssl")

    def run(*words: str) -> None:
        subprocess.run([str(program), *words], check=True, capture_output=True, cwd=folder)

    (folder / "index.txt").write_text("")
    (folder / "ca.cnf").write_text(CONFIG)
    now = datetime.now(UTC)
    for name, made in wanted.items():
        added = f"subjectAltName={made.names}"
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        run("req", "-new", *curve, "-subj", f"/CN={name}", "-addext", added, "-keyout", f"{name}.key", "-out", "csr")
        begins, ends = (f"{now + timedelta(days=day):%Y%m%d%H%M%SZ}" for day in made.days)
        (folder / "ext").write_text(f"basicConstraints=CA:{str(made.is_ca).upper()}\n")
        signer = ("-cert", f"{made.issuer}.crt", "-keyfile", f"{made.issuer}.key")
        own = ("-selfsign", "-keyfile", f"{name}.key")
        dates = ("-startdate", begins, "-enddate", ends)
        how = ("-config", "ca.cnf", "-batch", "-notext", "-extfile", "ext")
        run("ca", *how, *dates, *(signer if made.issuer else own), "-in", "csr", "-out", f"{name}.crt")
    return folder


def pem_to_der(file: Path) -> bytes:
    """The first certificate of a file."""
    end = "-----END CERTIFICATE-----\n"
    return ssl.PEM_cert_to_DER_cert(file.read_text().partition(end)[0] + end)


SESSION: dict[str, Made] = {
    "root": Made(is_ca=True),
    "good": Made(issuer="root"),
    "expired": Made(issuer="root", days=(-40, -3)),
    "early": Made(issuer="root", days=(5, 50)),
    "soon": Made(issuer="root", days=(-60, 20)),
    "long": Made(issuer="root", days=(-1, 10_000)),
    "other": Made(issuer="root", names="DNS:other"),
    "stranger": Made(),
    "pinned": Made(days=(-40, -3)),
}
"""What tests of TLS share; ``pinned`` is trusted by itself, and has expired."""
