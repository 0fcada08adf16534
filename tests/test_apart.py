"""Operators of packages run in processes of their own: whatever they do, it is bounded, told and ends with them."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from carina.config import Settings
from carina.errors import BadConfig, BadSeries, CarinaError, ModelFailed
from carina.pipeline.manifest import State, read_manifest
from ended_processes import gone, is_alive
from package_operators import Package
from toy_operators import step


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    return Package(tmp_path, monkeypatch)


def test_what_an_operator_says_and_gives_comes_back_from_its_process(package: Package) -> None:
    how = "print('a word'); assert settings.node.folder == 'elsewhere'; assert sys.stdin.read() == ''"
    settings = Settings()
    how = how.replace("elsewhere", settings.node.folder)
    result = package.act(how, services=(settings,))
    record = result.manifest.operators["bad"]
    assert result.load("bad", "/output").value == {"number": 7, "stored": ["value.json"]}
    assert record.state is State.DONE and record.warnings == [f"{how} began"]
    assert record.facts["pid"] != os.getpid() and record.facts["files"] == ["steps/bad.log"]
    assert (package.out / "steps" / "bad.log").read_text() == "a word\n"
    assert not (package.out / ".writing").exists()
    assert package.act(how, services=(settings,)).manifest.operators["bad"].facts["pid"] == record.facts["pid"]


def test_a_type_of_the_packages_own_is_read_in_its_processes_alone(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(files: object) -> None:
        raise AssertionError("read in the run's process")

    steps = step("give", "give", "[{path: /input}]") + step("take", "take", "[{from: give, path: /input}]")
    monkeypatch.setattr(package.module.Own, "load", load)
    result = package.run(steps)
    assert result.load("take", "/output").value == "7"
    (package.out / "steps" / "take" / "output" / "result.json").unlink()
    assert package.run(steps).load("take", "/output").value == "7"


ENDS = {
    "ends its process": ("os._exit(0)", "operator.died", "ended its process with exit code 0"),
    "crashes": ("ctypes.string_at(0)", "operator.died", "ended its process by SIGSEGV"),
    "is killed": ("os.kill(os.getpid(), 9)", "operator.died", "by SIGKILL, as where memory runs out"),
    "kills its guard": (
        "os.setsid(); os.kill(os.getppid(), 9); time.sleep(600)",
        "operator.died",
        "ended its process by SIGKILL",
    ),
    "raises": ("raise ValueError('DOE^JANE')", "operator.raised", "failed (ValueError at bad_package:2)"),
    "interrupts": ("raise KeyboardInterrupt('DOE^JANE')", "operator.raised", "failed (KeyboardInterrupt at "),
    "lacks a file": ("open('/nowhere/JANE')", "operator.raised", "failed (FileNotFoundError at "),
    "a full disk": ("raise OSError(28, 'DOE^JANE')", "output.disk-full", "no space left"),
}


@pytest.mark.parametrize("how", ENDS)
def test_however_it_ends_it_is_told_once_and_names_nobody(package: Package, how: str) -> None:
    code, error_code, words = ENDS[how]
    with pytest.raises(CarinaError, match=re.escape(words)) as caught:
        package.act(f"(context.folder / 'pid').write_text(str(os.getpid()))\n{code}")
    assert (caught.value.code, package.failure.code) == (error_code, error_code)
    assert "JANE" not in caught.value.message + caught.value.places
    assert "JANE" not in json.dumps(package.failure.message)
    assert gone(int((package.out / "pid").read_text()))
    if error_code == "operator.raised":
        assert "(act of bad 1.0)" in caught.value.message and package.failure.traceback == "bug-bad.txt"
        assert f"{package.out / 'bug-bad.txt'} has the traceback" in caught.value.message
        assert ("JANE" in (package.out / "bug-bad.txt").read_text()) is ("JANE" in code)


def test_an_error_that_it_raises_on_purpose_is_told_as_it_is(package: Package) -> None:
    with pytest.raises(BadSeries, match=r"^the lungs are cut off\.") as caught:
        package.act("raise BadSeries('lung.cut', 'the lungs are cut off.')")
    assert (caught.value.code, package.failure.traceback) == ("lung.cut", "")


def test_one_that_hangs_is_ended_at_its_time(package: Package) -> None:
    with pytest.raises(BadConfig, match=r"^operator 'bad' \(act of bad 1\.0\) was ended after 4 s, the limit of"):
        package.act("signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)", time_s=4.0)
    assert package.failure.code == "operator.time"


def test_one_that_prints_without_end_is_ended_and_its_log_bounded(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carina.operators.programs.LARGEST_LOG_BYTES", 1_000_000)
    with pytest.raises(BadConfig, match=r"was ended, because its log grew without end") as caught:
        package.act("while True: os.write(1, bytes(1 << 16))")
    assert caught.value.code == "operator.failed"
    assert (package.out / "steps" / "bad.log").stat().st_size == 1_000_000


def test_one_that_writes_without_end_is_ended(package: Package) -> None:
    with pytest.raises(BadConfig, match=r"wrote more than 0\.05 GB") as caught:
        package.act(
            "f = open(context.folder / '.writing' / 'x', 'wb')\nwhile True: f.write(bytes(1 << 20))", output_gb=0.05
        )
    assert caught.value.code == "operator.output-size"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the guard ends the process group")
def test_what_it_leaves_behind_ends_with_it(package: Package) -> None:
    place = str(package.folder / "daemon")
    waits = f"while not all(os.path.exists({place!r} + str(n)) for n in range(3)): time.sleep(0.01)"
    thread = "threading.Thread(target=time.sleep, args=[600]).start()"
    result = package.act(f"exec(LEAVES.replace('PLACE', repr({place!r})))\n{waits}\n{thread}")
    assert result.load("bad", "/output").value["number"] == 7
    for number in range(3):
        assert not is_alive(int(Path(f"{place}{number}").read_text()))


@pytest.mark.parametrize(
    "answer",
    ["{", '{"outputs": {"/output": ["../../manifest.json"]}}', '{"outputs": {"/output": ["none"]}}', '{"outputs": {}}'],
)
def test_an_answer_that_it_makes_up_is_none(package: Package, answer: str) -> None:
    place = "next(context.folder.glob('.writing/bad.*/')) / 'answer.json'"
    with pytest.raises(ModelFailed, match=r"^operator 'bad' \(act of bad 1\.0\)") as caught:
        package.act(f"({place}).write_text({answer!r}); os._exit(0)")
    assert caught.value.code in ("operator.died", "operator.output")
    manifest = read_manifest(package.out)
    assert manifest is not None and manifest.state is State.FAILED
