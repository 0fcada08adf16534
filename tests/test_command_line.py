"""The command line: quick to start, clear when it refuses, nothing half-written left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from click.testing import CliRunner
from PIL import Image

from called import called
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from tiny_networks import tiny_environment

USAGE, BAD_SERIES, BAD_CONFIG = 2, 3, 4


def carina(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    with patch.dict(os.environ, environment):
        return called(*map(str, arguments), folder=Path())


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The command ended with this code and one line that has these words."""
    assert done.returncode == code, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chest") / "series"
    write_ct_series(chest_phantom(shape=(40, 192, 192), lesions=2, seed=2).volume, folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Networks for runs whose masks are not the point."""
    return tiny_environment(tmp_path_factory.mktemp("bundles"))


def written(folder: Path, **faults: object) -> Path:
    """A small series with faults."""
    volume = chest_phantom(shape=(24, 192, 192), lesions=0, seed=2).volume
    write_ct_series(volume, folder, settings=SeriesSettings(**faults))  # type: ignore[arg-type]
    return folder


HEAVY = {"numpy", "scipy", "pandas", "pydicom", "highdicom", "openvino", "rich", "msgspec", "torch", "carina.api"}


@pytest.mark.parametrize(
    "what", ["import carina", "import carina.cli.main", "from carina.cli.main import main; main()"]
)
def test_help_and_the_package_itself_import_nothing_heavy(what: str) -> None:
    code = f"""
import sys
sys.argv = ["carina", "--help"]
try:
    {what}
finally:
    print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_every_verb_has_help() -> None:
    from carina.cli.main import VERBS
    from carina.cli.main import carina as command

    for verb in VERBS:
        assert "Usage: carina" in CliRunner().invoke(command, [verb, "--help"]).output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fly"], "carina: No such command 'fly'. `carina --help` says what it takes."),
        (["run"], "carina run: Missing argument 'PATH'. `carina run --help` says what it takes."),
        (["run", "x", "--fly"], "carina run: No such option '--fly'. `carina run --help` says what it takes."),
        (["jobs", "show", "x"], "carina jobs show: Invalid value for "),
    ],
)
def test_wrong_usage_is_one_line(words: list[str], said: str) -> None:
    done = carina(*words)
    assert (done.returncode, done.stdout) == (USAGE, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(said)


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    program = [str(Path(sys.executable).with_name("carina")), "run", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300)
    refused(done, BAD_SERIES, "empty", "series.none-found")
    assert not (tmp_path / "out").exists()


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    refused(carina("run", tmp_path / "in", "-o", tmp_path / "out"), BAD_SERIES, "no such file or folder")


def test_a_picture(tmp_path: Path) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "chest.png")
    refused(carina("run", tmp_path / "chest.png", "-o", tmp_path / "out"), BAD_SERIES, "chest.png", "neither DICOM")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"modality": "MR"}, ("Modality is MR", "expected CT")),
        ({"pixel_data": False}, ("no pixel data",)),
        ({"missing": (10, 11)}, ("slices are missing", "mm")),
        ({"missing": tuple(range(1, 24))}, ("1 slice", "a volume needs several")),
        ({"truncated": (5,)}, ("truncated",)),
    ],
    ids=["MR", "no pixel data", "a gap", "one slice", "a truncated file"],
)
def test_series_that_can_not_be_used(tmp_path: Path, faults: dict[str, object], words: tuple[str, ...]) -> None:
    folder = written(tmp_path / "in", **faults)
    refused(carina("run", folder, "-o", tmp_path / "out"), BAD_SERIES, *words)
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_can_not_be_made(tmp_path: Path, series: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(carina("run", series, "-o", tmp_path / "file" / "out"), BAD_CONFIG, "can't be written", "output.unwritable")


@pytest.mark.skipif(not Path("/dev/shm").is_dir() or os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_disk_that_is_too_small(tmp_path: Path, series: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("this machine does not allow mounting a small disk")
    try:
        refused(carina("run", series, "-o", small / "out"), BAD_CONFIG, "make room", "output.disk-full")
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_definition_with_mistakes(tmp_path: Path, series: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("api-version: 0.4.0\nname: wrong\noperators:\n- name: a\n  container: {image: clara/nothing}\n")
    done = carina("run", series, "-o", tmp_path / "out", "--pipeline", wrong)
    assert done.returncode == BAD_CONFIG
    assert "wrong.yaml:5: unknown image 'clara/nothing'" in done.stderr


def test_a_setting_that_is_not_known(tmp_path: Path, series: Path) -> None:
    refused(carina("run", series, "-o", tmp_path / "out", CARINA_RUNTIME_KIND="abacus"), BAD_CONFIG, "abacus")


def test_a_cohort_goes_on_after_a_bad_study(tmp_path: Path, series: Path, tiny: dict[str, str]) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(series, archive / "good")
    written(archive / "bad", study="another", missing=(10, 11))
    done = carina("run", archive, "-o", tmp_path / "out", "--each", "study", **tiny)
    assert done.returncode == BAD_SERIES
    assert "1 done, 1 failed" in done.stdout
    assert "slices are missing" in done.stdout
    table = (tmp_path / "out" / "cohort.csv").read_text()
    assert table.count("\n") == 3
    assert "lungs lung_ml" in table
    assert ",failed," in table
    again = carina("run", archive, "-o", tmp_path / "out", "--each", "study", **tiny)
    assert "1 done, 1 failed" in again.stdout


def test_a_volume_file_has_results_but_no_dicom_objects(tmp_path: Path, series: Path, tiny: dict[str, str]) -> None:
    assert carina("convert", series, "-o", tmp_path / "nifti", "--format", "nifti").returncode == 0
    file = next((tmp_path / "nifti").glob("*.nii.gz"))
    done = carina("run", file, "-o", tmp_path / "out", **tiny)
    assert done.returncode == 0, done.stderr
    assert "DICOM" in done.stdout
    assert (tmp_path / "out" / "findings.csv").is_file()
    assert not list((tmp_path / "out").glob("dicom/*.dcm"))


def test_everything_is_printed_through_the_terminal() -> None:
    """Text from outside may break lines or turn colours on: one module cleans it, so no other prints."""
    sources = (Path(__file__).parents[1] / "src" / "carina" / "cli").glob("*.py")
    loose = [file.name for file in sources if file.name != "terminal.py" and "click.echo" in file.read_text()]
    assert loose == []
