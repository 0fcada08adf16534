"""Networks that can't be used: health says so where pipelines need them, and jobs that need none run."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from carina.api.study import RunSettings, run
from carina.cli.models import models as models_command
from carina.config import RuntimeKind, Settings
from carina.errors import BadConfig
from carina.models.bundle import METADATA, SHIPPED, WEIGHTS
from carina.models.weights_digest import digest_file
from carina.operators.catalogue import known_definitions
from carina.operators.needed import NETWORK_IMAGES, TASKS, needed_tasks
from carina.operators.table import BUILT_IN
from carina.pipeline.definition import load_definition
from carina.pipeline.manifest import read_manifest
from carina.service.check_bundles import bundle_remarks
from carina.service.health import readiness
from carina.service.networks import network_troubles
from carina.synth.phantom import chest_phantom
from carina.volume.files import write_volume
from foreign_definitions import READER, definition
from served_nodes import opened

NAME, LOOK = "lesion-segresnet", "lesion-first-look"
TROUBLE = "networks: models.lesion can't be used, and jobs that need it fail: carina serve --check says why"


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "weights cut": lambda place: _cut(place / NAME / WEIGHTS),
    "weights empty": lambda place: os.truncate(place / NAME / WEIGHTS, 0),
    "weights of zeros": lambda place: (place / NAME / WEIGHTS).write_bytes(bytes(1000)),
    "weights with a hole at the start": lambda place: _overwrite(place / NAME / WEIGHTS),
    "no weights": lambda place: (place / NAME / WEIGHTS).unlink(),
    "no metadata": lambda place: (place / NAME / METADATA).unlink(),
    "metadata cut": lambda place: os.truncate(place / NAME / METADATA, 100),
    "first look cut": lambda place: _cut(place / LOOK / WEIGHTS),
    "first look away": lambda place: (place / LOOK / WEIGHTS).unlink(),
    "first look with a changed byte": lambda place: _change(place / LOOK / WEIGHTS),
}
SEEN_BY_DIGEST: dict[str, Callable[[Path], object]] = {
    "a changed byte": lambda place: _change(place / NAME / WEIGHTS),
    "zeros from the middle on": lambda place: _overwrite(place / NAME / WEIGHTS, at=1_000_000, count=1_401_873),
    "no digest in its file": lambda place: digest_file(place / NAME / WEIGHTS).write_text("none"),
}
EVERY = [(harm, is_kept) for harm in DAMAGE.values() for is_kept in (True, False)]
EVERY += [(harm, True) for harm in SEEN_BY_DIGEST.values()]
NAMES = [f"{name}, {how}" for name in DAMAGE for how in ("by digest", "without one")] + [*SEEN_BY_DIGEST]
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


def _overwrite(file: Path, *, at: int = 0, count: int = 4096) -> None:
    """Its length and the time of its bytes stay as they were."""
    before = file.stat()
    with file.open("r+b") as opened_file:
        opened_file.seek(at)
        opened_file.write(bytes(count))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _change(file: Path) -> None:
    _overwrite(file, at=1_200_000, count=1)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the lesion network and its first look."""
    for name in (NAME, LOOK):
        shutil.copytree(SHIPPED / name, tmp_path / "models" / name)
    return tmp_path / "models"


def with_models(place: Path, settings: Settings | None = None) -> Settings:
    settings = settings or Settings()
    models = msgspec.structs.replace(settings.models, folders=(str(place),))
    return msgspec.structs.replace(settings, models=models)


@pytest.mark.parametrize(("harm", "is_kept"), EVERY, ids=NAMES)
def test_a_needed_network_that_can_not_be_used_is_a_trouble_until_it_is_mended(
    place: Path, harm: Callable[[Path], object], *, is_kept: bool
) -> None:
    settings = with_models(place)
    for name in () if is_kept else (NAME, LOOK):
        digest_file(place / name / WEIGHTS).unlink()
    assert network_troubles(settings, NOW) == {}
    harm(place)
    assert list(network_troubles(settings, NOW)) == ["models.lesion"]
    shutil.copytree(SHIPPED / NAME, place / NAME, dirs_exist_ok=True)
    shutil.copytree(SHIPPED / LOOK, place / LOOK, dirs_exist_ok=True)
    assert network_troubles(settings, NOW) == {}


def test_a_name_that_no_bundle_has_is_a_trouble() -> None:
    models = msgspec.structs.replace(Settings().models, covid="none-such")
    (words,) = network_troubles(msgspec.structs.replace(Settings(), models=models), NOW).values()
    assert words.startswith("No bundle is called 'none-such'")


