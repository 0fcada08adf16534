"""How a run ends that can't go on: signals, and what the operating system says. One line, the right exit code."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from called import called
from carina.errors import CarinaError
from carina.pipeline import Operator, OperatorTable
from carina.pipeline.manifest import State, read_manifest
from carina.pipeline.ports import Saved
from carina.pipeline.run import run_pipeline
from toy_operators import DIAMOND, Bench, Box, definition, run, step
from waiting import wait_until

HERE = Path(__file__).parent

WORKING = """
import signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from toy_operators import DIAMOND, Bench, Box, definition, run, step
def stop(number, frame):
    raise {raised}
signal.signal(signal.SIGTERM, stop)
def report(event):
    if event.operator == "left" and event.what == "started":
        print("working", flush=True)
        while True:
            time.sleep(0.01)
run(Bench(), definition(*DIAMOND), Path({out!r}), progress=report)
"""


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "SystemExit(143)"])
def test_a_signal_ends_a_run_and_the_manifest_says_so(tmp_path: Path, raised: str) -> None:
    script = WORKING.format(tests=str(HERE), out=str(tmp_path), raised=raised)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"working\n"
        running = read_manifest(tmp_path)
        assert running is not None and running.state is State.RUNNING
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    assert process.returncode == (143 if raised.startswith("SystemExit") else -signal.SIGINT)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    states = {name: record["state"] for name, record in manifest["operators"].items()}
    assert manifest["state"] == "interrupted" and manifest["ended"]
    assert states["first"] in ("done", "interrupted") and states["left"] == "interrupted" and states["sum"] == "waiting"
    assert sorted(path.name for path in tmp_path.iterdir()) in (["manifest.json"], ["manifest.json", "steps"])
    assert run(Bench(), definition(*DIAMOND), tmp_path).load("sum", "/output").content == 56


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            ValueError("a\nb\udce9"),
            "operator.raised",
            "^operator .left. .double of toy_op.*.ValueError at toy_operators:",
        ),
        (SystemExit(3), "operator.raised", "failed .SystemExit at "),
        (RecursionError("deep"), "operator.raised", "RecursionError at "),
        (MemoryError(), "node.memory", "the memory of this machine did not suffice"),
        (OSError(errno.ENOSPC, "No space left"), "output.disk-full", "no space left: make room"),
        (AssertionError(), "operator.raised", "AssertionError"),
    ],
)
def test_whatever_an_operator_raises_is_a_row_and_the_rest_runs(
    tmp_path: Path, error: BaseException, code: str, words: str
) -> None:
    bench = Bench()
    bench.raising = {"left": error}
    with pytest.raises(CarinaError, match=words) as raised:
        run(bench, definition(*DIAMOND), tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest is not None and manifest.state is State.FAILED and raised.value.code == code
    states = {name: record.state.value for name, record in manifest.operators.items()}
    assert states == {"first": "done", "left": "failed", "right": "done", "sum": "skipped"}
    failure = manifest.operators["left"].error
    assert failure is not None and failure.code == code and "\n" not in failure.message
    assert bool(failure.traceback) == (code == "operator.raised") == (tmp_path / "bug-left.txt").exists()
    bench.raising = {}
    run(bench, definition(*DIAMOND), tmp_path)
    assert not (tmp_path / "bug-left.txt").exists()


def test_the_volumes_of_a_failed_operator_are_let_go(tmp_path: Path) -> None:
    bench = Bench()
    bench.fail, bench.watches = {"left"}, True
    steps = (*DIAMOND[:3], step("sum", "add", "[{from: right, path: /left}]"))
    with pytest.raises(CarinaError, match="left can't go on"):
        run(bench, definition(*steps), tmp_path, workers=1)
    manifest = read_manifest(tmp_path)
    assert manifest is not None and manifest.operators["sum"].facts == {"alive": 0}


READ_ONLY_PIPELINE = """
api-version: 0.4.0
name: read
operators:
- {name: reader, container: {image: carina/dicom-reader}, input: [{path: /input}], output: [{path: /output}]}
"""


def test_the_command_line_ends_with_143_and_one_line_when_it_is_terminated(tmp_path: Path) -> None:
    from carina.synth.phantom import chest_phantom
    from carina.volume.files import write_volume

    write_volume(chest_phantom(shape=(40, 200, 200), lesions=0).volume, tmp_path / "ct.nii.gz")
    words = [sys.executable, "-m", "carina.cli.main", "run", str(tmp_path / "ct.nii.gz"), "-o", str(tmp_path / "run")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: "running" in states(tmp_path / "run"), process)
        process.terminate()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 143
    assert said.splitlines() == ["carina: interrupted (SIGTERM): a run or a training resumes with the same command."]
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["state"] == "interrupted"
    assert "running" not in states(tmp_path / "run") and not (tmp_path / "run" / ".lock").exists()


def states(out: Path) -> set[str]:
    if not (out / "manifest.json").exists():
        return set()
    return {record["state"] for record in json.loads((out / "manifest.json").read_text())["operators"].values()}


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from carina.synth.phantom import chest_phantom
    from carina.volume.files import write_volume

    file = tmp_path_factory.mktemp("volume") / "ct.nii.gz"
    write_volume(chest_phantom(shape=(36, 200, 200), lesions=0).volume, file)
    (file.parent / "read.yaml").write_text(READ_ONLY_PIPELINE)
    return file


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder whose permissions are mended at the end."""
    yield tmp_path
    for folder, folders, _ in os.walk(tmp_path):
        for one in folders:
            Path(folder, one).chmod(0o700)


