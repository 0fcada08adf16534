"""DICOMweb while files of the node can't be read: said, broken off, never blank, and right again afterwards."""

from __future__ import annotations

import builtins
import errno
import io
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.uid import EncapsulatedPDFStorage, SegmentationStorage
from starlette.routing import Route

from carina.service.dicomweb import attributes, held
from carina.service.dicomweb.wado import dicomweb_routes
from carina.service.health import readiness
from carina.service.node import RunningNode
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from dicomweb_studies import uids
from served_nodes import add_job, hold, opened, serving, write_result

Fault = Callable[[str], bool]
"""Whether a path is one of those that can't be read."""


class Unreadable(io.BytesIO):
    """An open file whose every read fails."""

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self._open = os.open(path, os.O_RDONLY)

    def fileno(self) -> int:
        return self._open

    def read(self, _size: int | None = -1) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def close(self) -> None:
        if not self.closed:
            os.close(self._open)
        super().close()


REACHING = {"open": [(io, "open"), (builtins, "open")], "read": [(io, "open"), (builtins, "open")]} | {
    name: [(os, call)] for name, call in (("stat", "stat"), ("list", "scandir"))
}
"""What of Python's own reaches a file, by what fails."""


@contextmanager
def failing(call: str, code: int, hits: Fault) -> Iterator[None]:
    """Let opening, reading, or looking at such paths fail as a disk, its rights or a process's limits make it."""

    def instead(real: Callable[..., Any]) -> Callable[..., Any]:
        def reach(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            if not isinstance(path, str | Path) or not hits(str(path)):
                return real(path, *args, **kwargs)
            if call == "read":
                return Unreadable(path)
            raise OSError(code, os.strerror(code), str(path))

        return reach

    with pytest.MonkeyPatch.context() as patch:
        for module, name in REACHING[call]:
            patch.setattr(module, name, instead(getattr(module, name)))
        yield


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[tuple[str, list[Path], Path]]:
    """A node that nobody has asked yet: its address, three slices, and a PDF of a job."""
    volume = chest_phantom(shape=(3, 32, 32), lesions=0, seed=5).volume
    files = list(write_ct_series(volume, tmp_path / "ct", settings=SeriesSettings(patient_id="P0", shuffled=False)))
    node = opened(tmp_path)
    job = add_job(node, hold(node, files))
    pdf = write_result(node, job, files[0], EncapsulatedPDFStorage)
    write_result(node, job, files[0], SegmentationStorage)
    with serving(node) as url:
        yield f"{url}/dicom-web", files, pdf


def addresses(files: list[Path], pdf: Path) -> list[str]:
    """One of each route, a search with a key beside each, and the PDF where there are two kinds of answer."""
    found = []
    for route in dicomweb_routes():
        assert isinstance(route, Route)
        for file in (
            (pdf,) if "{tag}" in route.path else (files[0], pdf) if route.path.endswith("e}/rendered") else files[:1]
        ):
            named = dict(zip(("study", "series", "instance"), uids(file), strict=True))
            path = route.path.removeprefix("/dicom-web").format(**named, frames=1, tag="00420011")
            found += [path, f"{path}?PatientID=P0"] if path.endswith(("studies", "series", "instances")) else [path]
    return found


def answers(root: str, paths: list[str]) -> dict[str, tuple[int, bytes]]:
    got = {path: httpx.get(root + path) for path in paths}
    return {
        path: (one.status_code, one.content if "multipart" not in one.headers["content-type"] else b"")
        for path, one in got.items()
    }


def forget() -> None:
    attributes._header.cache_clear()
    for kept in (held._folders, held._studies_of, held._objects_in, held._slices_in):
        kept.cache_clear()


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("open", errno.EIO),
        ("open", errno.EACCES),
        ("open", errno.EMFILE),
        ("read", errno.EIO),
        ("stat", errno.EACCES),
        ("stat", errno.EIO),
        ("list", errno.EIO),
    ],
)
def test_files_that_can_not_be_read_are_said_on_every_route_and_kept_by_none(
    stored: tuple[str, list[Path], Path], caplog: pytest.LogCaptureFixture, call: str, code: int
) -> None:
    root, files, pdf = stored
    paths = addresses(files, pdf)
    with failing(call, code, lambda path: "/node/incoming/" in path or "/node/runs/" in path):
        for path in paths:
            answer = httpx.get(root + path)
            assert (answer.status_code, path) == (503, path)
            assert f"can't be read now ({os.strerror(code)}): try again" in answer.json()["detail"]
    check_log(caplog, (str(pdf), str(pdf.parent), files[0].name))
    after = answers(root, paths)
    assert {(status, body == b"[]") for status, body in after.values()} == {(200, False)}
    forget()
    assert answers(root, paths) == after


