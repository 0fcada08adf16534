"""QIDO-RS and WADO-RS, read by an independent client and by plain requests."""

from __future__ import annotations

import email
import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import (
    JPEGLSLossless,
)

from carina.receive.complete import release
from carina.service.dicomweb.accept import wishes
from carina.service.dicomweb.attributes import attribute, matches
from carina.service.dicomweb.json_values import Attributes
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from dicomweb_studies import SHAPE, Served, serving_studies, uids
from served_nodes import hold, opened, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_studies(tmp_path_factory.mktemp("dicomweb")) as found:
        yield found


@pytest.fixture(scope="module")
def client(served: Served) -> DICOMwebClient:
    return DICOMwebClient(f"{served.url}/dicom-web")


def path_of(file: Path) -> str:
    return "/studies/{}/series/{}/instances/{}".format(*uids(file))


def values(records: list[dict[str, dict[str, object]]], tag: str) -> list[object]:
    return [record[tag].get("Value", [None])[0] for record in records]  # type: ignore[index]


# Search


def test_studies_are_found_the_latest_first(client: DICOMwebClient, served: Served) -> None:
    found = client.search_for_studies()
    assert values(found, "0020000D") == [uids(files[0])[0] for files in (served.rle, served.jpeg_ls, served.plain)]
    plain = found[2]
    assert plain["00080061"]["Value"] == ["CT", "DOC", "SEG"]
    assert plain["00201206"]["Value"] == [3]
    assert plain["00201208"]["Value"] == [SHAPE[0] + 2]
    assert plain["00100020"]["Value"] == ["P0"]
    assert plain["00100010"]["Value"] == [{"Alphabetic": str(dcmread(served.plain[0]).PatientName)}]


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"PatientID": "P1"}, 1),
        ({"00100020": "P1"}, 1),
        ({"PatientID": "P?"}, 3),
        ({"PatientID": "p1"}, 0),
        ({"PatientID": "[P]1"}, 0),
        ({"ModalitiesInStudy": "SEG"}, 1),
        ({"ModalitiesInStudy": "MR"}, 0),
        ({"ModalitiesInStudy": "MR,SEG"}, 1),
        ({"ModalitiesInStudy": "CT,SEG"}, 3),
        ({"ModalitiesInStudy": "MR\\C?"}, 3),
        ({"StudyDate": "19000101-20991231"}, 3),
        ({"StudyDate": "-19000101"}, 0),
        ({"PatientName": "*"}, 3),
        ({"StudyInstanceUID": "1.2.3"}, 0),
    ],
)
def test_studies_are_filtered(client: DICOMwebClient, filters: dict[str, str], count: int) -> None:
    assert len(client.search_for_studies(search_filters=filters)) == count


def test_several_uids_are_one_filter(client: DICOMwebClient, served: Served) -> None:
    two = f"{uids(served.plain[0])[0]},{uids(served.rle[0])[0]}"
    assert len(client.search_for_studies(search_filters={"StudyInstanceUID": two})) == 2


def test_pages_part_what_is_found_and_say_that_there_is_more(client: DICOMwebClient, served: Served) -> None:
    pages = [client.search_for_studies(limit=2, offset=offset) for offset in (0, 2, 4)]
    assert [len(page) for page in pages] == [2, 1, 0]
    assert [one for page in pages for one in page] == client.search_for_studies()
    assert "additional results" in served.get("/studies?limit=2").headers["warning"]
    assert "warning" not in served.get("/studies?limit=3").headers


def test_slices_of_a_series_are_not_cut_to_a_page(monkeypatch: pytest.MonkeyPatch, served: Served) -> None:
    monkeypatch.setattr("carina.service.dicomweb.qido._USUAL", 2)
    client = DICOMwebClient(f"{served.url}/dicom-web")
    study, series, _ = uids(served.plain[0])
    assert len(client.search_for_studies()) == 2
    assert len(client.search_for_instances(study, series)) == SHAPE[0]
    assert len(client.search_for_series(study)) == 3


def test_series_of_a_study_are_its_images_and_its_results(client: DICOMwebClient, served: Served) -> None:
    study = uids(served.plain[0])[0]
    found = client.search_for_series(study)
    assert values(found, "00080060") == ["CT", "SEG", "DOC"]
    assert values(found, "00201209") == [SHAPE[0], 1, 1]
    assert values(client.search_for_series(search_filters={"Modality": "SEG"}), "0020000E") == [uids(served.seg)[1]]


