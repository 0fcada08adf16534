"""What no database can ever be opened by is a mistake of the settings by its key, and shows nothing of a password."""

from __future__ import annotations

import os
import re
import string
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from carina.config import NodeSettings, Settings, load_settings
from carina.database import DatabaseAway, open_database
from carina.database.address import (
    BAD_ADDRESS,
    address_mistake,
    check_address,
    connection_words,
    file_address,
    file_of,
    has_password,
    shown_address,
)
from carina.errors import BadConfig
from carina.jobs.places import DATABASE, open_node
from carina.service.check import as_error, check_across, start_mistakes
from carina.service.check_database import database_mistakes
from carina.service.check_rest import with_the_rest

connect = pytest.importorskip("psycopg").connect

PG = "postgresql+psycopg://"
PROGRAM = Path(sys.executable).with_name("carina")

MISTAKES = {
    "no kind": ("", "expected postgresql\\+psycopg://.* or sqlite:///FILE$"),
    "a file's name": ("node.sqlite", "or sqlite:///FILE$"),
    "another server": ("mysql://x", "^expected .* or sqlite:///FILE$"),
    "another driver": ("postgresql://carina@h/n", "^expected .* or sqlite:///FILE$"),
    "a space before it": (f" {PG}h/n", "or sqlite:///FILE$"),
    "a word as port": (f"{PG}carina:pw@h:abc/n", "its port is no number from 1 to 65535"),
    "a password without its @": (f"{PG}carina:pw", "its port is no number"),
    "no port": (f"{PG}h:/n", "its port is no number"),
    "port 0": (f"{PG}h:0/n", "its port is no number"),
    "a port below 0": (f"{PG}h:-1/n", "its port is no number"),
    "a port too large": (f"{PG}h:99999/n", "its port is no number"),
    "a port of many digits": (f"{PG}h:{'9' * 5000}/n", "its port is no number"),
    "a port of other digits": (f"{PG}h:\u0665\u0664/n", "its port is no number"),
    "two ports": (f"{PG}h:1:2/n", "its port is no number"),
    "a port in an option": (f"{PG}h/n?port=99999", "its port is no number"),
    "a host with its port in an option": (f"{PG}/n?host=h:x", "its host is none|hosts and ports"),
    "more ports than hosts": (f"{PG}/n?host=a&port=1,2", "not as many ports|hosts and ports"),
    "an open bracket": (f"{PG}[::1:5432/n", "its host is none"),
    "a bracket alone": (f"{PG}[/n", "its host is none"),
    "words behind a bracket": (f"{PG}[::1]x:5432/n", "its host is none"),
    "a name in brackets": (f"{PG}[a:b]/n", "its host is none"),
    "IPv6 without brackets": (f"{PG}::1/n", "its port is no number"),
    "a space in the host": (f"{PG}my host/n", "its host is none"),
    "an empty part of the host": (f"{PG}a..b/n", "its host is none"),
    "a long part of the host": (f"{PG}{'a' * 64}.b/n", "its host is none"),
    "no address": (f"{PG}h/n?hostaddr=h", "its host is none"),
    "a second @": (f"{PG}carina:a@b@h/n", "@ is written %40"),
    "a ? in a password": (f"{PG}carina:a?b@h/n", r"\? %3F"),
    "an @ in the name": (f"{PG}carina@h/n@m", "@ is written %40"),
    "half a character": (f"{PG}carina:%ff@h/n", "a percent sign is written %25"),
    "the character 0": (f"{PG}carina:%00@h/n", "a percent sign is written %25"),
    "a line break": (f"{PG}carina@h/n\n", "holds a line break"),
    "a space at its end": (f"{PG}carina@h/n ", "ends with a space"),
    "no text": (f"{PG}carina@h/\udcff", "can't be printed"),
    "an unknown option": (f"{PG}h/n?pool_size=5", "^pool_size is none of PostgreSQL's options"),
    "an option of the driver": (f"{PG}h/n?autocommit=1", "^autocommit is none of PostgreSQL's options"),
    "a plugin": (f"{PG}h/n?plugin=x", "^plugin is none of PostgreSQL's options"),
    "an unknown option beside a password": (f"{PG}h/n?password=a&b=c", "^an option behind the . is none"),
    "an option without a value": (f"{PG}h/n?sslmode", "OPTION=VALUE"),
    "an option with an empty value": (f"{PG}h/n?sslmode=", "OPTION=VALUE"),
    "a value without an option": (f"{PG}h/n?=require", "OPTION=VALUE"),
    "an option given twice": (f"{PG}h/n?sslmode=require&sslmode=disable", "given twice"),
    "an unknown TLS": (f"{PG}h/n?sslmode=wrong", 'invalid sslmode value: "wrong"'),
    "an unknown TLS version": (f"{PG}h/n?ssl_min_protocol_version=1", "ssl_min_protocol_version"),
    "an unknown server wanted": (f"{PG}h/n?target_session_attrs=q", "target_session_attrs"),
    "a server that is read only": (f"{PG}h/n?target_session_attrs=read-only", "expected target_session_attrs=any"),
    "a standby": (f"{PG}h/n?target_session_attrs=standby", "the node writes to its database"),
    "a standby, if there is one": (f"{PG}h/n?target_session_attrs=prefer-standby", "the node writes to its database"),
    "another encoding": (f"{PG}h/n?client_encoding=LATIN1", "^client_encoding is another than UTF8"),
    "no encoding": (f"{PG}h/n?client_encoding=SQL_ASCII", "^client_encoding is another than UTF8"),
    "the encoding of the machine": (f"{PG}h/n?client_encoding=auto", "^client_encoding is another than UTF8"),
    "an unknown service": (f"{PG}h/n?service=nosuch", "nosuch"),
    "a time that is none": (f"{PG}h/n?connect_timeout=soon", "connect_timeout is no whole number"),
    "a count that is none": (f"{PG}h/n?keepalives_count=x", "keepalives_count is no whole number"),
    "a host before a file": ("sqlite://h/n.sqlite", "with three slashes"),
    "one slash": ("sqlite:/n.sqlite", "or sqlite:///FILE$"),
    "options of a file": ("sqlite:///n.sqlite?timeout=x", "without options behind a"),
    "a file with the character 0": ("sqlite:///n\0.sqlite", "no file has a name"),
}

