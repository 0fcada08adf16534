"""Operators of others: containers and processes, their ports, bounds and ends."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from carina.api.study import RunSettings, run
from carina.config import load_settings
from carina.errors import BadConfig, ModelFailed
from carina.pipeline.manifest import read_manifest
from carina.sections import EngineChoice, OperatorSettings
from carina.synth.phantom import Phantom, chest_phantom
from carina.testing.dicom import write_ct_series
from carina.volume.files import read_mask, write_volume
from foreign_definitions import FROM_CT, READER, SHOW, definition, foreign, go, problems, python, trusting
from tiny_networks import tiny_environment

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "lung-profile"


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return chest_phantom(shape=(36, 96, 96), lesions=0)


@pytest.fixture(scope="module")
def scan(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("scan") / "scan.mhd"
    write_volume(phantom.volume, file)
    return file


# The example


def lungs_by_slice(run_folder: Path) -> list[tuple[int, float, float]]:
    mask = read_mask(next((run_folder / "lung").glob("*.mhd")), {1: "lung"})
    area_mm2 = mask.grid.spacing_mm[1] * mask.grid.spacing_mm[2]
    return [
        (number, round(number * mask.grid.spacing_mm[0], 3), round(int((one > 0).sum()) * area_mm2, 2))
        for number, one in enumerate(mask.labels)
    ]


def profile(run_folder: Path) -> list[tuple[int, float, float]]:
    with next((run_folder / "steps" / "lung-profile" / "output").glob("*.csv")).open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["slice", "position_mm", "lung_mm2"]
    return [(int(number), float(place), float(area)) for number, place, area in rows]


def test_the_example_measures_what_the_mask_holds(tmp_path: Path) -> None:
    write_ct_series(chest_phantom(shape=(36, 200, 200), lesions=0).volume, tmp_path / "ct")
    environment = tiny_environment(tmp_path / "bundles")
    settings = load_settings(None, {**environment, "CARINA_OPERATORS_ENGINE": "none"})
    file = EXAMPLE / "lung-profile.yaml"
    with pytest.raises(BadConfig, match=r"names the definition's file: .*lung-profile\.yaml"):
        run(tmp_path / "ct", tmp_path / "run", RunSettings(settings=settings, pipeline=file))
    trusted = {**environment, "CARINA_OPERATORS_ENGINE": "none", "CARINA_OPERATORS_TRUSTED": str(file)}
    how = RunSettings(settings=load_settings(None, trusted), pipeline=file)
    folder = run(tmp_path / "ct", tmp_path / "run", how).folder
    expected = lungs_by_slice(folder)
    assert sum(area for *_, area in expected) > 10_000
    assert profile(folder) == expected
    log = (folder / "steps" / "lung-profile.log").read_text()
    assert log == "lung-profile: 36 slices\n"


# Ports


THRESHOLD = """
import sys
from pathlib import Path
source, out = Path(sys.argv[1]), Path(sys.argv[2])
(header,) = source.glob("*.mhd")
lines = header.read_text().splitlines()
keys = dict(line.split(" = ", 1) for line in lines)
raw = (source / keys["ElementDataFile"]).read_bytes()
import array
hu = array.array("h", raw)
(out / "mask.raw").write_bytes(bytes(value < -500 for value in hu))
keys |= {"ElementType": "MET_UCHAR", "ElementDataFile": "mask.raw", "CompressedData": "False"}
(out / "mask.mhd").write_text("".join(f"{key} = {value}\\n" for key, value in keys.items()))
"""


def test_files_of_a_program_are_read_as_what_their_reader_takes(phantom: Phantom, scan: Path, tmp_path: Path) -> None:
    """A program finds the lungs; Carina's own operators measure them and write them as DICOM."""
    (tmp_path / "threshold.py").write_text(THRESHOLD)
    command = ["python", "threshold.py", "/input", "/output"]
    file = definition(
        tmp_path / "mine.yaml",
        READER,
        foreign("threshold", command, FROM_CT),
        "- {name: ratio, container: {image: carina/ai-volume-ratio}, input: [{from: threshold, path: /input}, "
        "{from: threshold, path: /label_image}], output: [{path: /output, name: metrics}]}\n",
    )
    folder = go(scan, tmp_path / "run", file)
    dark = int((phantom.volume.hu < -500).sum())
    mask = read_mask(folder / "steps" / "threshold" / "output" / "mask.mhd", {1: "dark"})
    assert np.array_equal(mask.labels > 0, phantom.volume.hu < -500) and dark
    told = next((folder / "steps" / "ratio" / "output").glob("volume-ratio.txt")).read_text()
    ml = round(dark * phantom.volume.grid.voxel_ml, 3)
    assert f"lungs: lung {ml} ml, lesion {ml} ml, ratio 100.0 %" in told
    manifest = read_manifest(folder)
    assert manifest is not None
    record = manifest.operators["threshold"]
    assert record.package == "python threshold.py /input /output" and record.image == "example/threshold"
    assert set(record.files) >= set(record.outputs["/output"]) | {"steps/threshold.log"}


