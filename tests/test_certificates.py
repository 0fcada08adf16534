"""Files of TLS, wherever the settings name them: what is wrong with each is said with its key, and nobody is asked."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from sqlalchemy import Engine

from carina.certificates import validity
from carina.cli.serve import serve
from carina.config import DicomDestination, DicomSettings, DicomwebDestination, NodeSettings, Settings
from carina.deliver.deliver import echo
from carina.errors import BadConfig, DeliveryFailed
from carina.receive.tls import listener_files, tls_context
from carina.service.check_tls import date_remarks, ending_remarks, lapsed_mistakes, tls_mistakes, tls_places
from carina.service.health import readiness
from carina.service.node import RunningNode
from carina.service.parts import parts_of
from carina.web_settings import TlsSettings, WebSettings
from certificates import pem_to_der

PLACES = ("dicom.tls.", "web.tls.", "destinations.PACS.tls_", "destinations.WEB.tls_")
CERTIFICATE = "expected a certificate in PEM (-----BEGIN CERTIFICATE-----)"
KEY = "expected a private key in PEM (-----BEGIN PRIVATE KEY-----)"
TRUSTED = "expected certificates in PEM (-----BEGIN CERTIFICATE-----)"

FAULTS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "none": ({}, {}),
    "missing": (
        {"certificate": "gone", "key": "gone", "trusted": "gone"},
        {
            "certificate": f"'gone' is not there; {CERTIFICATE}",
            "key": f"'gone' is not there; {KEY}",
            "trusted": f"'gone' is not there; {TRUSTED}",
        },
    ),
    "no file": ({"certificate": "."}, {"certificate": f"'.' is no file; {CERTIFICATE}"}),
    "below a file": ({"key": "junk/x"}, {"key": f"'junk/x' can't be read (Not a directory); {KEY}"}),
    "no PEM": (
        {"certificate": "junk", "key": "junk", "trusted": "junk"},
        {
            "certificate": f"'junk' holds no certificate; {CERTIFICATE}",
            "key": f"'junk' holds no private key; {KEY}",
            "trusted": f"'junk' holds no certificate; {TRUSTED}",
        },
    ),
    "one for the other": (
        {"certificate": "good.key", "key": "good.crt", "trusted": "good.key"},
        {
            "certificate": f"'good.key' holds a private key and no certificate; {CERTIFICATE}",
            "key": f"'good.crt' holds a certificate and no private key; {KEY}",
            "trusted": f"'good.key' holds a private key and no certificate; {TRUSTED}",
        },
    ),
    "binary": (
        {"trusted": "der"},
        {"trusted": f"'der' is binary (DER or PKCS #12); {TRUSTED}, as openssl x509, pkey o"},
    ),
    "damaged": ({"trusted": "damaged.crt"}, {"trusted": f"'damaged.crt' holds a damaged certificate; {TRUSTED}"}),
    "damaged key": ({"key": "damaged.key"}, {"key": f"'damaged.key' holds a damaged private key; {KEY}"}),
    "no pair": (
        {"key": "other.key"},
        {"key": "the key in 'other.key' does not belong to the certificate in 'good.crt'; expected the one that it w"},
    ),
    "encrypted": (
        {"key": "hidden.key"},
        {
            "key": "the key in 'hidden.key' is encrypted; expected one without a passphrase, as openssl pkey -in "
            "hidden.key -out NEW.key writes it"
        },
    ),
    "encrypted as of old": ({"key": "old.key"}, {"key": "the key in 'old.key' is encrypted; expected one without a "}),
    "encrypted beside": (
        {"certificate": "junk", "key": "hidden.key"},
        {"certificate": "'junk' holds no certificate", "key": "the key in 'hidden.key' is encrypted"},
    ),
}
"""Which files take the place of the right ones, and what is said of each."""


@pytest.fixture(scope="module")
def folder(tls_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificates of the session, and files beside them that are none."""
    made = Path(shutil.copytree(tls_files, tmp_path_factory.mktemp("files") / "tls"))
    (made / "junk").write_text("no certificate\n")
    (made / "der").write_bytes(pem_to_der(made / "good.crt"))
    for name in ("good.crt", "good.key"):
        lines = (made / name).read_text().splitlines()
        lines[1] = "A" * len(lines[1])
        (made / f"damaged{Path(name).suffix}").write_text("\n".join(lines))
    (made / "lapsed.crt").write_text((made / "expired.crt").read_text() + (made / "early.crt").read_text())
    (made / "chain.crt").write_text((made / "good.crt").read_text() + (made / "expired.crt").read_text())
    (made / "both.pem").write_text((made / "good.crt").read_text() + (made / "good.key").read_text())
    hide = ("openssl", "pkey", "-in", "good.key", "-aes256", "-passout", "pass:secret", "-out")
    subprocess.run([*hide, "hidden.key"], cwd=made, check=True)
    subprocess.run([*hide, "old.key", "-traditional"], cwd=made, check=True)
    return made


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    return Settings(node=NodeSettings(folder=str(tmp_path / "node"), database=f"sqlite:///{tmp_path}/node.sqlite"))


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def settings(place: str, **named: str) -> Settings:
    """Settings that name files in one place alone."""
    files: dict[str, Any] = {"certificate": "good.crt", "key": "good.key", "trusted": "root.crt"} | named
    own = {f"tls_{key}": file for key, file in files.items()}
    match place.split(".")[:2]:
        case ["dicom", _]:
            return Settings(dicom=DicomSettings(tls=TlsSettings(**files)))
        case ["web", _]:
            return Settings(web=WebSettings(tls=TlsSettings(**files)))
        case [_, "PACS"]:
            return Settings(destinations={"PACS": DicomDestination(host="h", port=104, ae_title="P", **own)})
    return Settings(destinations={"WEB": DicomwebDestination(url="https://h/x", tls_trusted=files["trusted"])})