def test_files_are_read_once_for_a_state_of_theirs_and_an_hour(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that a disk lost have the size and the times that they had."""
    settings = with_models(place)
    network_troubles(settings, NOW)
    monkeypatch.setattr("carina.service.networks.check_usable", lambda *_, **__: pytest.fail("it was read again"))
    network_troubles(settings, NOW + timedelta(minutes=59))
    with pytest.raises(pytest.fail.Exception, match="it was read again"):
        network_troubles(settings, NOW + timedelta(hours=1))


def test_weights_on_a_server_are_the_servers(place: Path) -> None:
    _cut(place / LOOK / WEIGHTS)
    _cut(place / NAME / WEIGHTS)
    shutil.copyfile(SHIPPED / LOOK / WEIGHTS, place / LOOK / WEIGHTS)
    digest_file(place / NAME / WEIGHTS).unlink()
    settings = with_models(place)
    for changed in ({"kind": RuntimeKind.TRITON}, {"endpoint": "http://127.0.0.1:1"}):
        runtime = msgspec.structs.replace(settings.runtime, **changed)
        assert network_troubles(msgspec.structs.replace(settings, runtime=runtime), NOW) == {}


def test_a_node_that_can_only_fail_its_jobs_is_not_ready_for_whoever_asks(place: Path, tmp_path: Path) -> None:
    no_network = definition(tmp_path / "plain.yaml", READER)
    for pipeline, troubles in (("default", [TROUBLE]), (no_network, [])):
        shutil.rmtree(tmp_path / "node", ignore_errors=True)
        source = f'[sources.a]\nkind = "folder"\npath = "{tmp_path}/in"\npipelines = ["{pipeline}"]\n'
        node = opened(tmp_path, f'{source}[models]\nfolders = ["{place}"]\n')
        (place / NAME / METADATA).unlink(missing_ok=True)
        for seen in (node, node.seen_in(frozenset())):
            assert [one for one in readiness(seen).troubles if one.startswith("networks")] == troubles
        node.engine.dispose()


def test_the_check_names_weights_that_are_cut_also_of_a_bundle_that_nobody_uses(place: Path) -> None:
    shutil.copytree(place / LOOK, place / "other")
    _cut(place / "other" / WEIGHTS)
    digest_file(place / "other" / WEIGHTS).unlink()
    settings = place.parent / "carina.toml"
    settings.write_text(f'[models]\nfolders = ["{place}"]\n')
    listed = CliRunner().invoke(models_command, ["list", "--config", str(settings)]).output
    assert "other                can't be used: " in listed
    remark, lack = bundle_remarks(with_models(place))
    assert remark.startswith(f"models.folders: other can't be used: {place}/other/{WEIGHTS}: the weights are no whole")
    assert lack.startswith("models.folders: other: no model.onnx.sha256 lies beside its weights, so changed bytes")


def test_a_job_that_needs_no_network_runs_whatever_is_damaged(place: Path, tmp_path: Path) -> None:
    _cut(place / NAME / WEIGHTS)
    (place / "lung-ahnet").mkdir()
    (place / "covid-densenet").mkdir()
    write_volume(chest_phantom(shape=(36, 96, 96), lesions=0).volume, tmp_path / "scan.mhd")
    plain = definition(tmp_path / "plain.yaml", READER)
    folder = run(
        tmp_path / "scan.mhd", tmp_path / "run", RunSettings(settings=with_models(place), pipeline=plain)
    ).folder
    manifest = read_manifest(folder)
    assert manifest is not None and "lung" not in manifest.bundles
    lesions = READER + (
        "- {name: lesion, container: {image: carina/ai-covid-lesion}, input: [{from: ct, path: /input}], "
        "output: [{path: /output}]}\n"
    )
    told = r"lesion-segresnet/models/model\.onnx: its bytes were changed \(SHA-256 "
    with pytest.raises(BadConfig, match=told):  # and not a word of the lung's, which it doesn't need
        how = RunSettings(settings=with_models(place), pipeline=definition(tmp_path / "lesions.yaml", lesions))
        run(tmp_path / "scan.mhd", tmp_path / "again", how)
    assert not (tmp_path / "again").exists()


def test_every_operator_that_opens_a_network_is_known_by_its_image() -> None:
    opening = {
        image
        for operator in BUILT_IN.operators
        if any(words in inspect.getsource(inspect.getmodule(operator.function)) for words in _OPENING)  # type: ignore[arg-type]
        for image in operator.images
    }
    assert opening == {image for images in NETWORK_IMAGES.values() for image in images}


_OPENING = ("networks.opened(", "segment_volume(volume")


def test_pipelines_that_ship_need_all_three() -> None:
    needed = [needed_tasks(load_definition(file)) for file in known_definitions().values()]
    assert needed and set(needed) == {TASKS}