def test_instances_are_found_at_every_level(client: DICOMwebClient, served: Served) -> None:
    study, series, instance = uids(served.plain[2])
    found = client.search_for_instances(study, series)
    assert sorted(values(found, "00200013")) == list(range(1, SHAPE[0] + 1))  # type: ignore[type-var]
    assert len(client.search_for_instances(study)) == SHAPE[0] + 2
    assert len(client.search_for_instances()) == 3 * SHAPE[0] + 2
    one = client.search_for_instances(search_filters={"SOPInstanceUID": instance}, fields=["SliceLocation"])
    assert values(one, "00080018") == [instance]
    assert values(one, "00280010") == [SHAPE[1]]
    assert "00201041" in one[0]
    assert served.get(f"/studies/{study}/instances?NumberOfFrames=3").json()[0]["00080060"]["Value"] == ["SEG"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("/studies?colour=red", "'colour' is no attribute"),
        ("/studies?limit=many", "limit is 'many'; expected a whole number"),
        ("/studies?offset=-1", "offset is '-1'"),
        *(
            (f"/studies?StudyDate={one}", f"StudyDate is '{one}'; expected YYYYMMDD, or from and to")
            for one in ("garbage", "2026", "-2026", "2026-01-01", "2026-", "202601011", "20260101--", "-")
        ),
        *(
            (f"/studies?StudyDate={one}", f"StudyDate is '{one}'; expected YYYYMMDD, or from and to")
            for one in ("99999999", "20260230", "20260131-20260230")
        ),
        ("/series?00080021=2020-01-01", "SeriesDate is '2020-01-01'; expected YYYYMMDD"),
        ("/studies?includefield=Colour", "'Colour' is no attribute"),
        ("/studies?99989999=1", "'99989999' is no attribute"),
        ("/studies?StudyInstanceUID=" + ",".join(f"1.{n}" for n in range(101)), "more than 100 UIDs; ask for fewer"),
        ("/series?SeriesInstanceUID=" + "%5C".join(f"1.{n}" for n in range(101)), "more than 100 UIDs; ask for fewer"),
    ],
)
def test_a_query_that_can_not_be_understood_is_refused(served: Served, query: str, words: str) -> None:
    answer = served.get(query)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.json()["detail"]


def test_a_uid_that_is_listed_again_and_again_is_looked_up_once(served: Served) -> None:
    study, series, _ = uids(served.plain[2])
    answer = served.get(f"/studies/{study}/series?SeriesInstanceUID={','.join([series] * 900)}")
    assert values(answer.json(), "0020000E") == [series]
    assert len(served.get(f"/studies?StudyInstanceUID={','.join([study] * 900)}").json()) == 1


def test_fuzzy_matching_is_said_not_to_be_there(served: Served) -> None:
    assert "fuzzymatching parameter is not supported" in served.get("/studies?fuzzymatching=true").headers["warning"]


@pytest.mark.parametrize(
    ("record", "wanted", "expected"),
    [
        (attribute("StudyDate", "20200304"), "20200304", True),
        (attribute("StudyDate", "20200304"), "20200304-20200304", True),
        (attribute("StudyDate", "20200304"), "20200305-", False),
        (attribute("StudyTime", "101112.5"), "1011-1012", True),
        (attribute("Rows", 512), "512", True),
        (attribute("Rows", 512), "51*", False),
        (attribute("PatientName", {"Alphabetic": "Doe^Jane"}), "doe*", True),
        (attribute("PatientName", {"Alphabetic": "Doe^Jane"}), "Roe*", False),
        (attribute("StudyDescription", "a[b]c"), "a[b]?", True),
        (attribute("StudyDescription"), "x", False),
        (attribute("StudyDescription"), "", True),
    ],
)
def test_values_match_as_the_standard_says(record: Attributes, wanted: str, *, expected: bool) -> None:
    keyword = {"00080020": "StudyDate", "00080030": "StudyTime", "00280010": "Rows", "00100010": "PatientName"}
    assert matches(record, {keyword.get(next(iter(record)), "StudyDescription"): wanted}) is expected


# Retrieve


def test_objects_come_as_they_are_stored(client: DICOMwebClient, served: Served) -> None:
    study, series, instance = uids(served.plain[0])
    whole = client.retrieve_study(study)
    assert len(whole) == SHAPE[0] + 2
    assert {str(one.SOPInstanceUID) for one in client.retrieve_series(study, series)} == {
        uids(file)[2] for file in served.plain
    }
    answer = served.get(path_of(served.plain[0]), "application/dicom; transfer-syntax=*")
    assert answer.content == served.plain[0].read_bytes()
    assert client.retrieve_instance(study, series, instance) == dcmread(served.plain[0])


