"""Accept headers: each resource of DICOMweb against each of them, by PS3.18 8.7."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import httpx
import pytest

from dicomweb_studies import SHAPE, Served, serving_studies, uids
from served_nodes import opened, serving

JSON, XML, DICOM, OCTETS, JLS, PNG, JPEG, PDF = (
    "application/dicom+json",
    "application/dicom+xml",
    "application/dicom",
    "application/octet-stream",
    "image/jls",
    "image/png",
    "image/jpeg",
    "application/pdf",
)
MULTIPART = "multipart/related"


def parted(media_type: str) -> str:
    return f'{MULTIPART}; type="{media_type}"'


_SERIES = "/studies/{study}/series/{series}"
_ONE = _SERIES + "/instances/{instance}"
_JSON = {"": JSON, "*/*": JSON, "application/*": JSON, JSON: JSON, "application/json": JSON}
_WHOLE = {"": MULTIPART, "*/*": MULTIPART, parted(DICOM): MULTIPART}
_FRAME = {"": MULTIPART, "*/*": MULTIPART, parted(OCTETS): MULTIPART, parted(JLS): MULTIPART}
_FRAME |= {JLS: JLS, "image/*": JLS, "application/*": OCTETS, OCTETS: OCTETS}
_PICTURE = {"": JPEG, "*/*": JPEG, "image/*": JPEG, JPEG: JPEG, PNG: PNG, parted(JPEG): MULTIPART}
TAKEN: dict[str, dict[str, str]] = {
    "/studies": _JSON,
    "/series": _JSON,
    "/instances": _JSON,
    "/studies/{study}/series": _JSON,
    "/studies/{study}/instances": _JSON,
    f"{_SERIES}/instances": _JSON,
    "/studies/{study}/metadata": _JSON,
    f"{_SERIES}/metadata": _JSON,
    f"{_ONE}/metadata": _JSON,
    "/studies/{study}": _WHOLE,
    _SERIES: _WHOLE,
    _ONE: _WHOLE | {"application/*": DICOM, DICOM: DICOM},
    f"{_ONE}/frames": _FRAME,
    f"{_ONE}/frames/1": _FRAME,
    f"{_ONE}/rendered": _PICTURE,
    f"{_ONE}/frames/1/rendered": _PICTURE,
    "pdf/rendered": {"": PDF, "*/*": PDF, "application/*": PDF, PDF: PDF},
    "pdf/bulkdata/00420011": {"": OCTETS, "*/*": OCTETS, "application/*": OCTETS, OCTETS: OCTETS, PDF: PDF}
    | {parted(OCTETS): MULTIPART},
}
"""What each resource is answered in by what a client takes; all else that it may take is 406."""

ASKED: tuple[str, ...] = (
    "",
    "*/*",
    "application/*",
    "image/*",
    "text/html",
    "text/plain",
    "application/json",
    JSON,
    XML,
    DICOM,
)
ASKED += (OCTETS, JLS, PNG, JPEG, PDF, parted(JSON), parted(XML), parted(DICOM), parted(OCTETS), parted(JLS))
ASKED += (parted(JPEG), parted("text/html"), "*/*;q=0", "nonsense", "text/html, application/xhtml+xml;q=0.9")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_studies(tmp_path_factory.mktemp("accept")) as found:
        yield found


@pytest.mark.parametrize(("path", "accept"), list(product(TAKEN, ASKED)))
def test_each_resource_is_given_as_what_is_taken_or_not_at_all(served: Served, path: str, accept: str) -> None:
    study, series, instance = uids(served.pdf if path.startswith("pdf") else served.jpeg_ls[0])
    where = path.replace("pdf", _ONE, 1).format(study=study, series=series, instance=instance)
    for answer in (
        httpx.get(f"{served.url}/dicom-web{where}", headers={"Accept": accept}),
        httpx.get(f"{served.url}/dicom-web{where}", params={"accept": accept}),
    ):
        expected = TAKEN[path].get(accept)
        if expected is None:
            assert answer.status_code == 406, answer.headers["content-type"]
            assert_one_line(answer)
        else:
            assert answer.status_code == 200
            assert answer.headers["content-type"].partition(";")[0] == expected


def assert_one_line(answer: httpx.Response) -> None:
    """A problem that says which forms there are, each once."""
    detail = answer.json()["detail"]
    words = detail.replace("(", " ").replace(")", " ").replace(".", " . ").split()
    forms = [word for word in words if "/" in word]
    assert forms
    assert len(forms) == len(set(forms)), detail


@pytest.fixture(scope="module")
def storing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    node = opened(tmp_path_factory.mktemp("storing"), '[sources.web]\nkind = "dicomweb"\n')
    node.is_recovered.set()
    with serving(node) as url:
        yield f"{url}/dicom-web"


@pytest.mark.parametrize("accept", ASKED)
@pytest.mark.parametrize("path", ["/studies", "/studies/2.25.1"])
def test_what_became_of_instances_is_told_in_json_or_nothing_is_stored(
    served: Served, storing: str, path: str, accept: str
) -> None:
    before = httpx.get(f"{storing}/instances").json()
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + served.rle[0].read_bytes() + b"\r\n--b--"
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b', "Accept": accept}
    answer = httpx.post(f"{storing}{path}", content=body, headers=headers)
    if accept in TAKEN["/studies"]:
        assert answer.status_code == (200 if path == "/studies" else 409)
        assert answer.headers["content-type"] == JSON
    else:
        assert answer.status_code == 406
        assert "what became of instances is answered in application/dicom+json alone" in answer.json()["detail"]
        assert httpx.get(f"{storing}/instances").json() == before


def test_a_series_of_many_is_no_single_object(served: Served) -> None:
    study, series, _ = uids(served.plain[0])
    answer = served.get(f"/studies/{study}/series/{series}", DICOM)
    assert (answer.status_code, SHAPE[0] > 1) == (406, True)
    assert 'objects are multipart/related; type="application/dicom"' in answer.json()["detail"]


def test_several_frames_are_no_single_answer(served: Served) -> None:
    where = _ONE.format(study=uids(served.seg)[0], series=uids(served.seg)[1], instance=uids(served.seg)[2])
    assert served.get(f"{where}/frames/1", OCTETS).headers["content-type"].startswith(OCTETS)
    answer = served.get(f"{where}/frames/1,2", OCTETS)
    assert answer.status_code == 406
    assert answer.json()["detail"].endswith("several at once multipart/related.")