@contextmanager
def as_any_user() -> Iterator[None]:
    """Permissions hold for this thread, and those that it starts, as for any user, whoever runs the tests."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    version, held = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(version, held) == 0
    before = held[0]
    held[0] &= ~OF_ROOT
    assert libc.capset(version, held) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        held[0] = before
        assert libc.capset(version, held) == 0, os.strerror(ctypes.get_errno())


CAPABILITIES_VERSION = 0x20080522
OF_ROOT = 1 << 1 | 1 << 2 | 1 << 3
"""``CAP_DAC_OVERRIDE``, ``CAP_DAC_READ_SEARCH`` and ``CAP_FOWNER``, by which root may do what permissions forbid."""


def words_of(volume: Path, out: Path | str) -> list[str]:
    return ["run", str(volume), "-o", str(out), "--pipeline", str(volume.parent / "read.yaml"), "--quiet"]


def carina_run(volume: Path, out: Path | str) -> subprocess.CompletedProcess[str]:
    with as_any_user():
        return called(*words_of(volume, out), folder=Path())


def folder(path: Path, mode: int) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


def run_with(path: Path, name: str, mode: int) -> Path:
    """A run's folder with a file in it that can't be used."""
    path.mkdir()
    (path / name).write_text("")
    (path / name).chmod(mode)
    return path


def with_folder(path: Path, name: str) -> Path:
    (path / name).mkdir(parents=True)
    (path / name / "x").write_text("")
    return path


def file(path: Path) -> Path:
    path.write_text("")
    return path


CASES: dict[str, Callable[[Path], Path | str]] = {
    "read-only": lambda place: folder(place / "out", 0o500),
    "below read-only": lambda place: folder(place / "up", 0o500) / "out",
    "not to be entered": lambda place: folder(place / "out", 0o600),
    "below one not to be entered": lambda place: folder(place / "up", 0o600) / "out",
    "not to be looked at": lambda place: folder(place / "out", 0o000),
    "a file": lambda place: file(place / "out"),
    "below a file": lambda place: file(place / "up") / "out" / "deeper",
    "name too long": lambda place: place / ("a" * 300),
    "path too long": lambda place: place / "/".join(["a" * 200] * 30),
    "lock not writable": lambda place: run_with(place / "out", ".lock", 0o400),
    "lock is a folder": lambda place: with_folder(place / "out", ".lock"),
    "writing is a file": lambda place: run_with(place / "out", ".writing", 0o600),
    "manifest is a folder": lambda place: with_folder(place / "out", "manifest.json"),
    "volume is a file": lambda place: run_with(place / "out", "volume", 0o600),
    "proc": lambda place: "/proc/carina",
}


@pytest.mark.parametrize("case", CASES)
def test_an_output_place_that_can_not_be_used_is_one_line_and_exit_code_4(case: str, place: Path, volume: Path) -> None:
    ended = carina_run(volume, CASES[case](place))
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 4, line
    seen = "is no file; expected the manifest" if case == "manifest is a folder" else "can't be written ("
    assert line.startswith("carina: ") and seen in line and ended.stdout == ""


def test_a_manifest_without_permission_is_set_aside(place: Path, volume: Path) -> None:
    out = run_with(place / "out", "manifest.json", 0o000)
    ended = carina_run(volume, out)
    assert ended.returncode == 0, ended.stderr
    warning, *_ = json.loads((out / "manifest.json").read_text())["warnings"]
    assert "can't be read (Permission denied). It is set aside as manifest.unreadable-1.json" in warning


@pytest.mark.parametrize("kilobytes", [1, 100])
def test_a_place_that_is_full_is_one_line_and_exit_code_4(kilobytes: int, place: Path, volume: Path) -> None:
    """Files may not grow beyond a limit, which the system reports as it reports a full disk."""
    shell = ["bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash", sys.executable, "-m", "carina.cli.main"]
    ended = subprocess.run([*shell, *words_of(volume, place / "out")], capture_output=True, text=True, timeout=120)
    line = ended.stderr.splitlines()[-1]  # the library that writes MetaImage has its own word before
    assert ended.returncode == 4, line
    assert "can't be written (" in line and "Traceback" not in ended.stderr
    assert [path.name for path in place.rglob("*") if path.is_file()] in ([], ["manifest.json"])


RAISED = [ValueError("odd"), KeyError("x"), FileNotFoundError(errno.ENOENT, "none", "/nowhere"), SystemExit(0)]


@pytest.mark.parametrize("error", RAISED)
@pytest.mark.parametrize("package", ["toys 1.2", "", "Carina's own"])
def test_a_fault_is_that_of_the_makers(tmp_path: Path, error: BaseException, package: str) -> None:
    def fails(number: int) -> int:
        raise error

    if package == "Carina's own":
        fails.__module__ = "carina.operators.fails"
    operator = Operator(
        name="one",
        images=("toy/one",),
        function=fails,
        inputs={"/input": "number"},
        outputs={"/output": ""},
        package=package,
    )
    steps = definition(step("failing", "one", "[{path: /input}]"))
    with pytest.raises(CarinaError) as raised:
        run_pipeline(steps, OperatorTable.of(operator), inputs={"input": 1}, out=tmp_path)
    if package == "Carina's own":
        assert "operator.raised" not in str(raised.value.code) and "to its makers" not in str(raised.value)
        return
    named = f"operator 'failing' (one of {package or __name__}) failed ({type(error).__name__} at test_run_ends:"
    assert raised.value.code == "operator.raised" and str(raised.value).startswith(named)
    assert "report it to its makers" in str(raised.value) and "issue tracker" not in str(raised.value)
    trace = (tmp_path / "bug-failing.txt").read_text()
    assert type(error).__name__ in trace and trace.endswith("in operator 'failing'\n")


class Odd(Box):
    """A value that can't be stored."""

    def save(self, folder: Path, saved: Saved) -> Sequence[Path]:
        raise LookupError("no words")


def test_a_value_of_others_that_can_not_be_stored_is_theirs_too(tmp_path: Path) -> None:
    def fill(number: int) -> Odd:
        return Odd(number)

    operator = Operator(
        name="fill", images=("toy/fill",), function=fill, inputs={"/input": "number"}, outputs={"/output": ""}
    )
    steps = definition(step("odd", "fill", "[{path: /input}]"))
    with pytest.raises(
        CarinaError, match=r"^operator 'odd' \(fill of test_run_ends\) failed \(LookupError at test_run_ends:"
    ):
        run_pipeline(steps, OperatorTable.of(operator), inputs={"input": 1}, out=tmp_path)
