"""The engine, tested with whole numbers and text: it knows no medicine."""

from __future__ import annotations

import datetime as dt
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from carina.errors import BadConfig, BadSeries, ModelFailed
from carina.pipeline import ports
from carina.pipeline.engine import Event, What
from carina.pipeline.folder import LOCK, opened
from carina.pipeline.manifest import FailureRecord, Provenance, State, read_manifest
from carina.pipeline.operator import Operator
from carina.pipeline.run import run_pipeline
from carina.pipeline.table import OperatorTable
from toy_operators import DIAMOND, LOADED, Bench, Box, definition, run, step


def failure_of(out: Path, operator: str) -> FailureRecord:
    manifest = read_manifest(out)
    assert manifest is not None
    failure = manifest.operators[operator].error
    assert failure is not None
    return failure


def test_values_flow_and_every_output_is_stored(tmp_path: Path) -> None:
    result = run(Bench(), definition(*DIAMOND), tmp_path)
    assert result.load("sum", "/output").content == 7 * 3 + 7 * 5
    assert (tmp_path / "sum" / "box.txt").read_text() == "56"
    assert (tmp_path / "steps" / "left" / "output" / "box.txt").read_text() == "21"
    record = read_manifest(tmp_path)
    assert record is not None and record.state is State.DONE
    assert record.operators["sum"].outputs == {"/output": ["sum/box.txt"]}
    assert record.operators["sum"].warnings == ["added"]
    assert record.notice == "For research use only. Not for diagnosis."
    assert not (tmp_path / ".writing").exists()


def test_independent_operators_run_at_once(tmp_path: Path) -> None:
    steps = (DIAMOND[0], *(step(name, "meet", "[{from: first, path: /input}]") for name in ("a", "b")))
    result = run(Bench(), definition(*steps), tmp_path)  # the barrier breaks unless both are running
    assert [result.load(name, "/output").content for name in ("a", "b")] == [8, 8]


def test_a_value_is_dropped_after_its_last_reader(tmp_path: Path) -> None:
    steps = (*DIAMOND, step("again", "add", "[{from: sum, path: /left}]"))
    bench = Bench()
    bench.watches = True
    result = run(bench, definition(*steps), tmp_path)
    assert result.manifest.operators["again"].facts == {"alive": 0}


def test_named_outputs_services_and_progress(tmp_path: Path) -> None:
    events: list[Event] = []
    outputs = "[{path: /half, name: half}, {path: /text, name: words}]"
    steps = (DIAMOND[0], step("cut", "split", "[{from: first, path: /input}]", outputs))
    result = run(Bench(), definition(*steps), tmp_path, progress=events.append)
    assert (result.load("cut", "half"), result.load("cut", "words")) == (3, "hello")
    cut = [(event.what, event.fraction) for event in events if event.operator == "cut"]
    assert cut == [(What.STARTED, 0.0), (What.FRACTION, 0.5), (What.DONE, 1.0)]


def test_an_operator_can_ask_for_the_files_of_a_value(tmp_path: Path) -> None:
    steps = (DIAMOND[0], step("end", "sink", "[{from: first, path: /input}]", "[]"))
    result = run(Bench(), definition(*steps), tmp_path)
    assert result.manifest.operators["end"].facts == {"files": ["box.txt"]}


def test_a_failure_stops_only_what_depends_on_it_and_a_resume_runs_the_rest(tmp_path: Path) -> None:
    bench = Bench()
    bench.fail = {"left"}
    with pytest.raises(BadSeries, match="left can't go on"):
        run(bench, definition(*DIAMOND), tmp_path)
    record = read_manifest(tmp_path)
    assert record is not None and record.state is State.FAILED
    states = {name: operator.state.value for name, operator in record.operators.items()}
    assert states == {"first": "done", "left": "failed", "right": "done", "sum": "skipped"}
    assert record.operators["left"].error is not None and record.operators["left"].error.code == "toy.failed"
    assert (
        record.operators["sum"].error is not None and "'left' gave no result" in record.operators["sum"].error.message
    )

    bench.fail, bench.calls = set(), []
    LOADED.clear()
    result = run(bench, definition(*DIAMOND), tmp_path)
    assert bench.calls == ["left", "sum"]
    assert sorted(LOADED) == ["output", "output"]  # first for left, right for sum: nothing else was read
    assert result.load("sum", "/output").content == 56
    assert result.manifest.operators["left"].error is None and len(result.manifest.resumed) == 1


def test_a_finished_run_is_not_run_again_and_another_input_starts_anew(tmp_path: Path) -> None:
    bench = Bench()
    run(bench, definition(*DIAMOND), tmp_path, provenance=Provenance(inputs={"uid": "1"}))
    (tmp_path / "notes.txt").write_text("mine")
    bench.calls = []
    run(bench, definition(*DIAMOND), tmp_path, provenance=Provenance(inputs={"uid": "1"}))
    assert bench.calls == []
    (tmp_path / "sum" / "box.txt").unlink()
    run(bench, definition(*DIAMOND), tmp_path, provenance=Provenance(inputs={"uid": "1"}))
    assert bench.calls == ["sum"]
    bench.calls = []
    run(bench, definition(*DIAMOND[:1]), tmp_path, provenance=Provenance(inputs={"uid": "2"}))
    assert bench.calls == ["first"]
    assert not (tmp_path / "sum").exists() and (tmp_path / "notes.txt").read_text() == "mine"