def test_the_wrong_files_are_said_by_their_writer_and_reader(scan: Path, tmp_path: Path) -> None:
    file = definition(
        tmp_path / "mine.yaml",
        READER,
        foreign("liar", python("import sys; open(sys.argv[1] + '/x.mhd', 'w').write('no')", "/output"), FROM_CT),
        "- {name: seg, container: {image: carina/dicom-seg-writer}, input: [{from: liar, path: /input}, "
        "{path: /dcm}], output: [{path: /output, name: dicom}]}\n",
    )
    with pytest.raises(
        ModelFailed, match=r"^operator 'liar' /output: .* read as Mask: x\.mhd: is no MetaImage"
    ) as caught:
        go(scan, tmp_path / "run", file)
    assert caught.value.code == "operator.output"
    manifest = read_manifest(tmp_path / "run")
    assert manifest is not None and manifest.operators["liar"].error is None
    assert manifest.operators["seg"].error is not None


def test_a_program_reads_the_pipelines_input_and_another_program(scan: Path, tmp_path: Path) -> None:
    copy = "import sys, shutil; shutil.copytree(sys.argv[1], sys.argv[2], dirs_exist_ok=True)"
    file = definition(
        tmp_path / "mine.yaml",
        foreign("one", python(copy, "/input", "/output"), "[{path: /input}]"),
        foreign("two", python(copy, "/input", "/output"), "[{from: one, path: /input}]"),
    )
    folder = go(scan, tmp_path / "run", file)
    names = sorted(path.name for path in scan.parent.iterdir())
    for step in ("one", "two"):
        there = folder / "steps" / step / "output"
        assert sorted(path.name for path in there.iterdir()) == names
        assert all((there / name).read_bytes() == (scan.parent / name).read_bytes() for name in names)
    assert not (folder / ".writing").exists()


