"""``carina serve`` as a process: it listens, loads no network, says how it is, guards itself, ends when told."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import logging
import os
import signal
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from carina.config import Settings
from carina.deliver.sender import SENDER_LOCK, Sender
from carina.errors import BadConfig, one_line, shortened
from carina.jobs.places import NODE_LOCK
from carina.keeping.lock import KEEPING_LOCK, files_held
from carina.receive.presence import RECEIVING_LOCK, receiving
from carina.service.app import web_app
from carina.service.logs import JsonLines
from carina.service.loops import Part, PartState, stop_all
from carina.service.serve import _alone_in
from carina.testing.ports import free_port
from certificates import self_signed
from served_nodes import add_job, opened, serving, settings_of
from waiting import wait_until

MEGABYTE = 1 << 20
PROGRAM = Path(sys.executable).with_name("carina")


@dataclass(frozen=True, kw_only=True)
class Process:
    """A node's process, its folder, and where it listens."""

    process: subprocess.Popen[str]
    folder: Path
    url: str
    dicom_port: int = 0

    def stopped(self) -> tuple[int, list[dict[str, object]]]:
        """Ask it to end; its exit code and its log."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=60)
        return self.process.returncode, [json.loads(line) for line in log.splitlines()]

    def until(self, is_so: Callable[[], bool]) -> None:
        """Until something is so, as long as the process lives."""
        wait_until(is_so, self.process)

    def become_ready(self) -> None:
        self.until(lambda: httpx.get(f"{self.url}/health/ready").status_code == 200)

    def run_to_its_end(self, job: int) -> dict[str, Any]:
        """Wait until a job is there and has stopped; it with its operators and deliveries, as REST gives it."""

        def has_stopped() -> bool:
            answer = httpx.get(f"{self.url}/api/v1/jobs/{job}")
            return answer.status_code == 200 and bool(answer.json()["job"]["state"] == "stopped")

        self.until(has_stopped)
        found: dict[str, Any] = httpx.get(f"{self.url}/api/v1/jobs/{job}").json()
        return found


def answers(url: str) -> bool:
    """Whether a server that is starting gives an answer yet."""
    try:
        httpx.get(url)
    except httpx.ConnectError:
        return False
    return True


@contextmanager
def started(folder: Path, settings: Settings) -> Iterator[Process]:
    command = [str(PROGRAM), "serve", "--config", str(folder / "carina.toml")]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, MEGABYTE)  # a full pipe would hold up the node
        url = f"http://127.0.0.1:{settings.web.port}"
        try:
            wait_until(lambda: answers(f"{url}/health/live"), process)
            node = folder / settings.node.folder
            yield Process(process=process, folder=node, url=url, dicom_port=settings.dicom.port)
        finally:
            process.kill()


def test_a_node_starts_and_ends(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, '[destinations.D]\nkind = "folder"\npath = "results"\n')
    with started(tmp_path, settings) as node:
        node.until(lambda: "starting" not in httpx.get(f"{node.url}/health/ready").text)
        ready = httpx.get(f"{node.url}/health/ready")
        assert (ready.status_code, ready.json()["troubles"]) == (200, [])
        assert set(ready.json()["parts"]) >= {"jobs", "sender"}
        mapped = Path(f"/proc/{node.process.pid}/maps").read_text()
        memory = Path(f"/proc/{node.process.pid}/status").read_text()
        code, log = node.stopped()
    assert code == 0
    assert (log[0]["event"], log[-1]["event"]) == ("listening", "stopped")
    assert not [name for name in ("torch", "openvino", "onnxruntime") if name in mapped]
    assert int(memory.split("VmRSS:")[1].split()[0]) < 150_000


def test_with_a_certificate_the_web_speaks_tls_only(tmp_path: Path) -> None:
    certificate, key = (self_signed(tmp_path, "node") / name for name in ("node.crt", "node.key"))
    node = opened(tmp_path, f'[web.tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
    trusting = ssl.create_default_context(cafile=str(certificate))
    with serving(node) as plain:
        port = node.settings.web.port
        answer = httpx.get(f"https://localhost:{port}/health/live", verify=trusting)
        with pytest.raises(httpx.RemoteProtocolError, match=r"(?i)disconnect|response"):
            httpx.get(f"{plain}/health/live")
    assert answer.text == "alive\n"


def test_a_second_node_is_told_that_its_folder_has_one(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with started(tmp_path, settings):
        second = subprocess.run([PROGRAM, "serve"], cwd=tmp_path, capture_output=True, text=True)
    assert second.returncode == 4
    assert "another `carina serve` runs in this folder: end it first" in second.stderr
    assert "can't listen" not in second.stderr


def test_a_second_node_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    ports = {"CARINA_WEB_PORT": str(free_port()), "CARINA_DICOM_PORT": str(free_port())}
    with started(tmp_path, settings):
        second = subprocess.run(
            [PROGRAM, "serve"], cwd=tmp_path, capture_output=True, text=True, env=os.environ | ports, timeout=60
        )
    assert second.returncode == 4
    assert "another `carina serve` runs in this folder: end it first" in second.stderr


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    node = opened(tmp_path_factory.mktemp("guard"))
    for ended in ("healthy", "faulted", "faulted"):
        add_job(node, ended=ended)
    with serving(node) as address:
        yield address


def test_every_answer_has_strict_headers(url: str) -> None:
    for path in ("/health/live", "/nope", "/dicom-web/studies"):
        headers = httpx.get(url + path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "server" not in headers


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::1", "", "a" * 300])
def test_a_name_that_is_made_to_point_here_reads_nothing(url: str, host: str) -> None:
    answer = httpx.get(f"{url}/health/live", headers={"Host": host})
    assert answer.status_code in (400, 421)
    assert answer.text != "alive\n"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:80", "localhost."])
def test_the_names_of_this_machine_are_taken(url: str, host: str) -> None:
    assert httpx.get(f"{url}/health/live", headers={"Host": host}).text == "alive\n"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 405),
        ({}, 405),
    ],
)
def test_another_sites_page_changes_nothing(url: str, headers: dict[str, str], status: int) -> None:
    answer = httpx.post(f"{url}/health/live", headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_metrics_count_what_is_in_the_tables(url: str) -> None:
    text = httpx.get(f"{url}/metrics").text
    assert 'carina_jobs{ended="faulted",pipeline="default",project="default",state="stopped"} 2.0' in text
    assert 'carina_jobs{ended="healthy",pipeline="default",project="default",state="stopped"} 1.0' in text
    assert "carina_disk_free_bytes" in text
    assert "process_resident_memory_bytes" in text


def test_a_part_that_dies_is_seen_and_begins_again() -> None:
    stop, died, again = threading.Event(), threading.Event(), threading.Event()
    goes_on = threading.Event()

    def work(_: threading.Event) -> None:
        if died.is_set():
            again.set()
            stop.wait()
            return
        died.set()
        goes_on.wait()
        raise BadConfig("test.dead", "the database has gone: bring it back.")

    part = Part("lab", work, stop=stop)
    part.start()
    died.wait(10)
    assert part.status.state == "running"
    goes_on.set()
    wait_until(again.is_set)
    assert (part.status.deaths, part.status.error) == (1, "the database has gone: bring it back.")
    stop_all([part], stop, 10)
    assert part.status.state == "stopped"


def test_a_part_that_ends_by_itself_has_died() -> None:
    stop = threading.Event()
    part = Part("brief", lambda _: None, stop=stop)
    part.start()
    wait_until(lambda: part.status.deaths)
    assert (part.status.state, part.status.error) == (PartState.BROKEN, "it ended by itself")
    stop_all([part], stop, 10)


def test_readiness_names_the_part_that_is_broken(tmp_path: Path) -> None:
    node = opened(tmp_path)

    def work(_: threading.Event) -> None:
        raise BadConfig("test.dead", "the disk is gone.")

    node.parts.append(Part("receiver", work, stop=node.stop))
    node.parts[0].start()
    with serving(node) as address:
        answer = httpx.get(f"{address}/health/ready")
        assert 'carina_part_deaths{part="receiver"}' in httpx.get(f"{address}/metrics").text
    assert answer.status_code == 503
    assert answer.json()["troubles"] == ["receiver: the disk is gone."]


def logged(level: int, message: str, *arguments: object, **extra: object) -> dict[str, object]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.Logger("carina.lab")
    logger.addHandler(handler)
    logger.log(level, message, *arguments, extra=extra)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    line: dict[str, object] = json.loads(lines[0])
    return line


def test_an_event_is_one_line_of_json_with_its_fields() -> None:
    line = logged(logging.WARNING, "job %s\nstopped\x1b[31m", 7, job=7, where=Path("runs/7"))
    assert line.pop("at")
    assert line == {
        "level": "warning",
        "part": "carina.lab",
        "event": one_line("job 7\nstopped\x1b[31m"),
        "job": 7,
        "where": "runs/7",
    }


def test_lock_files_are_their_users_alone(tmp_path: Path) -> None:
    node = opened(tmp_path)
    sender = Sender(node.engine, node.folder, {}, node.now)
    with _alone_in(node.folder), files_held(node.folder, wait=False), receiving(node.folder):
        sender.start()
        found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in node.folder.glob("*.lock")}
        assert sender.stop()
    assert found == dict.fromkeys((NODE_LOCK, KEEPING_LOCK, RECEIVING_LOCK, SENDER_LOCK), 0o600)


@pytest.mark.parametrize(("event", "field"), [("x" * 100_000, "y"), ("x", "y" * 100_000)])
def test_a_stranger_does_not_choose_how_long_a_line_is(event: str, field: str) -> None:
    line = logged(logging.INFO, "%s", event, who=field)
    assert line["event"] == shortened(event) and line["who"] == shortened(field)
    assert len(json.dumps(line)) < 2000


def test_the_log_of_answers_repeats_no_endless_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "carina.service.guard")

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(web_app(opened(tmp_path)))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get("/" + "a" * 50_000)

    assert asyncio.run(asked()).status_code == 404
    (record,) = [one for one in caplog.records if one.getMessage() == "answered"]
    assert len(vars(record)["path"]) <= 210


def test_libraries_that_print_values_are_silent(tmp_path: Path) -> None:
    program = (
        "import logging; from carina.service.logs import log_to; log_to();"
        "logging.getLogger('pynetdicom').error('Doe^Jane'); logging.getLogger('pydicom').warning('Doe^Jane');"
        "logging.getLogger('carina.x').info('said')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["said"]