def of_place(place: str, found: dict[str, str]) -> dict[str, str]:
    """What is said there: a DICOMweb destination has no certificate of ours."""
    return {f"{place}{part}": words for part, words in found.items() if "WEB" not in place or part == "trusted"}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_file_that_is_wrong_is_named_with_its_key(here: Path, fault: str) -> None:
    named, words = FAULTS[fault]
    for place in PLACES:
        told = {".".join(one.key): one.words for one in tls_mistakes(settings(place, **named))}
        expected = of_place(place, words)
        assert told.keys() == expected.keys()
        for key, begins in expected.items():
            assert told[key].startswith(begins)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "none"])
def test_who_would_use_a_wrong_file_says_the_same(here: Path, fault: str) -> None:
    """Listeners and destinations alike; and nobody is asked for a passphrase, which would never return here."""
    named, words = FAULTS[fault]
    for place in PLACES:
        for key, told in list(of_place(place, words).items())[:1]:
            said = re.escape(told.partition(";")[0])
            wanted = settings(place, **named)
            for name, peer in wanted.destinations.items():
                with pytest.raises(DeliveryFailed, match=rf"can't be reached: {key.split('.')[-1]}: {said}\. E"):
                    echo(name, peer)
            for tls in filter(None, (wanted.dicom.tls, wanted.web.tls)):
                with pytest.raises(BadConfig, match=rf"^{re.escape(key)}: {said}; expected .*\.$"):
                    tls_context(listener_files(place.split(".")[0], tls))


def test_a_key_may_lie_beside_its_certificate(here: Path) -> None:
    place = "destinations.PACS.tls_"
    assert not list(tls_mistakes(settings(place, certificate="both.pem", key="")))
    (lacks,) = tls_mistakes(settings(place, key=""))
    assert lacks.words.startswith("'good.crt' holds a certificate and no private key")
    (alone,) = tls_mistakes(settings(place, certificate=""))
    assert alone.words == "is empty, and a key is given; name the certificate as well"


def day(file: str, *, begins: bool = False) -> str:
    """A date of a file's first certificate, as it is told."""
    dates = validity(pem_to_der(Path(file)))
    return f"{dates.begins if begins else dates.ends:%Y-%m-%d %H:%M} UTC"


NOW = datetime.now(UTC)


