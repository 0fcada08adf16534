"""How the command line ends when something outside it goes wrong: streams that are lost, signals, faults of ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CARINA = Path(sys.executable).with_name("carina")
FAULT, BAD_CONFIG, NO_READER, TERMINATED, HUNG_UP = 1, 4, 141, 143, 129

PRINTING = [
    ["--help"],
    ["--version"],
    ["run", "--help"],
    ["pipelines", "list"],
    ["pipelines", "show"],
    ["operator", "list"],
    ["models", "list"],
    ["models", "card", "lung-ahnet"],
]


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_a_full_standard_output_is_one_line(words: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([CARINA, *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == BAD_CONFIG
    said = "carina: the standard output can't be written (No space left on device). [output.stdout]\n"
    assert done.stderr == said


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_a_pipe_that_nobody_reads_is_no_error(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([CARINA, *words], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (NO_READER, "")


def test_standard_output_may_be_closed_and_the_error_stream_full(tmp_path: Path) -> None:
    (tmp_path / "empty.dcm").write_bytes(b"")
    done = subprocess.run(["sh", "-c", f"{CARINA} pipelines list >&- 2>/dev/full"])
    assert done.returncode == 0
    listed = subprocess.run(["sh", "-c", f"{CARINA} series {tmp_path} >&-"], stderr=subprocess.PIPE, text=True)
    assert (listed.returncode, listed.stderr) == (0, "")
    refused = subprocess.run(["sh", "-c", f"{CARINA} series /nowhere >&- 2>/dev/full"])
    assert refused.returncode == 3


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_text_that_the_terminal_can_not_show_is_printed_all_the_same(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "lung-\u80f8.txt").touch()
    narrow = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([CARINA, "series", tmp_path / "lung-\u80f8.txt"], env=narrow, capture_output=True)
    assert done.returncode == 3
    assert done.stderr.startswith(b"carina: lung-")
    assert b"neither DICOM" in done.stderr


def with_a_verb(body: str) -> list[str]:
    """A command that is ``carina phantom`` with another body."""
    before = (
        "import os, signal, sys, time\nimport carina.cli.phantom as verb\nfrom carina.cli.main import main\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # where the tests run under nohup, it is ignored
    )
    callback = f"def callback(**_):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
    after = "verb.phantom.callback = callback\nsys.argv = ['carina', 'phantom', '-o', 'OUT']\nmain()\n"
    return [sys.executable, "-c", before + callback + after]


def test_a_fault_of_ours_is_one_line_that_says_where_to_report_it(tmp_path: Path) -> None:
    command = with_a_verb(r"raise ZeroDivisionError('by\n\x1b[31mzero')")
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (FAULT, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("carina: this is a fault of Carina's (ZeroDivisionError at __main__:")
    assert done.stderr.endswith(" It said: by [31mzero [bug.ZeroDivisionError]\n")


def test_its_traceback_is_printed_where_it_is_asked_for(tmp_path: Path) -> None:
    command = with_a_verb("{}['lung']")
    wanted = {**os.environ, "CARINA_TRACEBACK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=wanted)
    assert done.returncode == FAULT
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("[bug.KeyError]")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, TERMINATED), (signal.SIGHUP, HUNG_UP)])
def test_a_signal_ends_as_an_interruption_does(tmp_path: Path, number: signal.Signals, code: int) -> None:
    twice = f"os.kill(os.getpid(), {number:d}); " * 2
    command = with_a_verb(f"""
        try:
            {twice}time.sleep(60)
        finally:
            print("tidied up")
    """)
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=50)
    assert (done.returncode, done.stdout) == (code, "tidied up\n")
    resumes = "a run or a training resumes with the same command"
    assert done.stderr == f"carina: interrupted ({number.name}): {resumes}.\n"


def test_old_ways_to_say_where_results_go_name_the_new_one(tmp_path: Path) -> None:
    for words, said in (
        (["convert", "SOURCE", "TARGET"], "the folder is given with -o now: carina convert SOURCE -o TARGET"),
        (["models", "import", "PATH", "--into", "FOLDER"], "--into is -o/--out now"),
    ):
        done = subprocess.run([CARINA, *map(str, words)], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 2
        assert said in done.stderr


def test_a_phantom_may_be_written_into_the_working_folder(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    command = [str(CARINA), "phantom", "-o", ".", "--slices", "4", "--size", "32"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=work)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "work-truth.json").is_file()
