"""Every verb and every path that the operating system refuses: one line, the right exit code, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree

import pytest

from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from hostile_places import inputs, outputs

BAD_SERIES, BAD_CONFIG = 3, 4
HERE = Path(__file__).parent
OUT = ["-o", "out"]

READING = {
    "series": ["series", "PLACE"],
    "run": ["run", "PLACE", *OUT],
    "run --each": ["run", "PLACE", *OUT, "--each", "study"],
    "convert": ["convert", "PLACE", *OUT],
    "synth prepare": ["synth", "prepare", "PLACE", *OUT],
    "synth sheet --real": ["synth", "sheet", "--real", "PLACE", "-o", "out.png"],
    "operator run, a series": ["operator", "run", "dicom-reader", "-i", "PLACE", *OUT],
    "operator run, a volume": ["operator", "run", "ai-lung", "-i", "PLACE", *OUT],
    "models import": ["models", "import", "PLACE", *OUT],
    "train publish": ["train", "publish", "PLACE"],
}
"""Command lines whose PLACE is an input."""

SETTING = {
    "series --config": ["series", "CHEST", "--config", "PLACE"],
    "series --rules": ["series", "CHEST", "--rules", "PLACE"],
    "run --config": ["run", "CHEST", *OUT, "--config", "PLACE"],
    "run --pipeline": ["run", "CHEST", *OUT, "--pipeline", "PLACE"],
    "pipelines check": ["pipelines", "check", "PLACE"],
    "pipelines show": ["pipelines", "show", "PLACE"],
    "operator run --config": ["operator", "run", "ai-lung", "-i", "CHEST", *OUT, "--config", "PLACE"],
    "models list": ["models", "list", "--config", "PLACE"],
    "models card": ["models", "card", "PLACE"],
    "models check": ["models", "check", "PLACE"],
    "models export": ["models", "export", "PLACE", "--format", "onnx", *OUT],
    "models import --card": ["models", "import", "CHEST", *OUT, "--card", "PLACE"],
    "train --data": ["train", "lung", "--data", "PLACE", *OUT],
    "train --check": ["train", "covid", "--data", "PLACE", "--check"],
    "train --settings": ["train", "lesion", "--settings", "PLACE", "--show"],
    "evaluate": ["evaluate", "PLACE", "--data", "list.json", *OUT],
    "evaluate --data": ["evaluate", "lung-ahnet", "--data", "PLACE", *OUT],
    "synth cases --lungs": ["synth", "cases", "--lungs", "PLACE", *OUT],
    "synth sheet --lungs": ["synth", "sheet", "--lungs", "PLACE", "-o", "out.png"],
}
"""Command lines whose PLACE is a setting, a definition, a bundle or a data list."""

WRITING = {
    "run": ["run", "CHEST", "-o", "PLACE"],
    "run --each": ["run", "CHEST", "-o", "PLACE", "--each", "series"],
    "convert": ["convert", "CHEST", "-o", "PLACE"],
    "operator run": ["operator", "run", "dicom-reader", "-i", "CHEST", "-o", "PLACE"],
    "operator run --work": ["operator", "run", "dicom-reader", "-i", "CHEST", "--work", "PLACE"],
    "models export": ["models", "export", "lung-ahnet", "--format", "onnx", "-o", "PLACE"],
    "models import": ["models", "import", "CHEST", "-o", "PLACE"],
    "train": ["train", "lung", "--data", "list.json", "-o", "PLACE"],
    "evaluate": ["evaluate", "lung-ahnet", "--data", "list.json", "-o", "PLACE"],
    "synth prepare": ["synth", "prepare", "CHEST", "-o", "PLACE"],
    "synth cases": ["synth", "cases", "-o", "PLACE"],
    "synth sheet": ["synth", "sheet", "-o", "PLACE"],
    "phantom": ["phantom", "-o", "PLACE"],
    "demo": ["demo", "-o", "PLACE"],
}

FINE_AS_SETTINGS = {"an empty file", "a device"}
NO_SETTINGS_NEEDED = {"series --config", "series --rules", "run --config", "operator run --config", "models list"}
"""No settings are settings."""

FOLDERS_OF_OURS = {"models import", "train publish", "operator run, a series", "operator run, a volume"}
"""What reads a bundle, a training or an operator's folder blames the node where it isn't there."""

LISTING = {"series": 0, "run --each": BAD_SERIES, "convert": BAD_SERIES}
"""Verbs that tell of every file in a folder, those too that can't be read."""

