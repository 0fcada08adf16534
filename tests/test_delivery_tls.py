"""Delivery by TLS: Orthanc takes it from who shows a trusted certificate, and what is wrong is said in one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carina.config import DicomDestination
from carina.deliver.deliver import deliver_to, echo, proof_of
from carina.deliver.proof import Proof
from carina.errors import DeliveryFailed
from carina.testing.pacs import Pacs, memory_pacs, orthanc, orthanc_program
from certificates import self_signed
from delivery_objects import write_objects


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed certificates with their keys: of the PACS, of the node and of nobody that is known."""
    return self_signed(tmp_path_factory.mktemp("tls"), "pacs", "node", "stranger")


@pytest.fixture(scope="module")
def pacs(certificates: Path) -> Iterator[Pacs]:
    if orthanc_program() is None:
        pytest.skip("Orthanc is not installed")
    settings: dict[str, object] = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(certificates / "pacs.crt"),
        "DicomTlsPrivateKey": str(certificates / "pacs.key"),
        "DicomTlsTrustedCertificates": str(certificates / "node.crt"),
        "DicomTlsRemoteCertificateRequired": True,
    }
    with orthanc(settings=settings) as made:
        yield made


def to(pacs: Pacs, certificates: Path, *, trusted: str = "pacs", ours: str = "node", **more: Any) -> DicomDestination:
    fields: dict[str, Any] = {
        "host": pacs.host,
        "port": pacs.dicom_port,
        "ae_title": pacs.ae_title,
        "timeout_s": 60,
        "tls_trusted": str(certificates / f"{trusted}.crt") if trusted else "",
        "tls_certificate": str(certificates / f"{ours}.crt") if ours else "",
        "tls_key": str(certificates / f"{ours}.key") if ours else "",
        "tls_name": "localhost",
    }
    return DicomDestination(**{**fields, **more})


def test_orthanc_takes_objects_and_questions_by_tls(pacs: Pacs, certificates: Path, tmp_path: Path) -> None:
    peer = to(pacs, certificates)
    echo("PACS", peer)
    assert proof_of("PACS", peer) is Proof.QUERY
    deliver_to(write_objects(tmp_path), "PACS", peer)
    assert len(pacs.instances()) == 5


@pytest.mark.parametrize(
    "wrong", [{"trusted": ""}, {"trusted": "stranger"}, {"ours": "stranger"}, {"ours": ""}, {"tls_name": "other"}]
)
def test_who_is_not_trusted_is_not_delivered_to(pacs: Pacs, certificates: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(DeliveryFailed, match=r"PACS \(ORTHANC@127.0.0.1:\d+\) can't be reached"):
        echo("PACS", to(pacs, certificates, **wrong))


def test_files_that_are_none_are_named(certificates: Path, tmp_path: Path) -> None:
    (tmp_path / "x.crt").write_text("no certificate")
    with memory_pacs() as plain:
        for file, words in {"x.crt": "holds no certificate", "gone.crt": "is not there"}.items():
            with pytest.raises(DeliveryFailed, match=rf"tls_trusted: '\S+{file}' {words}"):
                echo("PACS", to(plain, certificates, ours="", tls_trusted=str(tmp_path / file)))
        with pytest.raises(DeliveryFailed, match="it speaks no TLS on this port"):
            echo("PACS", to(plain, certificates, timeout_s=2))