def parts_of(answer: httpx.Response) -> list[tuple[str, bytes]]:
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer.content)
    parts = message.get_payload()
    assert isinstance(parts, list)
    return [(one["content-type"], one.get_payload(decode=True)) for one in parts]  # type: ignore[union-attr,misc,index]


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("", 200),
        ("*/*", 200),
        ('multipart/related; type="application/dicom"', 200),
        ("multipart/related; type=application/dicom; transfer-syntax=1.2.840.10008.1.2.4.80", 200),
        ('multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1', 406),
        ("text/html", 406),
        ('text/html;q=0.9, multipart/related; type="application/dicom"; transfer-syntax=*', 200),
        ("*/*;q=0", 406),
    ],
)
def test_what_a_client_takes_is_kept_to(served: Served, accept: str, status: int) -> None:
    study, series, _ = uids(served.jpeg_ls[0])
    answer = served.get(f"/studies/{study}/series/{series}", accept)
    assert answer.status_code == status
    if status == 200:
        parts = parts_of(answer)
        assert [kind for kind, _ in parts] == ["application/dicom"] * SHAPE[0]
        assert {len(data) for _, data in parts} == {file.stat().st_size for file in served.jpeg_ls}
    else:
        assert "as they are stored" in answer.text or "multipart/related" in answer.json()["detail"]


def test_metadata_is_the_header_without_pixels(client: DICOMwebClient, served: Served) -> None:
    study, series, instance = uids(served.plain[1])
    found = client.retrieve_instance_metadata(study, series, instance)
    header = dcmread(served.plain[1], stop_before_pixels=True).to_json_dict()
    assert {tag: value for tag, value in found.items() if tag != "7FE00010"} == header
    assert found["7FE00010"]["BulkDataURI"].endswith(f"/instances/{instance}/frames")
    assert len(client.retrieve_study_metadata(study)) == SHAPE[0] + 2
    assert len(client.retrieve_series_metadata(study, series)) == SHAPE[0]


def test_a_large_value_is_fetched_by_its_address(client: DICOMwebClient, served: Served) -> None:
    study, series, instance = uids(served.pdf)
    address = client.retrieve_instance_metadata(study, series, instance)["00420011"]["BulkDataURI"]
    assert client.retrieve_bulkdata(address) == [dcmread(served.pdf).EncapsulatedDocument]
    assert httpx.get(address).content == dcmread(served.pdf).EncapsulatedDocument


@pytest.mark.parametrize("which", ["plain", "jpeg_ls", "rle"])
def test_frames_come_without_compression(client: DICOMwebClient, served: Served, which: str) -> None:
    file = getattr(served, which)[3]
    expected = dcmread(file).pixel_array.astype("<u2").tobytes()
    answer = served.get(f"{path_of(file)}/frames/1", 'multipart/related; type="application/octet-stream"')
    assert parts_of(answer) == [("application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1", expected)]
    assert client.retrieve_instance_frames(*uids(file), frame_numbers=[1]) == [expected]
    assert served.get(f"{path_of(file)}/frames/1", "application/octet-stream").content == expected


def test_frames_come_compressed_if_they_are_and_that_is_asked_for(served: Served) -> None:
    file = served.jpeg_ls[3]
    answer = served.get(f"{path_of(file)}/frames/1", 'multipart/related; type="image/jls"')
    [(kind, data)] = parts_of(answer)
    assert kind == f"image/jls; transfer-syntax={JPEGLSLossless}"
    assert data.rstrip(b"\0") == next(generate_frames(dcmread(file).PixelData, number_of_frames=1)).rstrip(b"\0")
    assert served.get(f"{path_of(file)}/frames/1", 'multipart/related; type="image/jp2"').status_code == 406


@pytest.mark.parametrize("which", ["seg", "plain", "rle"])
def test_the_address_of_pixels_in_the_metadata_gives_every_frame(
    client: DICOMwebClient, served: Served, which: str
) -> None:
    file = served.seg if which == "seg" else getattr(served, which)[2]
    address = client.retrieve_instance_metadata(*uids(file))["7FE00010"]["BulkDataURI"]
    numbers = [1, 2, 3] if which == "seg" else [1]
    assert client.retrieve_bulkdata(address) == client.retrieve_instance_frames(*uids(file), frame_numbers=numbers)


def test_frames_of_single_bits_begin_at_a_byte(served: Served) -> None:
    answer = served.get(f"{path_of(served.seg)}/frames/1,2,3")
    bits = np.unpackbits(np.frombuffer(bytes(range(1, 15)), np.uint8), bitorder="little")
    for number, (_, data) in enumerate(parts_of(answer)):
        frame = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[:35]
        assert (frame == bits[35 * number : 35 * number + 35]).all()
        picture = served.get(f"{path_of(served.seg)}/frames/{number + 1}/rendered", "image/png")
        assert (np.asarray(Image.open(io.BytesIO(picture.content))).ravel() == frame * 255).all()


