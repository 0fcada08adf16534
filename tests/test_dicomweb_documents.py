"""WADO-RS of an Encapsulated PDF, as bulk data and rendered in the form that a client takes; what no picture has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dicomweb_studies import Served, serving_studies, uids


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_studies(tmp_path_factory.mktemp("dicomweb")) as found:
        yield found


def pdf_path(served: Served) -> str:
    return "/studies/{}/series/{}/instances/{}".format(*uids(served.pdf))


def test_a_document_is_rendered_as_itself(served: Served) -> None:
    answer = served.get(f"{pdf_path(served)}/rendered", "application/pdf")
    assert answer.content == b"%PDF-1.4 " + bytes(2000)
    assert served.get(f"{pdf_path(served)}/rendered", "image/png").status_code == 406


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/pdf", "application/pdf"),
        ("application/*", "application/octet-stream"),
        ("*/*", "application/octet-stream"),
        ('multipart/related; type="application/pdf"', "multipart/related"),
        ("image/png, application/pdf;q=0.5", "application/pdf"),
    ],
)
def test_a_document_is_given_as_what_a_client_takes(served: Served, accept: str, kind: str) -> None:
    answer = served.get(f"{pdf_path(served)}/bulkdata/00420011", accept)
    assert answer.headers["content-type"].partition(";")[0] == kind
    data = (
        answer.content
        if kind.startswith("application")
        else answer.content.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]
    )
    assert data == b"%PDF-1.4 " + bytes(2000) + b"\0" * (kind == "application/octet-stream")


def test_a_value_in_a_form_that_it_is_not_is_said(served: Served) -> None:
    answer = served.get(f"{pdf_path(served)}/bulkdata/00420011", "image/png")
    assert answer.status_code == 406
    assert "this value is application/octet-stream or application/pdf" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("window=40,400,sigmoid", "expected centre and width, and of the functions linear or linear-exact"),
        ("viewport=100,100,10,10,50,50", "expected width and height alone: no region is cut out or mirrored here"),
        ("viewport=64,64,0,0,-192,-192", "expected width and height alone"),
        ("viewport=64,64,500,500,10,10", "expected width and height alone"),
        ("viewport=64,64,1", "expected width and height alone"),
        ("viewport=64,64,,,10", "expected width and height alone"),
    ],
)
def test_of_a_picture_nothing_is_asked_that_it_would_not_have(served: Served, parameter: str, words: str) -> None:
    path = "/studies/{}/series/{}/instances/{}/rendered".format(*uids(served.plain[0]))
    answer = served.get(f"{path}?{parameter}")
    assert (answer.status_code, answer.json()["code"]) == (400, "dicomweb.query")
    name, _, value = parameter.partition("=")
    assert f"{name} is '{value}'; {words}" in answer.json()["detail"]
