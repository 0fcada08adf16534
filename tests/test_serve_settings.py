"""``carina init`` and ``carina serve --check``: a file that can't go stale, mistakes across keys by their key."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import msgspec
import pytest
from filelock import FileLock

from called import called
from carina import config, sections, web_settings
from carina.config import Settings, load_settings
from carina.errors import BadConfig
from carina.jobs.places import NODE_LOCK
from carina.service.check import as_error, check_across, is_running
from carina.service.check_contents import check_contents
from carina.service.check_database import database_mistakes
from carina.service.remarks import settings_remarks
from carina.service.settings_secrets import open_secrets
from carina.service.template import TEMPLATE, write_template
from carina.service.web_address import is_loopback
from carina.testing.ports import free_port

PROGRAM = Path(sys.executable).with_name("carina")


def everything_on(tmp_path: Path) -> Settings:
    """The template with each setting that is off switched on."""
    file = tmp_path / "all.toml"
    file.write_text(re.sub(r"^#(?=[\[a-z])", "", TEMPLATE.read_text(encoding="utf-8"), flags=re.MULTILINE))
    return load_settings(file, {})


def test_the_template_loads_as_it_stands_and_says_the_defaults() -> None:
    read = load_settings(TEMPLATE, {})
    assert msgspec.structs.replace(read, sources={}) == Settings()
    assert set(read.sources) == {"scanner", "web"}


def structs() -> list[type[msgspec.Struct]]:
    """Every struct of the settings that a user can write."""
    named = {**vars(config), **vars(sections), **vars(web_settings)}.values()
    found = [one for one in named if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    homes = (config.__name__, sections.__name__, web_settings.__name__)
    return [one for one in found if one.__module__ in homes and not one.__name__.startswith("_")]


def written(value: Any) -> dict[type, set[str]]:
    """The keys of each kind of table in a tree as TOML gives it, by the structs that it is read as."""
    keys: dict[type, set[str]] = {}
    waiting: list[tuple[type[msgspec.Struct], Any]] = [(Settings, value)]
    while waiting:
        kind, table = waiting.pop()
        keys.setdefault(kind, set()).update(table)
        for field in msgspec.structs.fields(kind):
            for inner in tables_of(field.type):
                waiting += [(inner, one) for one in found(inner, field.type, table.get(field.encode_name))]
    return keys


def tables_of(kind: Any) -> list[type[msgspec.Struct]]:
    if isinstance(kind, type):
        return [kind] if issubclass(kind, msgspec.Struct) else []
    return [inner for one in get_args(kind) if one is not NoneType for inner in tables_of(one)]


def found(inner: type[msgspec.Struct], kind: Any, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, dict):
        return []
    tag = inner.__struct_config__.tag
    several = value.values() if tag or get_origin(kind) is Mapping else [value]
    return [one for one in several if tag is None or one["kind"] == tag]


def test_the_template_has_every_key_of_every_struct(tmp_path: Path) -> None:
    everything_on(tmp_path)
    keys = written(tomllib.loads((tmp_path / "all.toml").read_text()))
    assert set(keys) == set(structs())
    for kind, given in keys.items():
        assert given >= {field.encode_name for field in msgspec.structs.fields(kind)}, kind


def test_what_the_template_says_of_optional_tables_are_their_defaults(tmp_path: Path) -> None:
    for one in (*(whole := everything_on(tmp_path)).sources.values(), *whole.destinations.values()):
        for field in msgspec.structs.fields(one):
            if not field.required:
                assert getattr(one, field.name) == field.default, field.name


def test_init_writes_the_template_and_never_overwrites(tmp_path: Path) -> None:
    for code, words in ((0, "carina serve --check"), (4, "carina.toml: is there already")):
        done = called("init", str(tmp_path / "new"), folder=tmp_path)
        assert done.returncode == code
        assert words in done.stdout + done.stderr
    made = tmp_path / "new" / "carina.toml"
    assert made.read_text() == TEMPLATE.read_text()
    assert made.stat().st_mode & 0o777 == 0o600


def test_a_place_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadConfig, match="can't be written"):
        write_template(tmp_path / "file" / "carina.toml")


def free() -> str:
    """Listeners that are free, so that a check finds what it is asked for only."""
    return f"[dicom]\nport = {free_port()}\n[web]\nport = {free_port()}\n"


TWICE = (
    '[sources.A]\nkind = "dicom"\nae_title = "X"\ndestinations = ["P", "Q"]\n'
    '[destinations.P]\nkind = "dicom"\nhost = "pacs"\nport = 104\nae_title = "PACS"\ntakes = [{0}]\n'
    '[destinations.Q]\nkind = "dicom"\nhost = "PACS"\nport = {2}\nae_title = "PACS "\ntakes = [{1}]\n'
)
PEER = '[destinations.D]\nkind = "dicom"\nhost = "pacs"\nport = 104\nae_title = "PACS"\n{0}\n'
WEB = '[destinations.D]\nkind = "dicomweb"\nurl = "https://{0}/web"\n{1}\n'
DICOM = '[sources.{0}]\nkind = "dicom"\nae_title = "{1}"\n'
TOKEN = 'token = "b"'
MAIL = "[notices.mail]\nhost = 'h'\nsender = 'n@h'\nto = ['o@h']\n"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (WEB.format("pacs", 'user = "a"\npassword = "b"'), "destinations.D.password"),
        (WEB.format("pacs", 'token = "b"'), "destinations.D.token"),
        ('[notices]\nsecret = "b"\n', "notices.secret"),
        ('[deidentify]\nkey = "b"\n', "deidentify.key"),
        ('[node]\ndatabase = "postgresql+psycopg://carina:b@db/carina"\n', "node.database"),
        ('[node]\ndatabase = "postgresql+psycopg://carina@db/carina"\n', ""),
        ('[notices]\nsecret = ""\n[web.tls]\nkey = "web.pem"\n', ""),
    ],
)
def test_a_settings_file_that_shows_a_secret_to_others_is_said(tmp_path: Path, text: str, key: str) -> None:
    file = tmp_path / "carina.toml"
    file.write_text(text)
    file.chmod(0o640)
    words = f"{file}: holds a secret ({key}) and can be read by other users of this machine: chmod 600 {file}"
    assert list(open_secrets(file)) == ([words] if key else [])
    file.chmod(0o600)
    assert not list(open_secrets(file))
    assert not list(open_secrets(None))


def test_check_says_that_others_can_read_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "carina.toml"
    file.write_text(f'[node]\nfree_gb = 0.0\nfolder = "{tmp_path / "node"}"\n{free()}{WEB.format("pacs", TOKEN)}')
    for mode, is_said in ((0o644, True), (0o600, False)):
        file.chmod(mode)
        done = called("serve", "--check", "--config", str(file), folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("holds a secret (destinations.D.token)" in done.stdout + done.stderr) is is_said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (DICOM.format("A", "X") + 'destinations = ["Q"]\n', "sources.A.destinations: no destination is called 'Q'; kn"),
        (DICOM.format("A", "X") + DICOM.format("B", "X"), "sources.B.ae_title: 'X' is also that of A"),
        (DICOM.format("A", "X") + DICOM.format("B", "X  "), "sources.B.ae_title: 'X' is also that of A"),
        (DICOM.format("A", "X") + 'addresses = ["10.0.0.300"]\n', "sources.A.addresses: '10.0.0.300' is no address"),
        (DICOM.format("A", "X") + 'pipelines = ["nope"]\n', "sources.A.pipelines.0: no definition is called 'nope'"),
        (
            DICOM.format("A", "X") + 'pipelines = ["default", "/n.yaml"]\n',
            "sources.A.pipelines.1: /n.yaml: can't be re",
        ),
        (DICOM.format("A", "X") + 'series_rules = "n.toml"\n', "sources.A.series_rules: n.toml: can't be read"),
        ('[sources.A]\nkind = "dicomweb"\n[sources.B]\nkind = "dicomweb"\n', "sources.B.kind: A is dicomweb already"),
        (TWICE.format("", "", 104), "sources.A.destinations: P and Q are both PACS@pacs:104: what both take is sent"),
        (TWICE.format('"SEG", "SR"', '"PDF", "SR"', 104), "sources.A.destinations: P and Q are both PACS@pacs:104"),
        ('[node]\nsubmit_below = ["/"]\n', "node.submit_below: '/' allows every file of this machine; name the folde"),
        ('[node]\nsubmit_below = ["nowhere"]\n', "node.submit_below: 'nowhere' is no folder that is there"),
        ('[sources.A]\nkind = "folder"\npath = "nowhere"\n', "sources.A.path: 'nowhere' is no folder that is there"),
        (
            '[sources.A]\nkind = "folder"\npath = "."\n[node]\nfolder = "node"\n',
            "node.folder: lies in the watched folder of source A",
        ),
        (
            '[sources.A]\nkind = "folder"\npath = "/"\n[destinations.D]\nkind = "folder"\npath = "."\n',
            "destinations.D.path: lies in the watched folder of source A",
        ),
        ('[destinations.D]\nkind = "folder"\npath = "/dev/null/x"\n', "destinations.D.path: /dev/null/x: can't be wri"),
        ('[node]\nfolder = "/dev/null/x"\n', "node.folder: /dev/null/x/incoming: can't be written"),
        ("[node]\nfree_gb = 1e9\n", "node.free_gb: 1e+09 GB must stay free"),
        ('[node]\ndatabase = "oracle://x"\n', "node.database: expected postgresql+psycopg://USER"),
        ('[models]\nlung = "liver"\n', "models.lung: No bundle is called 'liver'"),
        ('[runtime]\nkind = "triton"\n', "runtime.endpoint: is empty and kind is triton"),
        ('[dicom.tls]\ncertificate = "n.crt"\nkey = "n.key"\n', "dicom.tls.certificate: 'n.crt' is not there"),
        (PEER.format("tls_trusted = 'n.crt'"), "destinations.D.tls_trusted: 'n.crt' is not there"),
        (PEER.format("tls_certificate = 'n.crt'"), "destinations.D.tls_trusted: is empty, so no TLS is spoken"),
        (WEB.format("h", "tls_trusted = 'n.crt'"), "destinations.D.tls_trusted: 'n.crt' is not there"),
        (WEB.format("u:p@h", ""), "destinations.D.url: has a user in it; give user and password by their own keys"),
        (WEB.format("h", "user = 'u'\ntoken = 't'"), "destinations.D.token: is there beside user"),
        (WEB.format("[h", ""), "destinations.D.url: 'https://[h/web' is no address of a server (Invalid IPv6 URL)"),
        (
            WEB.format("h", "tls_trusted = 'n.crt'").replace("https", "http"),
            "destinations.D.tls_trusted: is there and url is http://, no TLS",
        ),
        (
            '[notices]\nurl = "https://h:x"\nsecret = "' + "s" * 32 + '"\n',
            "notices.url: 'https://h:x' is no address of a ser",
        ),
        (WEB.format("h", "password = 'p'"), "destinations.D.user: is empty and password is not"),
        (WEB.format("h", "user = 'u'"), "destinations.D.password: is empty and user is not; give both"),
        (WEB.format("h", "user = 'u'\npassword = ''"), "destinations.D.password: is empty and user is not; give both"),
        (MAIL + "user = 'u'\n", "notices.mail.password: is empty and user is not; give both"),
        ("[deidentify]\nkey = 'k'\n", "deidentify.key: has 1 characters, which can be guessed; give one of 32 or more"),
        (f"[deidentify]\nkey = '{' ' * 40}'\n", "deidentify.key: has 0 characters, which can be guessed; give"),
        (f"[notices]\nsecret = '{'s' * 31}'\n", "notices.secret: has 31 characters, which can be guessed; give"),
        (
            f"{DICOM.format('A', 'X')}pipelines = ['default', 'default-deidentified']\n[deidentify]\nkey = ''\n",
            "deidentify.key: is empty, and pipeline default-deidentified of source A needs it; give one of 32",
        ),
        ('[web.tls]\ncertificate = "/etc/hostname"\nkey = "/etc/hostname"\n', "web.tls.key: '/etc/hostname' holds no"),
    ],
)
def test_a_mistake_across_keys_is_named_by_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "carina.toml"
    file.write_text(text if "dicom.tls" in text or "web.tls" in text else free() + text)
    settings = load_settings(file, {})
    found = [*check_across(settings), *check_contents(settings), *database_mistakes(settings)]
    mistakes = [one for one in found if one.key[-1] != "port"]
    told = as_error(mistakes, file).message
    assert words in told
    assert re.match(rf"{re.escape(str(file))}:\d+: ", told) or "node.folder" in told


@pytest.mark.parametrize(
    ("url", "more", "is_said"),
    [
        ("http://pacs/web", "user = 'u'\npassword = 'hushed'", True),
        ("http://pacs/web", "token = 'hushed'", True),
        ("http://pacs/web", "", False),
        ("http://127.0.0.1/web", "user = 'u'\npassword = 'hushed'", False),
        ("https://pacs/web", "user = 'u'\npassword = 'hushed'", False),
    ],
)
def test_a_password_that_others_can_read_is_said(tmp_path: Path, url: str, more: str, *, is_said: bool) -> None:
    (tmp_path / "carina.toml").write_text(WEB.format("h", more).replace("https://h/web", url) + free())
    done = called("serve", "--check", folder=tmp_path)
    words = f"destinations.D.url: {url} is plain HTTP: what is shown to log in can be read on its way"
    assert (done.returncode, words in done.stdout) == (0, is_said)
    assert "hushed" not in done.stdout


@pytest.mark.parametrize(
    ("host", "more", "is_said"),
    [
        ("0.0.0.0", "", True),
        ("192.0.2.1", "", True),
        ("::", "", True),
        ("127.0.0.1", "", False),
        ("0.0.0.0", 'callers = ["CT1"]', False),
        ("0.0.0.0", 'addresses = ["192.0.2.0/24"]', False),
        ("0.0.0.0", '[dicom.tls]\ncertificate = "a"\nkey = "b"', True),
        ("0.0.0.0", '[dicom.tls]\ncertificate = "a"\nkey = "b"\ntrusted = "c"', False),
    ],
)
def test_a_source_to_which_everybody_may_send_is_said(tmp_path: Path, host: str, more: str, *, is_said: bool) -> None:
    file = tmp_path / "carina.toml"
    file.write_text(f'[dicom]\nhost = "{host}"\nport = 104\n{DICOM.format("A", "X")}\n{more}\n')
    words = f"sources.A.callers: empty, so whoever reaches {host}:104 may send; name AE titles, or networks (addresses)"
    said = list(settings_remarks(load_settings(file, {})))
    assert [one.startswith(words) for one in said] == ([True] if is_said else [])


@pytest.mark.parametrize("text", [TWICE.format('"SEG"', '"PDF"', 104), TWICE.format("", "", 105)])
def test_a_pacs_may_have_two_names_where_nothing_is_sent_twice(tmp_path: Path, text: str) -> None:
    (tmp_path / "carina.toml").write_text(text + free())
    assert [one for one in check_across(load_settings(tmp_path / "carina.toml", {})) if one.key[0] == "sources"] == []


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        settings = load_settings(None, {"CARINA_WEB_PORT": str(port), "CARINA_NODE_FOLDER": str(tmp_path)})
        told = as_error(check_across(settings), None).message
    assert f"web.port: can't listen on 127.0.0.1:{port} (Address already in use)" in told


def test_the_ports_of_a_node_that_runs_are_its_own(tmp_path: Path) -> None:
    """Settings are looked through while the node runs; without it, a port that is taken is a mistake."""
    (tmp_path / "node").mkdir()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        (tmp_path / "carina.toml").write_text(
            f"[web]\nport = {other.getsockname()[1]}\n[dicom]\nport = {free_port()}\n[retention]\nfree_gb = 0.0\n"
        )
        check = [str(PROGRAM), "serve", "--check"]
        with FileLock(tmp_path / "node" / NODE_LOCK):
            done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True)
            assert (done.returncode, done.stdout.count("the node runs, so its ports were not tried")) == (0, 1)
        done = called("serve", "--check", folder=tmp_path)
        assert done.returncode == 4 and "web.port: can't listen on" in done.stderr


def test_asking_whether_a_node_runs_makes_nothing(tmp_path: Path) -> None:
    settings = load_settings(None, {"CARINA_NODE_FOLDER": str(tmp_path)})
    assert not is_running(settings) and list(tmp_path.iterdir()) == []


def test_both_listeners_on_one_port_are_refused(tmp_path: Path) -> None:
    port = str(free_port())
    settings = load_settings(None, {"CARINA_WEB_PORT": port, "CARINA_DICOM_PORT": port})
    assert "web.port: " in as_error(check_across(settings), None).message


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "node.example"])
def test_the_web_listens_on_loopback_only(host: str) -> None:
    settings = load_settings(None, {"CARINA_WEB_HOST": host})
    assert "can be reached from other machines" in as_error(check_across(settings), None).message


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_has_many_names(host: str) -> None:
    assert is_loopback(host)


def test_every_mistake_is_told_at_once_with_exit_code_4(tmp_path: Path) -> None:
    (tmp_path / "carina.toml").write_text(
        f'{free()}[models]\nlung = "liver"\n{DICOM.format("A", "X")}destinations=["Q"]'
    )
    done = called("serve", "--check", folder=tmp_path)
    assert done.returncode == 4
    assert "carina.toml:10: sources.A.destinations: " in done.stderr
    assert "carina.toml:6: models.lung: " in done.stderr


def test_settings_without_a_mistake_are_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "carina.toml").write_text(
        free() + DICOM.format("A", "X") + '[destinations.D]\nkind = "folder"\npath="o"'
    )
    done = subprocess.run([PROGRAM, "serve", "--check"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "carina.toml: no mistakes; sources: A; destinations: D\n")
    assert list(tmp_path.iterdir()) == [tmp_path / "carina.toml"]


def test_room_that_is_made_after_senders_are_refused_is_a_mistake(tmp_path: Path) -> None:
    wrong = load_settings(None, {"CARINA_RETENTION_FREE_GB": "4", "CARINA_NODE_FREE_GB": "5"})
    words = [one.words for one in check_across(wrong) if one.key == ("retention", "free_gb")]
    assert words == ["4 GB is not above node.free_gb (5); senders would be refused before room is made"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/dicom-web", "https://localhost:{port}", "http://[::1]:{port}/"]
)
def test_a_destination_that_is_the_node_itself_is_a_mistake(tmp_path: Path, url: str) -> None:
    port = free_port()
    file = tmp_path / "carina.toml"
    for told, there in ((True, port), (False, free_port())):
        address = url.format(port=there)
        file.write_text(f'[web]\nport = {port}\n[destinations.D]\nkind = "dicomweb"\nurl = "{address}"\n')
        words = [one.words for one in check_across(load_settings(file, {})) if one.key == ("destinations", "D", "url")]
        assert words == ([f"{address!r} is this node itself; expected another server"] if told else [])


def test_an_engine_that_does_not_answer_and_a_trusted_file_that_is_not_there_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "here.yaml").touch()
    trusted = (str(tmp_path / "here.yaml"), "nothere.yaml", str(tmp_path))
    operators = sections.OperatorSettings(engine=sections.EngineChoice.DOCKER, trusted=trusted)
    told = [f"{'.'.join(one.key)}: {one.words}" for one in check_contents(Settings(operators=operators))]
    assert [line for line in told if line.startswith("operators")] == [
        "operators.engine: is docker, and no container engine answers (docker: not found)",
        "operators.trusted: 'nothere.yaml' is no file that is there; expected a definition",
        f"operators.trusted: {str(tmp_path)!r} is no file that is there; expected a definition",
    ]
    for choice in (sections.EngineChoice.AUTO, sections.EngineChoice.NONE):
        found = check_contents(Settings(operators=sections.OperatorSettings(engine=choice)))
        assert not [one for one in found if one.key[0] == "operators"]


def test_a_host_that_is_no_address_is_said_to_be_none(tmp_path: Path) -> None:
    file = tmp_path / "carina.toml"
    file.write_text('[dicom]\nhost = "300.1.1.1"\n')
    told = as_error(check_across(load_settings(file, {})), file).message
    assert ":2: dicom.host: '300.1.1.1' is no address of this machine; expected 127.0.0.1 or 0.0.0.0" in told
    assert "dicom.port" not in told