SOUND = (
    f"{PG}",
    f"{PG}/n",
    f"{PG}h",
    f"{PG}h.example:5432/n",
    f"{PG}carina@h/n",
    f"{PG}carina:p%40%2F%3F%25@h/n",
    f"{PG}carina:a/b:c#d%e f@h/n",
    f"{PG}a@server:pw@h/n",
    f"{PG}[::1]:5432/n",
    f"{PG}[fe80::1%25eth0]/n",
    f"{PG}b\u00fccher.example/n",
    f"{PG}a,b:5432/n",
    f"{PG}/n?host=/var/run/postgresql",
    f"{PG}carina@/n?host=a:1&host=b:2&target_session_attrs=read-write",
    f"{PG}h/n?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert=/etc/ca.pem&connect_timeout=2&keepalives_idle=30",
    f"{PG}h/n?user=carina&password=p%40w",
    f"{PG}h/n?client_encoding=UTF-8",
    "sqlite:///node.sqlite",
    "sqlite:////srv/no de/\u00fc%3F.sqlite",
)


def test_a_mistake_of_a_variable_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is one by itself or with others; the file is innocent."""
    file = tmp_path / "carina.toml"
    file.write_text('[node]\ndatabase = "sqlite:///n.sqlite"\n[dicom]\nhost = "127.0.0.1"\n')
    environment = {"CARINA_NODE_DATABASE": "postgresql+psycopg://h:abc/n", "CARINA_DICOM_HOST": "300.1.1.1"}
    told = as_error(check_across(load_settings(file, environment)), file, environment).message.split("\n")
    assert any(line.startswith("CARINA_NODE_DATABASE: node.database: its port is no number") for line in told)
    assert any(line.startswith("CARINA_DICOM_HOST: dicom.host: '300.1.1.1' is no address") for line in told)
    wrong = environment | {"CARINA_WEB_PORT": "x"}
    with pytest.raises(BadConfig, match=r"^CARINA_WEB_PORT: web\.port: ") as caught:
        load_settings(file, wrong)
    rest = with_the_rest(caught.value, file, wrong, datetime.now(UTC)).message.split("\n")
    assert {line.partition(":")[0] for line in rest} == wrong.keys()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP"])
def test_a_database_in_another_encoding_is_refused_with_how_to_create_one(
    postgresql: str, tmp_path: Path, encoding: str
) -> None:
    """By one line for the check, and by whatever opens it."""
    name = f"in_{encoding.lower()}"
    how = f"create database {name} encoding '{encoding}' locale 'C' template template0"
    with connect(postgresql.replace("+psycopg", "") + "postgres", autocommit=True) as connection:
        connection.execute(how)
    words = rf"its encoding is {encoding}, expected UTF8, .*: create database NAME encoding 'UTF8' locale 'C' template"
    with pytest.raises(BadConfig, match=words) as caught:
        open_database(postgresql + name)
    assert caught.value.code == "database.encoding" and not isinstance(caught.value, DatabaseAway)
    settings = Settings(node=NodeSettings(folder=str(tmp_path), database=postgresql + name))
    (told,) = database_mistakes(settings)
    assert told.key == ("node", "database") and re.match(rf"database .*/{name}: {words}", told.words)
    assert caught.value.message == f"node.database: {told.words}"
    with connect(postgresql.replace("+psycopg", "") + "postgres", autocommit=True) as connection:
        connection.execute(how.replace(encoding, "UTF8").replace(name, f"{name}_utf8"))
    open_database(f"{postgresql}{name}_utf8").dispose()


@pytest.mark.parametrize("said", ["LATIN1", "SQL_ASCII"])
def test_whatever_a_server_or_the_machine_says_texts_go_there_in_utf_8(
    postgresql: str, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", said)
    engine = open_database(f"{postgresql}postgres?options=-c%20client_encoding%3D{said}")
    with engine.connect() as connection:
        assert connection.execute(text("select :said || version()"), {"said": "Грудь 胸部"}).scalar_one()[:5] == "Грудь"
    engine.dispose()


def test_a_server_without_tls_is_told_as_such_where_the_address_wants_it(postgresql: str) -> None:
    with pytest.raises(BadConfig, match=r"TLS is not agreed on as sslmode wants it \(.*\): see sslmode") as caught:
        open_database(f"{postgresql}postgres?sslmode=require")
    assert not isinstance(caught.value, DatabaseAway)


@pytest.mark.parametrize("kind", MISTAKES)
def test_what_can_never_be_opened_is_a_mistake_by_its_key_and_not_waited_for(kind: str, tmp_path: Path) -> None:
    address, words = MISTAKES[kind]
    assert re.search(words, address_mistake(address)), address_mistake(address)
    with pytest.raises(BadConfig, match=r"^node\.database: ") as caught:
        open_database(address)
    assert caught.value.code == BAD_ADDRESS and not isinstance(caught.value, DatabaseAway)
    settings = Settings(node=NodeSettings(folder=str(tmp_path), database=address))
    told = [one.words for one in start_mistakes(settings) if one.key == ("node", "database")]
    assert told == ([address_mistake(address)] if address else [])
    assert not [one for one in database_mistakes(settings) if address]  # once is enough


@pytest.mark.parametrize("address", SOUND)
def test_what_a_server_may_take_is_no_mistake(address: str) -> None:
    assert not address_mistake(address, lasts=True)
    check_address(address)
    if address.startswith(PG):
        from psycopg.conninfo import make_conninfo

        assert make_conninfo("", **connection_words(address)) is not None


def test_nobody_is_connected_to_whatever_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGHOSTADDR": "127.0.0.1,127.0.0.2", "PGHOST": "a,b", "PGPORT": "1,2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("socket.getaddrinfo", None)
    assert not address_mistake(f"{PG}/n?sslmode=require")
    monkeypatch.setenv("PGPORT", "x")
    assert address_mistake(f"{PG}/n") == "its port is no number from 1 to 65535"


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_memory_is_no_place_of_a_nodes(address: str, tmp_path: Path) -> None:
    settings = Settings(node=NodeSettings(folder=str(tmp_path), database=address))
    assert "without a file nothing is kept" in next(one.words for one in start_mistakes(settings))


LEFT, RIGHT = "Qx7", "Zy9"
PLACES: tuple[Callable[[str], str], ...] = (
    lambda password: f"{PG}carina:{password}@127.0.0.1:1/n",
    lambda password: f"{PG}:{password}@127.0.0.1:1/n",
    lambda password: f"{PG}car/ina:{password}@127.0.0.1:1/n",
    lambda password: f"{PG}127.0.0.1:1/n?user=nobody&password={password}",
    lambda password: f"{PG}127.0.0.1/n?port=1&password={password}",
    lambda password: f"{PG}[::1]:1/n?password={password}&user=nobody",
    lambda password: f"{PG}/n?host=127.0.0.1&port=1&sslpassword={password}",
    lambda password: f"{PG}carina:{password}@127.0.0.1:x/n",
    lambda password: f"{PG}carina:{password}@127.0.0.1:1/n?sslmode=wrong",
)


@pytest.mark.parametrize("place", range(len(PLACES)))
def test_no_part_of_a_password_is_shown_whatever_is_in_it(place: int) -> None:
    for one in (*string.punctuation, "@@", "=", "%ff", "%40", " ", "\t", "a=b&c", "\u00fc"):
        address = PLACES[place](f"{LEFT}{one}{RIGHT}")
        with pytest.raises(BadConfig, match=r"^node\.database: |can't be reached") as caught:
            open_database(address)
        told = f"{caught.value.message} {shown_address(address) if not address_mistake(address) else ''}"
        assert LEFT not in told and RIGHT not in told, (address, told)
        assert has_password(address)


@pytest.mark.parametrize("name", ["a?b", "100%", "a%20b", "a b", "\u00fc", "a#b", "a@b:c"])
def test_sqlite_lies_in_the_folder_of_the_node_whatever_that_is_called(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    open_node(Settings(node=NodeSettings(folder=str(folder)))).dispose()
    assert (folder / DATABASE).is_file()
    assert [one.name for one in tmp_path.iterdir()] == [name]
    assert file_of(file_address(folder / DATABASE)) == folder / DATABASE


def test_the_check_tells_the_other_mistakes_as_well_and_commands_that_one(tmp_path: Path) -> None:
    file = tmp_path / "carina.toml"
    file.write_text('[node]\nfolder = "node"\nfree_gb = 0.0\n[sources.a]\nkind = "folder"\npath = "nowhere"\n')
    environment = {**os.environ, "CARINA_NODE_DATABASE": f"{PG}carina:{LEFT}@{RIGHT}@h:abc/n2"}
    for words in (("serve", "--check"), ("jobs", "list")):
        done = subprocess.run(
            [PROGRAM, *words, "--config", file],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 4, said
        assert "node.database: an @ or a ? is where none can be" in said and "%40" in said
        assert LEFT not in said and RIGHT not in said
        assert ("sources.a.path" in said) == ("--check" in words)
