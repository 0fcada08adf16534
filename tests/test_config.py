"""Settings: defaults, file, environment, and every mistake by its key and line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.config import DicomDestination, Plan, RuntimeKind, find_settings, load_settings
from carina.errors import BadConfig


def test_the_defaults_need_no_file() -> None:
    settings = load_settings(None, {})
    assert settings.runtime.kind is RuntimeKind.OPENVINO
    assert settings.runtime.plan is Plan.FAST
    assert settings.destinations == {}


def test_the_file_is_read_and_the_environment_overrides_it(tmp_path: Path) -> None:
    file = tmp_path / "carina.toml"
    file.write_text(
        '[runtime]\nkind = "onnxruntime"\nthreads = 1\n'
        '[destinations.MYPACS]\nkind = "dicom"\nhost = "127.0.0.1"\nport = 4242\nae_title = "ORTHANC"\n'
    )
    settings = load_settings(file, {"CARINA_RUNTIME_THREADS": "2", "CARINA_MODELS_FOLDERS": "/a:/b", "PATH": "/c"})
    assert settings.models.folders == ("/a", "/b")
    assert settings.runtime.kind is RuntimeKind.ONNXRUNTIME
    assert settings.runtime.threads == 2
    assert settings.destinations["MYPACS"] == DicomDestination(host="127.0.0.1", port=4242, ae_title="ORTHANC")


def test_without_a_name_the_file_of_the_working_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_settings(None, {}) == load_settings(None, {})
    (tmp_path / "carina.toml").write_text("[runtime]\nthreads = 3\n")
    assert find_settings(None, {}).runtime.threads == 3
    (tmp_path / "carina.toml").unlink()
    (tmp_path / "carina.toml").mkdir()
    with pytest.raises(BadConfig, match=r"carina\.toml: can't be read \(Is a directory\)"):
        find_settings(None, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[runtime]\nspeed = 3\n", ":2: runtime.speed: unknown key; known are kind, precision"),
        ("runtime.speed = 3\n", ":1: runtime.speed: unknown key"),
        ("runtime = 3\n", ":1: runtime: expected a table, got `int`"),
        (
            '[runtime]\nkind = "abacus"\n',
            ":2: runtime.kind: invalid enum value 'abacus'; expected openvino, onnxruntime, triton",
        ),
        (
            '[operators]\nengine = "lxc"\n',
            ":2: operators.engine: invalid enum value 'lxc'; expected auto, podman, docker",
        ),
        (
            '[destinations.X]\nkind = "folder"\npath = "x"\ntakes = ["SEG", "GIF"]\n',
            ":4: destinations.X.takes: invalid enum value 'GIF'; expected SEG, PDF, SR, other",
        ),
        (
            '[sources.X]\nkind = "dicomweb"\nearlier_by = "fax"\n',
            ":3: sources.X.earlier_by: invalid enum value 'fax'; expected get, move",
        ),
        (
            '[web.oidc]\nissuer = "https://x"\nclient_id = "c"\n[web.oidc.projects."a/b"]\nadmin = "x"\n',
            ":4: web.oidc.projects.a/b: can't be called so: expected up to 64 letters, digits",
        ),
        ('[sources.X]\nkind = "dicomweb"\npipelines = []\n', ":3: sources.X.pipelines: expected one pipeline or more"),
        (
            '[notices.mail]\nhost = "h"\nsender = "n@h"\nto = []\n',
            ":4: notices.mail.to: expected one address or more",
        ),
        ("[web]\npublic_url = 'x'\n", ":2: web.public_url: expected https://HOST without a path"),
        ("[notices]\nurl = 'x'\n", ":2: notices.url: expected an address as https://HOST/PATH"),
        (
            '[destinations.X]\nkind = "dicom"\nhost = "h"\nport = 1\nae_title = "\\u00e4"\n',
            ":5: destinations.X.ae_title: expected up to 16 printable characters",
        ),
        ("[runtime]\n\ntimeout_s = nan\n", ":3: runtime.timeout_s: expected `float` > 0"),
        ("[runtime]\ntimeout_s = inf\n", ":2: runtime.timeout_s: expected `float` <= 86400"),
        ("[runtime]\nthreads = -1\n", ":2: runtime.threads: expected `int` >= 0"),
        ("[models]\nfolders = [1]\n", ":2: models.folders: expected `str`, got `int`"),
        ("[models]\nfolders = 'x'\n", ":2: models.folders: expected `array`, got `str`"),
        ("destinations = []\n", ":1: destinations: expected a table, got `list`"),
        ("[destinations]\nX = 1\n", ":2: destinations.X: expected a table"),
        ('[destinations.X]\nkind = "fax"\n', ":2: destinations.X.kind: is 'fax'; expected folder, dicom, dicomweb"),
        ("[destinations.X]\n", ":1: destinations.X.kind: is missing; expected folder"),
        ('[destinations.X]\nkind = "folder"\n', ":1: destinations.X: the key path is missing"),
        (
            '[destinations."a.b"]\nkind = "dicom"\nhost = "h"\nae_title = "A"\nport = 99999\n',
            ":5: destinations.a.b.port: expected `int` <= 65535",
        ),
        ('[destinations.X]\nkind = "dicomweb"\nurl = "ftp://x"\n', ":3: destinations.X.url: expected an address as"),
        ("series_rules = 1\n", ":1: series_rules: expected `str`, got `int`"),
        ("[runtime\n", "no valid TOML: Expected ']'"),
        ("[runtime]\nkind = 'a'\nkind = 'b'\n", r"no valid TOML: .*line 3"),
    ],
)
def test_a_mistake_is_named_by_its_key_and_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "carina.toml"
    file.write_text(text)
    with pytest.raises(BadConfig, match=words.replace("(", r"\(").replace("[", r"\[")) as refused:
        load_settings(file, {})
    assert refused.value.message.startswith(str(file))
    assert "\n" not in refused.value.message


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "carina.toml"
    file.write_text('colour = "red"\n[runtime]\nkind = "abacus"\nthreads = "many"\n[destinations.X]\nkind = "fax"\n')
    with pytest.raises(BadConfig, match="unknown key") as refused:
        load_settings(file, {"CARINA_RUNTIME_PLAN": "slow", "CARINA_MODELS_LIVER": "x"})
    assert [line.partition(": ")[0].removeprefix(f"{file}") for line in refused.value.message.split("\n")] == [
        ":1",
        ":3",
        "CARINA_RUNTIME_PLAN",
        ":4",
        "CARINA_MODELS_LIVER",
        ":6",
    ]


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "carina.toml"
    file.write_text("".join(f"k{number} = 1\n" for number in range(1000)))
    with pytest.raises(BadConfig, match="and 980 more") as refused:
        load_settings(file, {})
    assert refused.value.message.count("\n") == 20


def test_a_secret_is_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "carina.toml"
    file.write_text('[destinations.X]\nkind = "dicomweb"\nurl = "http://x"\ntoken = ["s3cret"]\n')
    with pytest.raises(BadConfig, match="token: expected `str`, got `array`") as refused:
        load_settings(file, {})
    assert "s3cret" not in refused.value.message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a = " + b"[" * 1900, "nested too deeply"),
        (b"a = " + b"{a = " * 390, "nested too deeply|no valid TOML"),
        (b"a." * 40_000 + b"b = 1", "too large for a settings file"),
        (b"# " + b"x" * 1_000 + b"\n" * 200_000, "too large for a settings file"),
        (b"a = " + b"9" * 1_950, "unknown key"),
        (b"a = '\x00'", "no valid TOML: Found invalid character"),
        (b"a = '\xff\xfe'", "no text in UTF-8"),
        (os.urandom(4_000).replace(b"\n", b"") + b"\xff", "no text in UTF-8|too large"),
    ],
    ids=["deep", "deep tables", "dotted", "huge", "long number", "zero byte", "latin1", "binary"],
)
def test_hostile_files_are_refused_in_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "carina.toml"
    file.write_bytes(data)
    with pytest.raises(BadConfig, match=words) as refused:
        load_settings(file, {})
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 700


@given(st.binary(max_size=200) | st.text(st.sampled_from('[].="{}#, \n\\aruntimekds0e'), max_size=80).map(str.encode))
@settings(max_examples=300)
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "carina.toml"
    file.write_bytes(data)
    try:
        load_settings(file, {})
    except BadConfig as refused:
        assert refused.message.startswith(f"{file}")


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "carina.toml"
    file.write_bytes(b"\xef\xbb\xbf[runtime]\r\nthreads = 2\r\n")
    assert load_settings(file, {}).runtime.threads == 2


@pytest.mark.parametrize("home", ["x" * 300, "no\0text", "/dev/null/x"])
def test_a_home_that_can_not_be_looked_at_holds_no_models(home: str) -> None:
    assert load_settings(None, {"XDG_DATA_HOME": home}) == load_settings(None, {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"nowhere\.toml: can't be read"):
        load_settings(tmp_path / "nowhere.toml", {})


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["pipelines", "list"]], ids=" ".join)
def test_a_damaged_file_does_not_stand_in_the_way_of_what_needs_none(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "carina.toml").write_bytes(b"\xff\x00[[[")
    program = Path(sys.executable).with_name("carina")
    done = subprocess.run([program, *words], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