Ended = tuple[int, str, str]


Tried = dict[tuple[str, str], Ended]
"""How each command line ended, by its name and that of the path."""


@pytest.fixture(scope="module")
def tried() -> Iterator[list[Tried]]:
    """Everything, in one process that has no more rights than its user: reading, setting, writing."""
    root = Path(tempfile.mkdtemp(prefix="carina-hostile-"))
    write_ct_series(chest_phantom(shape=(12, 64, 64), lesions=0).volume, root / "chest")
    (root / "work").mkdir()
    read, write = inputs(root / "in"), outputs(root / "out")
    asked = [(READING, read), (SETTING, read), (WRITING, write)]
    lines = [
        [{"PLACE": place, "CHEST": str(root / "chest")}.get(word, word) for word in words]
        for verbs, places in asked
        for words in verbs.values()
        for place in places.values()
    ]
    command = [sys.executable, str(HERE / "hostile_places.py"), str(root / "work")]
    environment = {**os.environ, "XDG_DATA_HOME": str(root / "home")}
    done = subprocess.run(command, input=json.dumps(lines), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    ended = iter(json.loads(done.stdout))
    yield [{(verb, what): tuple(next(ended)) for verb in verbs for what in places} for verbs, places in asked]
    for name in ("in/listed", "in/locked", "out/listed", "out/locked"):
        (root / name).chmod(0o755)
    rmtree(root)


def refused_in_one_line(ended: Tried, verb: str, *codes: int) -> None:
    for (tried_verb, what), (code, _, said) in ended.items():
        if tried_verb == verb:
            assert code in codes, (what, code, said)
            assert said.count("\n") == 1 and said.startswith("carina: ") and said.endswith("]\n"), (what, said)
            assert "Traceback" not in said and "\x1b" not in said, (what, said)


@pytest.mark.parametrize("verb", READING)
def test_an_input_that_the_system_refuses(tried: list[Tried], verb: str) -> None:
    codes = (BAD_SERIES, BAD_CONFIG) if verb in FOLDERS_OF_OURS else (BAD_SERIES,)
    listed = {(verb, "a folder that can only be listed")} if verb in LISTING else set()
    refused_in_one_line({key: how for key, how in tried[0].items() if key not in listed}, verb, *codes)


def test_a_folder_whose_files_can_not_be_read_is_listed(tried: list[Tried]) -> None:
    for verb, code in LISTING.items():
        ended, out, said = tried[0][verb, "a folder that can only be listed"]
        assert ended == code
        assert "inside.dcm" in out + said and "can't be read (Permission denied)" in out + said
        assert "Traceback" not in said


@pytest.mark.parametrize("verb", SETTING)
def test_a_setting_that_the_system_refuses(tried: list[Tried], verb: str) -> None:
    ended = {
        (one, what): how
        for (one, what), how in tried[1].items()
        if not (what in FINE_AS_SETTINGS and one in NO_SETTINGS_NEEDED)
    }
    refused_in_one_line(ended, verb, BAD_CONFIG)


@pytest.mark.parametrize("verb", WRITING)
def test_a_place_that_can_not_be_written(tried: list[Tried], verb: str) -> None:
    refused_in_one_line(tried[2], verb, BAD_CONFIG)
    assert all("can't be written" in said for (one, _), (_, _, said) in tried[2].items() if one == verb)
