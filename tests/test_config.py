"""Settings: defaults, file, environment, and refusals by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from carina.config import DicomDestination, Plan, RuntimeKind, load_settings
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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[runtime]\nspeed = 3\n", "unknown field `speed`"),
        ('[runtime]\nkind = "abacus"\n', "abacus"),
        ('[destinations.X]\nkind = "fax"\n', "fax"),
        ("[runtime\n", "no valid TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "carina.toml"
    file.write_text(text)
    with pytest.raises(BadConfig, match=words):
        load_settings(file, {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"nowhere\.toml: can't be read"):
        load_settings(tmp_path / "nowhere.toml", {})
