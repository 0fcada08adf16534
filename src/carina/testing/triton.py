"""A real Triton Inference Server on the loopback address for tests: the one inside the wheel ``nvidia-pytriton``.

Of that wheel only the server and its Python backend are used, so it may lie apart, without its dependencies (it asks
for NumPy 1): ``pip install --no-deps --target PREFIX/tritonserver nvidia-pytriton``, PREFIX being ``sys.prefix``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from carina.testing.ports import LOOPBACK, free_port

INSTALL = "pip install --no-deps --target PREFIX/tritonserver nvidia-pytriton (PREFIX: the environment's folder)"


@dataclass(frozen=True, kw_only=True)
class Triton:
    """A running server: its endpoints as ``runtime.endpoint`` takes them, its log, and its process."""

    http: str
    grpc: str
    log: Path
    process: subprocess.Popen[bytes]


def triton_folder() -> Path | None:
    """Where the server of ``nvidia-pytriton`` is installed, None where it is not, or not for this Python."""
    found = find_spec("pytriton")
    places = [Path(place) for place in (found.submodule_search_locations or [] if found else [])]
    for place in [*places, Path(sys.prefix) / "tritonserver" / "pytriton"]:
        if _stub(place / "tritonserver").is_file():
            return place / "tritonserver"
    return None


@contextmanager
def tritonserver(
    repository: Path,
    *,
    load: tuple[str, ...] | None = None,
    ports: tuple[int, int] | None = None,
    timeout_s: float = 60.0,
    wait_for: Literal["ready", "live"] = "ready",
) -> Iterator[Triton]:
    """Serve a model repository over HTTP and gRPC on the loopback address until the block ends.

    ``load`` names the models to load, by default all. ``ports`` are those of HTTP and gRPC, by default free ones.
    ``wait_for`` "live" gives the server as it is, also with models that have failed to load. It is waited for as long
    as it gets on: its log grows, or its processes compute. Having done neither for ``timeout_s`` it is given up.

    Raises:
        RuntimeError: the server is not installed, ended, or stood still; the message has its log's errors.
    """
    home = triton_folder()
    if home is None:
        raise RuntimeError(f"tritonserver is not installed; {INSTALL}")
    with tempfile.TemporaryDirectory(prefix="carina-triton-") as name:
        folder = Path(name)
        _copy_backend(home, folder / "backends")
        ports = ports or (free_port(), free_port())
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *_command(home, repository, folder / "backends", ports),
                    *(f"--load-model={one}" for one in load or ("*",)),
                ],
                env=_environment(home),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        http, grpc = (f"{kind}://{LOOPBACK}:{port}" for kind, port in zip(("http", "grpc"), ports, strict=True))
        server = Triton(http=http, grpc=grpc, log=folder / "log", process=process)
        try:
            _wait(server, wait_for, timeout_s)
            yield server
        finally:
            _stop(process)


def _stub(home: Path) -> Path:
    """The Python backend's process for this Python's version."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return home / "python_backend_stubs" / version / "triton_python_backend_stub"


def _copy_backend(home: Path, backends: Path) -> None:
    """The server looks for the stub beside the backend's library; the wheel keeps one for each Python elsewhere."""
    shutil.copytree(home / "backends", backends)
    stub = shutil.copy(_stub(home), backends / "python")
    Path(stub).chmod(0o755)


def _command(home: Path, repository: Path, backends: Path, ports: tuple[int, int]) -> list[str]:
    return [
        str(home / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        "--model-control-mode=explicit",
        f"--http-address={LOOPBACK}",
        f"--http-port={ports[0]}",
        f"--grpc-address={LOOPBACK}",
        f"--grpc-port={ports[1]}",
        "--allow-metrics=false",
        # A model that fails to load is the models' matter: the server stays and says why when asked.
        "--exit-on-error=false",
        "--exit-timeout-secs=5",
    ]


def _environment(home: Path) -> dict[str, str]:
    """The wheel's libraries and this Python's own; this environment's programs come first on the path.

    The Python backend embeds an interpreter that heeds no PYTHONPATH: it looks for ``python3`` on the path, and takes
    the packages of the environment it is found in.
    """
    libraries = [home / "external_libs", home.parents[1] / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
    programs = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(str(library) for library in libraries if library),
        "PATH": os.pathsep.join(programs),
    }


def _wait(server: Triton, health: str, timeout_s: float) -> None:
    """Come back when the server is ready. It opens its ports after loading: if it lives unready, a model failed."""
    known, moved = _progress(server), time.monotonic()
    while server.process.poll() is None and time.monotonic() - moved < timeout_s:
        try:
            with urllib.request.urlopen(f"{server.http}/v2/health/{health}", timeout=5):
                return
        except urllib.error.HTTPError:
            break
        except OSError:
            time.sleep(0.05)
        if (now := _progress(server)) != known:
            known, moved = now, time.monotonic()
    still = f"stood still for {timeout_s:g} s and " if time.monotonic() - moved >= timeout_s else ""
    raise RuntimeError(f"tritonserver {_end_of(server.process) or still}is not {health}; its log: {_errors(server)}")


def _end_of(process: subprocess.Popen[bytes]) -> str:
    code = process.poll()
    return "" if code is None else f"ended with exit code {code} and "


def _errors(server: Triton) -> str:
    lines = server.log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("E")] or lines
    return " | ".join(errors[-5:])


def _progress(server: Triton) -> tuple[int, int]:
    """What grows while a server gets on: its log in bytes, and what its processes have computed, in whole seconds.

    Threads that only wait for something now and then compute far less.
    """
    return server.log.stat().st_size, _computed_s(server.process.pid)


def _computed_s(session: int) -> int:
    """The processor time of the processes of a session that are there (proc(5): fields 6, 14 and 15 of ``stat``)."""
    ticks = 0
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            fields = place.read_text(errors="replace").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12]) if int(fields[3]) == session else 0
    return ticks // os.sysconf("SC_CLK_TCK")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """An orderly stop ends the backend's own processes; what is left of the session after 30 s is killed."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