def check_log(caplog: pytest.LogCaptureFixture, names: tuple[str, ...]) -> None:
    """Warnings alone, which name a file and have no traceback."""
    said = [record for record in caplog.records if "can't be read" in record.message]
    assert {(record.levelname, record.exc_info) for record in said} == {("WARNING", None)}
    assert any(name in record.message for record in said for name in names)
    assert not any(record.exc_info for record in caplog.records)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[tuple[RunningNode, str, dict[str, Path]]]:
    """A node of three studies, the last with a result: it, its address, a slice of each study, the result."""
    volume, node, one_of = chest_phantom(shape=(3, 32, 32), lesions=0, seed=5).volume, opened(tmp_path), {}
    for number, name in enumerate("abc"):
        scan, how = replace(volume, uid=f"2.25.{number}"), SeriesSettings(study=name, shuffled=False)
        files = list(write_ct_series(scan, tmp_path / name, settings=how))
        one_of[name], arrival = files[0], hold(node, files)
    one_of["result"] = write_result(node, add_job(node, arrival, pipeline="/ours.yaml"), files[0], SegmentationStorage)
    with serving(node) as url:
        yield node, f"{url}/dicom-web", one_of


def studies_in(answer: httpx.Response) -> set[str]:
    return {one["0020000D"]["Value"][0] for one in answer.json()}


def left_out_of(node: RunningNode) -> list[str]:
    return [one for one in readiness(node).warnings if "left out" in one]


@pytest.mark.parametrize("tail", ["/studies", "/series", "/instances", "/instances?limit=1000", "/studies?PatientID=*"])
def test_a_search_of_all_studies_tells_what_can_be_read_and_says_what_is_left_out(
    three: tuple[RunningNode, str, dict[str, Path]], tail: str
) -> None:
    node, root, one_of = three
    studies = {name: uids(file)[0] for name, file in one_of.items()}
    bad = f"{uids(one_of['b'])[2]}.dcm"
    with failing("open", errno.EIO, lambda path: bad in path):
        answer = httpx.get(root + tail)
        assert (answer.status_code, studies_in(answer)) == (200, {studies["a"], studies["c"]})
        told = f'299 carina "Left out, since files of it cannot be read now: study {studies["b"]}"'
        assert answer.headers["warning"] == told
        assert left_out_of(node) == [
            "DICOMweb: 1 studies or results of jobs are left out of searches, since files of them can't be read: the "
            "log names them"
        ]
    answer = httpx.get(root + tail)
    assert "warning" not in answer.headers
    assert studies_in(answer) == set(studies.values())
    assert not left_out_of(node)


def test_a_study_that_is_asked_for_is_told_whole_or_not_at_all(
    three: tuple[RunningNode, str, dict[str, Path]],
) -> None:
    _, root, one_of = three
    (whole, *_), (study, _, bad) = uids(one_of["a"]), uids(one_of["b"])
    with failing("open", errno.EIO, lambda path: f"{bad}.dcm" in path):
        for asked in (f"/studies/{study}", f"/studies?StudyInstanceUID={study}", f"/studies/{study}/series"):
            assert httpx.get(root + asked).status_code == 503
        assert httpx.get(f"{root}/studies/{whole}/series").status_code == 200


def test_results_that_can_not_be_read_are_left_out_and_what_came_is_told(
    three: tuple[RunningNode, str, dict[str, Path]],
) -> None:
    _, root, one_of = three
    study = uids(one_of["c"])[0]
    with failing("open", errno.EIO, lambda path: "/node/runs/" in path and path.endswith(".dcm")):
        answer = httpx.get(f"{root}/studies")
        assert [one["00201208"]["Value"] for one in answer.json()] == [[3], [3], [3]]
        assert answer.headers["warning"].endswith(': results of job 1"')
        assert httpx.get(f"{root}/studies/{study}/series").status_code == 503


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_where_no_file_can_be_opened_a_search_is_not_answered_in_part(
    three: tuple[RunningNode, str, dict[str, Path]], code: int
) -> None:
    _, root, one_of = three
    bad = f"{uids(one_of['b'])[2]}.dcm"
    with failing("open", code, lambda path: bad in path):
        assert httpx.get(f"{root}/studies").status_code == 503


@pytest.mark.parametrize("accept", ["application/dicom", 'multipart/related; type="application/dicom"'])
def test_of_an_object_nothing_is_sent_before_it_can_be_read(stored: tuple[str, list[Path], Path], accept: str) -> None:
    root, files, _ = stored
    study, series, instance = uids(files[0])
    address = f"{root}/studies/{study}/series/{series}/instances/{instance}"
    with failing("open", errno.EIO, lambda path: instance in path and path.endswith(".dcm")):
        assert httpx.get(address, headers={"Accept": accept}).status_code == 503
    assert httpx.get(address, headers={"Accept": accept}).status_code == 200


@pytest.mark.parametrize("call", ["open", "read"])
@pytest.mark.parametrize("tail", ["", "/metadata"])
def test_a_file_that_fails_in_the_middle_breaks_the_answer_off(
    stored: tuple[str, list[Path], Path], caplog: pytest.LogCaptureFixture, call: str, tail: str
) -> None:
    root, files, _ = stored
    study, series, instance = uids(files[1])
    with failing(call, errno.EIO, lambda path: instance in path), pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{root}/studies/{study}/series/{series}{tail}")
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert any(f"{instance}.dcm" in record.message and "can't be read" in record.message for record in said)
    assert any("an answer was broken off" in record.message for record in said)
    assert not any(record.exc_info for record in said)
    assert httpx.get(f"{root}/studies/{study}/series/{series}{tail}").status_code == 200