@pytest.mark.parametrize("place", PLACES)
def test_what_nobody_takes_now_is_a_mistake_of_the_check_alone(here: Path, place: str) -> None:
    """A node with it starts: what needs it not works all the same."""
    old = settings(place, certificate="expired.crt", key="expired.key", trusted="expired.crt")
    ended = f"'expired.crt' expired on {day('expired.crt')}"
    said = of_place(place, {"certificate": ended, "trusted": ended})
    assert not list(tls_mistakes(old))
    assert not list(ending_remarks(old, NOW))
    for told in (
        [f"{'.'.join(one.key)}: {one.words}" for one in lapsed_mistakes(old, NOW)],
        list(date_remarks(old, NOW)),
    ):
        assert [one.partition(";")[0] for one in told] == [f"{key}: {words}" for key, words in said.items()]
        assert all(("start the node again" in one) == ("destinations" not in place) for one in told)
    early = settings(place, certificate="early.crt", key="early.key", trusted="lapsed.crt")
    begins = f"is not valid before {day('early.crt', begins=True)}"
    said = of_place(place, {"certificate": f"'early.crt' {begins}", "trusted": f"'lapsed.crt' {begins}, the last of 2"})
    assert [one.words.partition(";")[0] for one in lapsed_mistakes(early, NOW)] == list(said.values())


@pytest.mark.parametrize("place", PLACES)
def test_what_ends_within_thirty_days_is_said(here: Path, place: str) -> None:
    soon = settings(place, certificate="soon.crt", key="soon.key", trusted="soon.crt")
    ends = f"'soon.crt' expires on {day('soon.crt')}"
    said = of_place(place, {"certificate": f"{ends}; have a new", "trusted": f"{ends}; add what"})
    assert not list(lapsed_mistakes(soon, NOW))
    for told, words in zip(ending_remarks(soon, NOW), said.items(), strict=True):
        assert told.startswith(": ".join(words))
    assert not list(date_remarks(soon, NOW - timedelta(days=11)))
    chained = settings(place, certificate="chain.crt")
    said = of_place(place, {"certificate": f"'chain.crt', its certificate 2 of 2, expired on {day('expired.crt')}"})
    assert [one.partition(";")[0] for one in date_remarks(chained, NOW)] == [": ".join(one) for one in said.items()]


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("expired", 4, r":8: web\.tls\.certificate: 'expired\.crt' expired on "),
        ("soon", 0, r"no mistakes; .*\nweb\.tls\.certificate: 'soon\.crt' expires on "),
    ],
)
def test_the_check_names_them(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int, words: str
) -> None:
    monkeypatch.setattr("carina.service.check_contents.check_contents", lambda settings: [])
    monkeypatch.setattr("carina.service.check._ports", lambda settings: iter(()))
    file, table = tmp_path / "carina.toml", "[node]\nfree_gb = 0\n[web]\nport = 2\n[dicom]\nport = 1\n[web.tls]\n"
    file.write_text(f'{table}certificate = "{name}.crt"\nkey = "{name}.key"\n')
    done = CliRunner().invoke(serve, ["--check", "--config", str(file)])
    assert re.search(words, f"{done.output}{done.exception}")
    assert getattr(done.exception, "exit_code", 0) == code


def test_a_running_node_logs_them(here: Path, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    old = settings("web.tls.", certificate="expired.crt", key="expired.key")
    node = RunningNode(settings=old, engine=engine)
    (part,) = (one for one in parts_of(node) if one.name == "certificates")
    with caplog.at_level(logging.WARNING):
        part.start()
        while not caplog.records:
            assert part.status.state == "running"
        node.stop.set()
        assert part.join(60)
    (told,) = (getattr(one, "remark", "") for one in caplog.records)
    assert told.startswith("web.tls.certificate: 'expired.crt' expired on ")


def running(wanted: Settings, engine: Engine, folder: Path) -> RunningNode:
    wanted = msgspec.structs.replace(wanted, node=NodeSettings(folder=str(folder), free_gb=0))
    return RunningNode(settings=wanted, engine=engine)


def of_tls(node: RunningNode) -> tuple[list[str], list[str]]:
    """What is said of TLS: what doesn't work, and what soon won't."""
    seen = readiness(node)
    assert seen.troubles[0] == "the node is starting"
    return list(seen.troubles[1:]), list(seen.warnings)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("name", "ends"), [("expired", "expired on"), ("soon", "expires on")])