def test_variables_are_claras_and_the_steps_and_none_of_ours(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARINA_DEIDENTIFY_KEY", "secret" * 8)
    more = ", variables: {LIMIT: '-900', FOLDER: '/output/x'}"
    outputs = "[{path: /output, name: table}, {path: /logs, name: logs}]"
    file = definition(tmp_path / "mine.yaml", READER, foreign("show", python(SHOW, "/output"), FROM_CT, outputs, more))
    folder = go(scan, tmp_path / "run", file)
    seen = json.loads((folder / "steps" / "show" / "output" / "environment.json").read_text())
    assert seen["NVIDIA_CLARA_STAGENAME"] == "show" and seen["NVIDIA_CLARA_JOBNAME"] == "theirs"
    assert seen["NVIDIA_CLARA_JOBID"] == "run" and seen["LIMIT"] == "-900"
    assert seen["NVIDIA_CLARA_INPUTPATHS"].startswith("ct:") and seen["FOLDER"].endswith("/x")
    assert [one.split(":")[0] for one in seen["NVIDIA_CLARA_OUTPUTPATHS"].split(";")] == ["table", "logs"]
    assert Path(seen["NVIDIA_CLARA_INPUTPATHS"].split(":")[1]).name == "in-0"  # a folder, not the container's path
    assert not [name for name in seen if name.startswith("CARINA")]
    manifest = read_manifest(folder)
    assert manifest is not None and manifest.warnings == [
        "The program of operator 'show' wrote nothing to /logs.",
    ]


def test_a_program_finds_its_folders_though_the_run_folder_is_relative(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    file = definition(Path("home", "mine.yaml"), READER, foreign("show", python(SHOW, "/output"), FROM_CT))
    folder = go(Path(os.path.relpath(scan)), Path("runs", "one"), file)
    seen = json.loads((tmp_path / folder / "steps" / "show" / "output" / "environment.json").read_text())
    place = str(tmp_path / "runs" / "one" / ".writing" / "show.")
    assert seen["HOME"].startswith(place) and seen["TMPDIR"] == seen["HOME"]
    assert seen["NVIDIA_CLARA_INPUTPATHS"] == f"ct:{seen['HOME']}/in-0"
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["mine.yaml"]
    monkeypatch.chdir(tmp_path / "runs" / "one")
    assert go(scan, Path(), tmp_path / file) == Path()  # resumed from within


# Resuming


def test_a_finished_program_is_not_run_again_unless_it_changed(scan: Path, tmp_path: Path) -> None:
    script, count = tmp_path / "count.py", tmp_path / "count.txt"
    script.write_text(f"import sys; open({str(count)!r}, 'a').write('x'); open(sys.argv[1] + '/t.txt', 'w').write('1')")
    file = definition(tmp_path / "mine.yaml", READER, foreign("count", ["python", "count.py", "/output"], FROM_CT))
    folder = go(scan, tmp_path / "run", file)
    go(scan, tmp_path / "run", file)
    assert count.read_text() == "x"
    (folder / "steps" / "count" / "output" / "t.txt").write_text("tampered")
    go(scan, tmp_path / "run", file)
    assert count.read_text() == "xx"
    script.write_text(script.read_text() + "\n# another")
    go(scan, tmp_path / "run", file)
    assert count.read_text() == "xxx"


# Refused before anything runs


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (foreign("a", ["x"], "[{from: ct, path: /in/../../etc}]"), "'/in/../../etc' is no path that a folder can be"),
        (foreign("a", ["x"], "[{from: ct, path: '/in,readonly'}]"), "is no path that a folder can be mounted at"),
        (foreign("a", ["x"], FROM_CT, "[{path: /input/out}]"), "'/input' and '/input/out' lie in each other"),
        (foreign("a", ["x"], FROM_CT, more=", tag: '1 --privileged'"), "'example/a:1 --privileged' is no image name"),
        (foreign("a", ["x"], FROM_CT, more=", variables: {'A B': 1}"), "'A B' is no name of a variable"),
        (foreign("a", ["x\0"], FROM_CT), "a zero byte"),
        (foreign("a", [], FROM_CT), "it has no command that could be started as a process"),
        (foreign("a", ["no-such-program"], FROM_CT), "there is no program 'no-such-program' on this machine"),
    ],
)
def test_what_no_engine_could_run_is_a_mistake_of_the_definition(tmp_path: Path, step: str, expected: str) -> None:
    file = definition(tmp_path / "mine.yaml", READER, step)
    (problem,) = problems(file, trusting(file))
    assert problem.startswith("unknown image 'example/a'; `carina operator list` shows all") and expected in problem


def test_a_gpu_is_given_to_no_program(tmp_path: Path) -> None:
    step = foreign("a", ["python"], FROM_CT).rstrip().removesuffix("}") + ", requests: {gpu: 1}}\n"
    file = definition(tmp_path / "mine.yaml", READER, step)
    (problem,) = problems(file, trusting(file))
    assert "it asks for a GPU, which Carina gives to no program of others" in problem


@pytest.mark.parametrize("image", ["carina/ai-lnug", "clara/ai-liver"])
def test_a_name_of_our_own_is_never_somebody_elses(tmp_path: Path, image: str) -> None:
    file = definition(tmp_path / "mine.yaml", READER, foreign("a", ["python"], FROM_CT))
    file.write_text(file.read_text().replace("example/a", image))
    (problem,) = problems(file, trusting(file))
    assert problem.startswith(f"unknown image '{image}'; ") and "podman" not in problem and "trusted" not in problem


