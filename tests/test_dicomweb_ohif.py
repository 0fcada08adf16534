"""What OHIF asks of a node, in the words in which it asks."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from pydicom import dcmread

from dicomweb_studies import SHAPE, Served, serving_studies, uids

FIELDS = "00081030%2C00080060%2C00080090%2C00100030"
LISTED = f"limit=101&offset=0&fuzzymatching=false&includefield={FIELDS}"
JSON = "application/dicom+json"

OHIF_SEARCHES = (
    (f"/studies?{LISTED}", 3),
    (f"/studies?{LISTED}&StudyInstanceUID={{study}}", 1),
    (f"/studies?00100020=P0&{LISTED}", 1),
    ("/studies/{study}/series?includefield=00080021%2C00080031%2C0008103E%2C00200011", 3),
    ("/studies/{study}/series/{series}/metadata", SHAPE[0]),
    ("/studies/{study}/series/{seg_series}/metadata", 1),
)
"""What OHIF 3.13.2 was seen to ask a node for (scripts/ohif.py --requests), and how many records there are of it."""

OHIF_VALUES = {
    "/studies/{study}/series/{series}/instances/{instance}/frames/1": (
        "multipart/related; type=application/octet-stream; transfer-syntax=*"
    ),
    "/studies/{study}/series/{seg_series}/instances/{seg}": 'multipart/related; type="application/dicom"',
    "/studies/{study}/series/{pdf_series}/instances/{pdf}/bulkdata/00420011": (
        'multipart/related; type="application/pdf", multipart/related; type="application/octet-stream"'
    ),
}
"""The slices, the masks and the PDF that it fetched, and in which form."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_studies(tmp_path_factory.mktemp("dicomweb")) as found:
        yield found


def ohif_path(path: str, served: Served) -> str:
    names = dict(zip(("study", "series", "instance"), uids(served.plain[0]), strict=True))
    _, names["seg_series"], names["seg"] = uids(served.seg)
    _, names["pdf_series"], names["pdf"] = uids(served.pdf)
    return path.format(**names)


@pytest.mark.parametrize(("path", "count"), OHIF_SEARCHES)
def test_what_ohif_looks_for_is_found(served: Served, path: str, count: int) -> None:
    answer = served.get(ohif_path(path, served), JSON)
    assert (answer.status_code, answer.headers["content-type"]) == (200, JSON)
    assert len(answer.json()) == count


@pytest.mark.parametrize("path", OHIF_VALUES)
def test_what_ohif_fetches_comes_in_the_form_that_it_takes(served: Served, path: str) -> None:
    answer = served.get(ohif_path(path, served), OHIF_VALUES[path])
    assert answer.status_code == 200
    kind, _, boundary = answer.headers["content-type"].partition("; boundary=")
    assert kind.startswith("multipart/related; type=")
    head, _, body = answer.content.partition(b"\r\n\r\n")
    assert head.startswith(f"--{boundary}\r\n".encode())
    slice_, pdf = dcmread(served.plain[0]), dcmread(served.pdf)
    expected = {"frames": slice_.PixelData, "bulkdata": pdf.EncapsulatedDocument[: pdf.EncapsulatedDocumentLength]}
    value = next((known for word, known in expected.items() if word in path), served.seg.read_bytes())
    assert body == value + f"\r\n--{boundary}--\r\n".encode()


def test_where_values_lie_is_said_by_the_name_that_the_client_called(served: Served) -> None:
    study, series, _ = uids(served.pdf)
    path = f"{served.url}/dicom-web/studies/{study}/series/{series}/metadata"
    (record,) = httpx.get(path, headers={"Host": "localhost:3000"}).json()
    assert record["00420011"]["BulkDataURI"].startswith(f"http://localhost:3000/dicom-web/studies/{study}/")
