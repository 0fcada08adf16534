"""Bundles that are damaged in a node's folder: the checks and the list name the file before a job faults with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from carina.cli.models import models as models_command
from carina.config import Settings
from carina.errors import BadConfig
from carina.models.bundle import METADATA, SHIPPED, WEIGHTS
from carina.models.weights_digest import digest_file
from carina.service.check_contents import check_contents


@pytest.mark.parametrize("task", ["covid", "lung", "lesion"])
def test_weights_that_are_cut_are_a_mistake(tmp_path: Path, task: str) -> None:
    """Also those of a first look, which another bundle names."""
    settings = Settings()
    name = getattr(settings.models, task)
    cut = name if task == "covid" else f"{task}-first-look"
    for one in (name, cut):
        shutil.copytree(SHIPPED / one, tmp_path / one, dirs_exist_ok=True)
    weights = tmp_path / cut / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:1_000_000])
    digest_file(weights).unlink()
    models = msgspec.structs.replace(settings.models, folders=(str(tmp_path),))
    (mistake,) = check_contents(msgspec.structs.replace(settings, models=models))
    assert mistake.key == ("models", task)
    cut_words = f"{weights}: the weights can't be loaded"
    assert mistake.words.startswith(cut_words) or f"{tmp_path / cut}: has the hash" in mistake.words


def test_the_command_that_checks_a_bundle_names_the_file_that_is_cut(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED / "covid-densenet", tmp_path / "covid-densenet")
    weights = tmp_path / "covid-densenet" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:1_000_000])
    with pytest.raises(
        BadConfig, match=r"model\.onnx: its bytes were changed \(SHA-256 \w{12}, expected \w{12} by model"
    ):
        CliRunner().invoke(models_command, ["check", str(weights.parents[1])], catch_exceptions=False)
    digest_file(weights).unlink()
    with pytest.raises(BadConfig, match=r"model\.onnx: the weights can't be loaded .* expected a whole ONNX file; put"):
        CliRunner().invoke(models_command, ["check", str(weights.parents[1])], catch_exceptions=False)


def test_the_list_says_which_bundle_can_not_be_used(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED / "covid-densenet", tmp_path / "covid-densenet")
    (tmp_path / "covid-densenet" / METADATA).unlink()
    (tmp_path / "carina.toml").write_text(f'[models]\nfolders = ["{tmp_path}"]\n')
    listed = CliRunner().invoke(models_command, ["list", "--config", str(tmp_path / "carina.toml")])
    (line,) = [line for line in listed.output.splitlines() if "covid-densenet " in line]
    assert line.startswith("* covid-densenet       can't be used: ")
    assert f"{METADATA}: can't be read" in line
    assert "lung-ahnet" in listed.output