def test_health_tells_what_nobody_takes_and_warns_of_what_ends_soon(
    here: Path, tmp_path: Path, engine: Engine, place: str, name: str, ends: str
) -> None:
    """By the name of the file, and not where it lies: strangers may ask too."""
    files = {"certificate": f"{here}/{name}.crt", "key": f"{here}/{name}.key", "trusted": f"{here}/{name}.crt"}
    node = running(settings(place, **files), engine, tmp_path)
    said = of_place(place, dict.fromkeys(("certificate", "trusted"), f"'{name}.crt' {ends} {day(f'{name}.crt')}"))
    told = of_tls(node)
    assert [one.partition(";")[0] for one in told[name == "soon"]] == [f"{key}: {words}" for key, words in said.items()]
    assert not told[name != "soon"]
    strangers = told
    if "destinations" in place:
        hidden = (
            "TLS to a destination that is not shown to you does not work; whoever sees the whole node is told which"
        )
        strangers = ([hidden] if name == "expired" else [], [])
    assert of_tls(node.seen_in(frozenset())) == strangers


@pytest.mark.parametrize("place", PLACES[:3])
def test_health_tells_of_files_that_can_not_be_used(here: Path, tmp_path: Path, engine: Engine, place: str) -> None:
    """A destination reads them whenever it connects; a listener has done so, and warns of its next start."""
    told = [f"{place}trusted: 'gone' is not there; {TRUSTED}"]
    expected = (told, []) if "PACS" in place else ([], told)
    assert of_tls(running(settings(place, trusted=f"{here}/gone"), engine, tmp_path)) == expected


def test_health_takes_a_certificate_from_the_second_on_in_which_it_was_made(
    here: Path, tmp_path: Path, engine: Engine
) -> None:
    begins = validity(pem_to_der(here / "good.crt")).begins
    node = running(settings("web.tls.", certificate="good.crt", trusted=""), engine, tmp_path)
    assert of_tls(replace(node, now=lambda: begins))[0] == []
    assert len(of_tls(replace(node, now=lambda: begins - timedelta(seconds=1)))[0]) == 1


def test_health_tells_of_a_certificate_in_use_that_was_replaced(here: Path, tmp_path: Path, engine: Engine) -> None:
    own = tmp_path / "own.crt"
    shutil.copyfile("expired.crt", own)
    node = running(settings("dicom.tls.", certificate=str(own), key="good.key"), engine, tmp_path)
    assert node.settings.dicom.tls
    node.hold_certificate(listener_files("dicom", node.settings.dicom.tls))
    shutil.copyfile("good.crt", own)
    (told,), warnings = of_tls(node)
    words = f"'own.crt' before that was changed, expired on {day('expired.crt')}; start the node again, which takes"
    assert told.startswith(f"dicom.tls.certificate: the certificate in use, read from {words}") and not warnings
    node.held_certificates.clear()
    assert of_tls(node) == ([], [])


def test_nothing_is_looked_at_where_nothing_is_named() -> None:
    plain = Settings(
        node=NodeSettings(),
        destinations={
            "PACS": DicomDestination(host="h", port=104, ae_title="P"),
            "WEB": DicomwebDestination(url="https://h/x"),
        },
    )
    assert not list(tls_places(plain))


def certificates_of(folder: Path) -> Iterator[Path]:
    yield from (folder / f"{name}.crt" for name in ("good", "expired", "early", "long"))


def test_dates_are_those_that_openssl_reads(folder: Path) -> None:
    """Also after 2049, when years have four digits (RFC 5280, 4.1.2.5)."""
    for file in certificates_of(folder):
        asked = ("openssl", "x509", "-in", str(file), "-noout", "-dates")
        read = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
        dates = validity(pem_to_der(file))
        told = [f"{one:%b} {one.day:2} {one:%H:%M:%S %Y} GMT" for one in (dates.begins, dates.ends)]
        assert [line.partition("=")[2] for line in read.splitlines()] == told


def test_what_is_no_certificate_has_no_dates(folder: Path) -> None:
    good = pem_to_der(folder / "good.crt")
    for end in range(len(good)):
        with pytest.raises(ValueError, match="error parsing asn1 value"):
            validity(good[:end])
    for at in range(len(good)):
        for octet in (0x00, 0x7F, 0x80, 0xFF):
            with suppress(ValueError):
                validity(good[:at] + bytes([octet]) + good[at + 1 :])
