"""Programs of others end with all that they started, whatever ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from carina.errors import BadConfig
from carina.operators.programs import Over, Program, ProgramBounds, run_program
from carina.synth.phantom import chest_phantom
from carina.volume.files import write_volume
from ended_processes import gone, is_alive
from foreign_definitions import FROM_CT, READER, definition, foreign, go, python, trusting


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("scan") / "scan.mhd"
    write_volume(chest_phantom(shape=(36, 96, 96), lesions=0).volume, file)
    return file


LEAVES_A_CHILD = (
    "import subprocess, sys, time; "
    "one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    "open(PLACE, 'w').write(str(one.pid)); "
)


LEAVES_SESSIONS = """
import os, sys, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        for _ in range(3):
            if os.fork():
                os._exit(0)
            os.setsid()
        open(PLACE, "a").write(f"{os.getpid()}\\n")
        time.sleep(600)
while not os.path.exists(PLACE) or len(open(PLACE).read().split()) < 3:
    time.sleep(0.01)
"""


BUSY = (1, 10, 100)
"""How many times as long a program may take before its time ends, where it had not come to what it is tested for."""


@pytest.mark.parametrize(
    ("ends", "time_s", "code"),
    [("time.sleep(600)", 1.0, "operator.time"), ("sys.exit(2)", 600.0, "operator.failed")],
)
def test_whatever_ends_a_program_ends_its_children(
    scan: Path, tmp_path: Path, ends: str, time_s: float, code: str
) -> None:
    place = tmp_path / "child"
    program = LEAVES_A_CHILD.replace("PLACE", repr(str(place))) + ends
    file = definition(tmp_path / "mine.yaml", READER, foreign("slow", python(program), FROM_CT))
    for longer in BUSY:
        with pytest.raises(BadConfig, match="operator 'slow': its program") as caught:
            go(scan, tmp_path / f"run-{longer}", file, trusting(file, time_s=time_s * longer))
        if place.exists():
            break
    assert caught.value.code == code
    assert gone(int(place.read_text()))


ENDS = {"itself": "sys.exit(0)", "badly": "sys.exit(2)", "at its time": "time.sleep(600)"}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the guard ends the process group")
@pytest.mark.parametrize("ends", ENDS)
def test_what_moved_to_sessions_of_its_own_ends_too(tmp_path: Path, ends: str) -> None:
    place = tmp_path / "children"
    code = LEAVES_SESSIONS.replace("PLACE", repr(str(place))) + ENDS[ends]
    for longer in BUSY:
        place.unlink(missing_ok=True)
        bounds = ProgramBounds(time_s=3 * longer, writes_to=tmp_path, output_bytes=1e9)
        program = Program(words=[sys.executable, "-c", code], environment=None, folder=tmp_path, bounds=bounds)
        ended = run_program(program, tmp_path / "log", lambda: None)
        if place.exists() and len(place.read_text().split()) == 3:
            break
    assert ended == {"itself": 0, "badly": 2, "at its time": Over.TIME}[ends], (tmp_path / "log").read_text()
    children = [int(number) for number in place.read_text().split()]
    assert len(children) == 3 and not [child for child in children if is_alive(child)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_carina_ends_the_program_too(scan: Path, tmp_path: Path, number: signal.Signals) -> None:
    place = tmp_path / "child"
    program = LEAVES_SESSIONS.replace("PLACE", repr(str(place))) + "time.sleep(600)"
    file = definition(tmp_path / "mine.yaml", READER, foreign("slow", python(program), FROM_CT))
    environment = {**os.environ, "CARINA_OPERATORS_TRUSTED": str(file), "CARINA_OPERATORS_ENGINE": "none"}
    words = [sys.executable, "-m", "carina.cli.main", "run", str(scan), "-o", str(tmp_path / "run"), "--quiet"]
    with subprocess.Popen([*words, "--pipeline", str(file)], env=environment, stderr=subprocess.PIPE) as process:
        while not (place.exists() and len(place.read_text().split()) == 3):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.1)
        process.send_signal(number)
        process.wait()
    assert process.returncode == (143 if number is signal.SIGTERM else -9)
    assert all(gone(int(child)) for child in place.read_text().split())