KILLED = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from toy_operators import Bench, DIAMOND, definition, run
bench = Bench()
def stop(event):
    if event.operator == "left" and event.what == "done":
        os.kill(os.getpid(), signal.SIGKILL)
run(bench, definition(*DIAMOND), Path({out!r}), progress=stop, workers=1)
"""


def test_a_killed_run_resumes_after_the_last_finished_operator(tmp_path: Path) -> None:
    script = KILLED.format(tests=str(Path(__file__).parent), out=str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    bench = Bench()
    result = run(bench, definition(*DIAMOND), tmp_path)
    assert "first" not in bench.calls and "sum" in bench.calls
    assert result.load("sum", "/output").content == 56


def test_two_operators_never_write_the_same_file(tmp_path: Path) -> None:
    steps = (
        DIAMOND[0],
        step("one", "add", "[{from: first, path: /left}]"),
        step("two", "add", "[{from: first, path: /left}, {from: first, path: /right}]"),
    )
    result = run(Bench(), definition(*steps), tmp_path)
    assert (result.load("one", "/output").content, result.load("two", "/output").content) == (7, 14)


def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Box, folder: Path, saved: ports.Saved) -> Sequence[Path]:
        (folder / "box.txt").write_text("ha")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Box, "save", full)
    with pytest.raises(BadConfig, match="no space left: make room") as error:
        run(Bench(), definition(*DIAMOND), tmp_path / "run")
    assert error.value.code == "output.disk-full"
    assert [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()] == ["manifest.json"]


def test_too_little_room_is_said_before_anything_starts(tmp_path: Path) -> None:
    bench = Bench()
    with pytest.raises(BadConfig, match=r"needs about 1000000000000 MB, \d+ MB are free") as error:
        run(bench, definition(*DIAMOND), tmp_path / "a" / "run", needed_bytes=10**18)
    assert error.value.code == "output.disk-full"
    assert not (tmp_path / "a").exists() and bench.calls == []


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadConfig, match="can't be written") as error:
        run(Bench(), definition(*DIAMOND), tmp_path / "file" / "run")
    assert error.value.code == "output.unwritable"


def test_a_second_process_is_kept_out_and_the_lock_goes_with_the_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with opened(out, 0), pytest.raises(BadConfig, match="another Carina process is writing this run") as error:
        run(Bench(), definition(*DIAMOND), out)
    assert error.value.code == "output.busy"
    run(Bench(), definition(*DIAMOND), out)
    assert not (out / LOCK).exists()


def test_a_missing_input_and_a_missing_service_are_named(tmp_path: Path) -> None:
    table = Bench().table
    with pytest.raises(BadConfig, match=r"needs the input 'input' \(int\), which isn't given"):
        run_pipeline(definition(*DIAMOND), table, inputs={}, out=tmp_path)
    with pytest.raises(BadConfig, match="'input' must be int, not str"):
        run_pipeline(definition(*DIAMOND), table, inputs={"input": "7"}, out=tmp_path)
    outputs = "[{path: /half, name: half}]"
    steps = (DIAMOND[0], step("cut", "split", "[{from: first, path: /input}]", outputs))
    with pytest.raises(BadConfig, match="operator 'cut' needs a Greeting, which this run was not given"):
        run_pipeline(definition(*steps), table, inputs={"input": 7}, out=tmp_path)


def test_a_fault_is_a_row_that_names_its_operator_and_its_traceback_is_kept(tmp_path: Path) -> None:
    def broken(number: int) -> Box:
        return number  # type: ignore[return-value]

    operator = Operator(
        name="b", images=("toy/b",), function=broken, inputs={"/input": "number"}, outputs={"/output": ""}
    )
    with pytest.raises(ModelFailed, match=r"failed \(operator bad gave int at /output, declared as Box") as error:
        run_pipeline(
            definition(step("bad", "b", "[{path: /input}]")),
            OperatorTable.of(operator),
            inputs={"input": 1},
            out=tmp_path,
        )
    assert error.value.code == "operator.raised" and isinstance(error.value.__cause__, TypeError)
    failure = failure_of(tmp_path, "bad")
    assert (failure.code, failure.traceback) == ("operator.raised", "bug-bad.txt")
    assert f"{tmp_path / 'bug-bad.txt'} has the traceback" in failure.message
    told = (tmp_path / "bug-bad.txt").read_text()
    assert told.startswith("Traceback (most recent call last):") and told.endswith("in operator 'bad'\n")


def test_time_comes_from_the_clock_that_is_given(tmp_path: Path) -> None:
    when = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    result = run(Bench(), definition(*DIAMOND), tmp_path, clock=lambda: when)
    assert result.manifest.started == result.manifest.ended == "2026-01-02T03:04:05+00:00"


def test_an_interruption_ends_the_run_and_keeps_what_is_finished(tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if event.operator == "left" and event.what is What.DONE:
            raise KeyboardInterrupt

    bench = Bench()
    with pytest.raises(KeyboardInterrupt):
        run(bench, definition(*DIAMOND), tmp_path, progress=interrupt, workers=1)
    record = read_manifest(tmp_path)
    assert record is not None and record.operators["left"].state is State.DONE and record.state is State.INTERRUPTED
    bench.calls = []
    assert run(bench, definition(*DIAMOND), tmp_path).load("sum", "/output").content == 56
    assert "left" not in bench.calls