def test_a_picture_shows_the_window_that_is_asked_for(served: Served) -> None:
    file = served.jpeg_ls[3]
    answer = served.get(f"{path_of(file)}/rendered?window=-600,1500", "image/png")
    assert answer.headers["content-type"] == "image/png"
    header = dcmread(file)
    hu = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
    expected = np.clip((hu + 600 + 750) / 1500, 0, 1) * 255
    assert np.abs(np.asarray(Image.open(io.BytesIO(answer.content))) - expected).max() <= 0.51
    exact = served.get(f"{path_of(file)}/rendered?window=-600,1500,LINEAR&viewport=64,64,,", "image/png")
    assert exact.content == answer.content
    small = served.get(f"{path_of(file)}/rendered?viewport=32,16", "image/jpeg")
    assert (small.headers["content-type"], Image.open(io.BytesIO(small.content)).size) == ("image/jpeg", (16, 16))


@pytest.mark.parametrize(
    ("tail", "status", "words"),
    [
        ("/frames/2", 404, "there is no frame 2; the object has 1"),
        ("/frames/1,1", 400, "2 frames are asked for, of an object of 1; ask for each once"),
        ("/frames/0", 404, "there is no frame 0"),
        ("/frames/x", 400, "frames are 'x'; expected numbers"),
        ("/frames/1,2/rendered", 400, "one frame is rendered at a time"),
        ("/rendered?window=1", 400, "window is '1'; expected numbers"),
        ("/rendered?window=nan,1", 400, "expected numbers"),
        ("/rendered?window=1,0", 400, "window is '1,0'; expected a width above 0"),
        ("/bulkdata/7FE00010", 404, "an image has them under /frames"),
        ("/bulkdata/7fe00010", 404, "an image has them under /frames"),
        ("/rendered?quality=0", 400, "quality is '0'; expected 1 to 100"),
        ("/rendered?viewport=0,1", 400, "viewport is '0,1'; expected 1 to 8192"),
        ("/bulkdata/00420011", 404, "no value under the tag '00420011'"),
        ("/bulkdata/zzz", 404, "no value under the tag 'zzz'"),
        ("/bulkdata/00080060", 404, "is text; the metadata has it"),
        ("0", 404, "this node holds no such object"),
    ],
)
def test_what_is_not_there_or_not_understood_is_said(served: Served, tail: str, status: int, words: str) -> None:
    answer = served.get(path_of(served.plain[0]) + tail)
    assert answer.status_code == status
    assert words in answer.json()["detail"]


@pytest.mark.parametrize("uid", ["..", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "1.2.3", "x" * 500, "'; drop table job; --"])
def test_a_study_that_is_none_is_not_there(served: Served, uid: str) -> None:
    assert served.get(f"/studies/{uid}/metadata").status_code == 404


@pytest.mark.parametrize("accept", ["application/dicom+xml", 'multipart/related; type="application/dicom+xml"'])
def test_metadata_and_searches_are_json_alone(served: Served, accept: str) -> None:
    study = uids(served.pdf)[0]
    for path in ("/studies", f"/studies/{study}/metadata"):
        answer = served.get(path, accept)
        assert answer.status_code == 406
        assert "answered in application/dicom+json alone" in answer.json()["detail"]
        assert served.get(path, f"{accept}, application/dicom+json;q=0.1").status_code == 200
        assert served.get(path, "application/json").status_code == 200


def test_an_accept_header_of_any_kind_is_read() -> None:
    assert wishes("") == wishes("*/*")
    assert [wish.media_type for wish in wishes("image/png;q=0.1, image/jpeg;q=x, image/*;q=0.5")] == [
        "image/*",
        "image/png",
    ]
    assert wishes('multipart/related;type="a/b, c";transfer-syntax="*"')[0].media_type == "a/b, c"
    assert len(wishes(", " * 100_000)) < 5000


def test_json_has_no_number_that_is_none(served: Served) -> None:
    json.loads(served.get("/instances").text, parse_constant=lambda word: pytest.fail(word))


def test_another_content_under_a_known_uid_is_told_once_it_is_released(tmp_path: Path) -> None:
    files = write_ct_series(chest_phantom(shape=SHAPE, lesions=0, seed=5).volume, tmp_path / "ct")
    other = dcmread(files[0])
    other.SeriesDescription = "another"
    other.save_as(tmp_path / "other.dcm")
    node = opened(tmp_path)
    hold(node, files)
    apart = hold(node, [tmp_path / "other.dcm"], state="apart")
    with serving(node) as url:
        address = f"{url}/dicom-web{path_of(files[0])}"
        accept = {"Accept": "application/dicom"}
        assert httpx.get(address, headers=accept).content == files[0].read_bytes()
        with node.engine.begin() as connection:
            assert release(connection, apart)
        assert httpx.get(address, headers=accept).content == (tmp_path / "other.dcm").read_bytes()