def test_without_an_engine_nothing_starts_that_is_not_trusted(scan: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    file = definition(tmp_path / "mine.yaml", READER, foreign("a", python(f"open({str(trace)!r}, 'w')"), FROM_CT))
    other = definition(tmp_path / "other.yaml", READER)
    told = (
        r"\[operators\] trusted in the settings \(CARINA_OPERATORS_TRUSTED\) names the definition's file: .*mine\.yaml"
    )
    with pytest.raises(BadConfig, match=told):
        go(scan, tmp_path / "run", file, trusting(other))
    with pytest.raises(BadConfig, match=told):
        go(scan, tmp_path / "run", file, OperatorSettings(engine=EngineChoice.NONE))
    assert not trace.exists()


# Ends


def test_an_exit_code_is_told_with_the_last_words(scan: Path, tmp_path: Path) -> None:
    code = "import sys; print('a'); print('b', file=sys.stderr); print('out of luck\\x1b[2J'); sys.exit(3)"
    file = definition(tmp_path / "mine.yaml", READER, foreign("bad", python(code), FROM_CT))
    told = r"^operator 'bad': its program ended with exit code 3; .*/steps/bad\.log has all it said\."
    with pytest.raises(BadConfig, match=told) as caught:
        go(scan, tmp_path / "run", file)
    assert caught.value.code == "operator.failed" and caught.value.said.endswith("out of luck [2J")
    assert (tmp_path / "run" / "steps" / "bad.log").read_text().splitlines()[0] in ("a", "b")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os, sys; os.symlink('/etc/hostname', sys.argv[1] + '/x.txt')", "x.txt is a link or a device"),
        ("import os, sys; os.symlink('/etc', sys.argv[1] + '/folder')", "folder is a link or a device"),
        ("import os, sys; os.mkfifo(sys.argv[1] + '/pipe')", "pipe is a link or a device"),
        ("import sys; open(sys.argv[1] + '/a\\nb', 'w')", "is no name for a file"),
        (
            "import os, sys; os.link(os.path.expanduser('~/in-0/') + os.listdir(os.path.expanduser('~/in-0'))[0], "
            "sys.argv[1] + '/copy.bin')",
            r"copy\.bin has another name elsewhere \(a hard link\)",
        ),
        ("import os, sys; os.rmdir(sys.argv[1])", "its folder is gone, or a link has its place"),
    ],
)
def test_only_plain_files_are_taken(scan: Path, tmp_path: Path, code: str, expected: str) -> None:
    file = definition(tmp_path / "mine.yaml", READER, foreign("sly", python(code, "/output"), FROM_CT))
    with pytest.raises(ModelFailed, match=f"^operator 'sly' /output: .*{expected}"):
        go(scan, tmp_path / "run", file)


@pytest.mark.parametrize("replaced", ["folder", "folder above"])
def test_nothing_is_taken_through_a_link_in_the_folders_place(scan: Path, tmp_path: Path, replaced: str) -> None:
    foreign_folder = tmp_path / "theirs"
    (foreign_folder / "out-0").mkdir(parents=True)
    for place in (foreign_folder, foreign_folder / "out-0"):
        (place / "precious.txt").write_text("kept")
    out = "sys.argv[1]" if replaced == "folder" else "os.path.dirname(sys.argv[1])"
    code = f"import os, sys; os.rename({out}, {out} + '-moved'); os.symlink({str(foreign_folder)!r}, {out})"
    file = definition(tmp_path / "mine.yaml", READER, foreign("sly", python(code, "/output"), FROM_CT))
    with pytest.raises(ModelFailed, match=r"^operator 'sly' /output: its folder is gone, or a link has its place"):
        go(scan, tmp_path / "run", file)
    assert [(place / "precious.txt").read_text() for place in (foreign_folder, foreign_folder / "out-0")] == [
        "kept"
    ] * 2
