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
from contextlib import contextmanager
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
    ``wait_for`` "live" gives the server as it is, also with models that have failed to load.

    Raises:
        RuntimeError: the server is not installed, or was not ready in time; the message has its log's errors.
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
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.http}/v2/health/{health}", timeout=5):
                return
        except urllib.error.HTTPError:
            break
        except OSError:
            time.sleep(0.05)
    lines = server.log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("E")] or lines
    raise RuntimeError(f"tritonserver was not {health} within {timeout_s:g} s; its log: {' | '.join(errors[-5:])}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """An orderly stop ends the backend's own processes; what is left of the session after 30 s is killed."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
