"""The viewer's pages and pictures, asked for over HTTP: the run's own figures, and nothing but the run's files."""

from __future__ import annotations

import io
import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from carina import RESEARCH_ONLY
from carina.api.result import Run
from carina.errors import BadConfig
from carina.measure.findings import Classification, SaliencyFindings
from carina.measure.texts import ml_text, percent_text
from carina.operators.deidentify import MAP_FILE
from carina.pipeline.manifest import State, read_manifest, write_manifest
from carina.report.numbers import hu_text, page_text
from carina.service.local_time import seconds_words
from carina.service.problems import NotThere
from carina.service.viewer.layers import layer_of
from carina.service.viewer.opened import Images, OpenedRun, RunShelf
from carina.service.viewer.routes import viewer_routes
from carina.service.viewer.scene import chosen_voxel, shown_planes
from carina.service.viewer.server import run_app
from carina.service.viewer.slices import Drawing, slice_png, slice_words
from carina.testing.dicom import write_ct_series
from carina.volume import Mask, Volume
from scenes import scenes
from viewer_runs import posed, served, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(posed("plain"), tmp_path_factory.mktemp("viewer") / "run")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with served(folder) as address:
        yield address


def asked(address: str, host: str = "") -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(address, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.headers.items()}
    except urllib.error.HTTPError as error:
        return error.code, error.read(), {name.lower(): value for name, value in error.headers.items()}


def text_of(page: bytes) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page.decode())).split())


def picture(address: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    status, body, headers = asked(address)
    assert (status, headers["content-type"]) == (200, "image/png")
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))


@pytest.mark.parametrize("page", ["/", "/report"])
def test_every_figure_of_the_findings_stands_on_the_page_by_its_region(url: str, folder: Path, page: str) -> None:
    told = text_of(asked(url + page)[1])
    found = Run(folder).stored("volume-ratio.json")["regions"]
    rounded = json.loads((folder / "findings.json").read_text())["regions"]
    assert [one["lesion_ml"] for one in rounded] == pytest.approx([one["lesion_ml"] for one in found], abs=5e-4)
    for region in found:
        words = region["region"].split()
        name = " ".join(words[2:] or words).capitalize()
        cells = [ml_text(region["lung_ml"]), ml_text(region["lesion_ml"]), percent_text(region["ratio_percent"])]
        cells += [page_text(hu_text(region[f"{layer}_mean_hu"])) for layer in ("lung", "lesion")]
        assert f"{name} {' '.join(' '.join(cells).split())}" in told
    assert "COVID-19 < 0.01" in told and "non-COVID-19 > 0.99" in told
    assert "Two slices were missing." in told
    assert RESEARCH_ONLY in told


def test_an_operator_that_an_ended_run_never_came_to_was_not_run(tmp_path: Path) -> None:
    run = write_run(posed("plain"), tmp_path / "run")
    manifest = read_manifest(run)
    assert manifest
    manifest.operators["findings"].state = State.WAITING
    with served(run) as address:
        for manifest.state in (State.INTERRUPTED, State.FAILED):
            write_manifest(manifest, run)
            assert "findings carina/findings not run " in text_of(asked(f"{address}/report")[1])


def test_what_the_probabilities_cannot_tell_stands_under_them(tmp_path: Path) -> None:
    limit = "It can't tell <one> pneumonia from another."
    found = Classification(uid="1.2.3", probabilities={"COVID-19": 0.7, "non-COVID-19": 0.3}, limits=(limit,))
    with served(write_run(posed("plain"), tmp_path / "run", found)) as address:
        for page in ("/", "/report"):
            assert f"not the chance that this patient has COVID-19. {limit}" in text_of(asked(address + page)[1])


def test_what_was_not_classified_says_why_and_shows_no_number(tmp_path: Path) -> None:
    reason = "Not classified. Less than a third of the lungs' height is in view."
    refused = Classification(uid="1.2.3", probabilities={}, not_computed=reason)
    with served(write_run(posed("plain"), tmp_path / "run", refused)) as address:
        for page in ("/", "/report"):
            told = text_of(asked(address + page)[1])
            assert reason in told and "Probability given by the network" not in told


def test_the_page_opens_at_the_largest_lesion_and_a_link_leads_to_each(url: str) -> None:
    first, second = (asked(f"{url}/{query}")[1].decode() for query in ("", "?at=lesion-2"))
    shown = [re.findall(r'src="(/slice/[^"]+)"', page) for page in (first, second)]
    assert all(len(pictures) == 3 for pictures in shown) and shown[0] != shown[1]
    assert 'aria-current="true"><span class="number">1<' in first
    assert 'aria-current="true"><span class="number">2<' in second
    assert "stands in the one that holds most of it; shares by third count every part where it lies" in first
    for page in shown:
        for address in page:
            assert (orange(picture(url + unescape(address)))).any(), "the lesion is in none of the three planes"


def orange(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    red, green, blue = (pixels[..., k].astype(int) for k in range(3))
    return np.asarray((red - blue > 60) & (red > green))


def test_a_healthy_chest_opens_at_its_lungs(tmp_path: Path) -> None:
    phantom = posed("plain")
    empty = replace(phantom.lesion, labels=np.zeros_like(phantom.lesion.labels))
    with served(write_run(replace(phantom, lesion=empty), tmp_path / "run")) as address:
        status, page, _ = asked(f"{address}/")
        told = text_of(page)
        assert status == 200 and "0 %" in told and "does not exclude disease" in told
        assert "No lesion marked here." in page.decode()
        status, page, _ = asked(f"{address}/?at=lesion-1")
        assert status == 200 and "There is no lesion-1: this run has no marked lesion. " in text_of(page)


THROUGH_THE_LESION = {"axial": 21, "coronal": 55, "sagittal": 67}


def test_the_saliency_is_drawn_with_its_numbers_where_the_run_has_one(tmp_path: Path, url: str) -> None:
    changes = SaliencyFindings(label="COVID-19", lowest=-0.1, highest=0.2, blocks=(4, 4, 4))
    found = Classification(uid="1.2.3", probabilities={"COVID-19": 0.7}, saliency=changes)
    with served(write_run(posed("plain"), tmp_path / "run", found)) as address:
        for query in ("?overlay=saliency", "?saliency=on&lung=off"):
            pixels = picture(f"{address}/slice/axial/21.png{query}").astype(int)
            red, blue = pixels[..., 0] - pixels[..., 2], pixels[..., 2] - pixels[..., 0]
            assert (red[:, 400:700] > 30).mean() > 0.8 and (blue[:, 20:320] > 30).mean() > 0.8
        page = text_of(asked(f"{address}/?overlay=lung,saliency")[1])
        assert "lowers the probability of COVID-19, at most by 0.20; blue: it raises it, at most by 0.10." in page
    assert "Saliency" not in text_of(asked(f"{url}/")[1])


QUERIES = {
    "?window=bone&overlay=none": "no mask",
    "?window=-1000,400&overlay=lesion": "an outline",
    "?overlay=lung-fill,lesion-fill&opacity=100": "fills",
    "?window=mediastinum&lung=off&lesion=outline": "as the form asks",
}


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("plane", THROUGH_THE_LESION)
def test_a_slice_is_drawn_as_its_url_says(url: str, plane: str, query: str) -> None:
    pixels = picture(f"{url}/slice/{plane}/{THROUGH_THE_LESION[plane]}.png{query}")
    is_grey = (pixels == pixels[..., :1]).all(axis=2)
    assert is_grey.all() == (query == "?window=bone&overlay=none")
    height, width = pixels.shape[:2]
    assert max(height, width) == 720
    assert height / width == pytest.approx({"axial": 1.0}.get(plane, 320 / 384), abs=0.01)


WRONG = {
    "/slice/axial/60.png": (404, "there is no axial slice 60; the volume has 0 to 59"),
    "/at/999/124/212.json": (400, "no voxel 999,124,212 in this scan of"),
    "/slice/oblique/1.png": (404, "view 'oblique' is not known"),
    "/slice/axial/1.png?window=liver": (400, "window 'liver': expected lung, aerated, mediastinum, bone"),
    "/slice/axial/1.png?window=100,-100": (400, "window '100,-100': expected"),
    "/slice/axial/1.png?overlay=heart": (400, "overlay 'heart' is not known"),
    "/slice/axial/1.png?lesion=dotted": (400, "a mask can't be drawn as 'dotted'"),
    "/slice/axial/1.png?opacity=101": (400, "opacity '101' is no whole number from 0 to 100"),
    "/pdf/manifest.pdf": (404, "'dicom/manifest.dcm': this run has no such file"),
    "/files/none.txt": (404, "'none.txt': this run has no such file"),
    "/files/..%2F..%2Fetc%2Fpasswd": (404, "does not lie in this folder"),
    "/files/%2Fetc%2Fpasswd": (404, "does not lie in this folder"),
    "/files/link/secret.txt": (404, "does not lie in this folder"),
    "/files/": (404, "does not lie in this folder"),
    "/files/a%00b": (404, "does not lie in this folder"),
    "/nowhere": (404, "There is no such page here."),
    "/static/nowhere.js": (404, "There is no such page here."),
    "/files/steps": (404, "'steps': this run has no such file"),
}


@pytest.mark.parametrize("path", WRONG)
def test_what_is_not_there_or_not_understood_is_said_in_words(url: str, folder: Path, path: str) -> None:
    outside = folder.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "secret.txt").write_text("secret")
    if not (folder / "link").is_symlink():
        (folder / "link").symlink_to(outside)
    status, page, headers = asked(url + path)
    assert (status, headers["content-type"]) == (WRONG[path][0], "text/html; charset=utf-8")
    assert WRONG[path][1].lower() in text_of(page).lower() and "<script>" not in page.decode()
    assert b"secret\n" not in page and str(folder.parent) not in text_of(page)
    ways = re.findall(r'<a href="([^"]+)"', page.decode().partition("<main")[2])
    assert [asked(url + way)[0] for way in ways] == [200] * 3


def test_a_lock_is_no_file_of_the_run(url: str, folder: Path) -> None:
    lock = folder / "corrections" / ".lesion.strokes.lock"
    lock.parent.mkdir()
    lock.touch()
    assert asked(f"{url}/files/corrections/{lock.name}")[0] == 404
    assert lock.name not in asked(f"{url}/files")[1].decode()
    shutil.rmtree(lock.parent)


def test_every_file_of_the_run_can_be_had_and_no_other(url: str, folder: Path) -> None:
    page = asked(f"{url}/files")[1].decode()
    links = re.findall(r'href="(/files/[^"]+)"', page)
    own = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    own = {name for name in own if not name.startswith("link/")}
    assert {link.removeprefix("/files/") for link in links} == own
    for link in links:
        status, body, headers = asked(url + link)
        assert status == 200 and body == (folder / link.removeprefix("/files/")).read_bytes()
        assert headers["content-disposition"].startswith("attachment")


def test_the_map_of_a_de_identified_series_is_neither_listed_nor_given(tmp_path: Path) -> None:
    run = write_run(posed("plain"), tmp_path / "run")
    (run / MAP_FILE).write_text("kind,original,replacement\npatient,DOE^JANE,CARINA-A\n")
    with served(run) as address:
        assert "deidentification-map" not in asked(f"{address}/files")[1].decode()
        for name in (MAP_FILE, f"./{MAP_FILE}", f"lung/..%2f{MAP_FILE}"):
            status, body, _ = asked(f"{address}/files/{name}")
            assert status == 404 and b"DOE" not in body


def test_the_provenance_names_operators_bundles_and_hashes(url: str, folder: Path) -> None:
    told = text_of(asked(f"{url}/report")[1])
    manifest = Run(folder).manifest
    for words in (manifest.definition.sha256, "lung-net 1.0.0 " + "3" * 64, "carina/volume-ratio done 12:00:00 1.5 s"):
        assert words in told
    assert "HU in the lungs: median" in told
    assert "Volume of the lungs at each HU: all of the lungs , of it lesion" in told
    assert f"computing took {seconds_words(manifest.seconds)}" in told


def test_every_answer_forbids_what_is_not_ours(url: str) -> None:
    for path in ("/", "/report", "/static/viewer.js", "/slice/axial/3.png", "/slice/axial/999.png", "/nowhere"):
        _, _, headers = asked(url + path)
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy and "http" not in policy
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")


def test_a_script_that_a_browser_has_is_not_sent_again(url: str) -> None:
    tag = asked(f"{url}/static/viewer.js")[2]["etag"]
    request = urllib.request.Request(f"{url}/static/viewer.js", headers={"If-None-Match": tag})
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(request, timeout=60)
    assert (answer.value.code, answer.value.headers["cache-control"]) == (304, "no-cache")


def test_a_name_that_was_made_to_point_here_is_not_answered(url: str) -> None:
    assert asked(f"{url}/", host="evil.example")[0] in (400, 421)
    assert asked(f"{url}/", host="localhost")[0] == 200


def test_mounted_anywhere_every_link_leads_below_the_mount(folder: Path) -> None:
    def run_of(request: Request) -> Path:
        if request.path_params["uid"] != "1.2.3":
            raise NotThere("series.unknown", "there is no such series.")
        return folder

    app = Starlette(routes=[Mount("/series/{uid}", routes=viewer_routes(run_of))])
    with served(app) as address:
        status, page, _ = asked(f"{address}/series/1.2.3?at=lesion-2")
        assert status == 200 and b'aria-current="true"><span class="number">2<' in page
        for path in ("/", "/report", "/files"):
            text = asked(f"{address}/series/1.2.3{path}")[1].decode()
            links = re.findall(r'(?:href|src|action)="([^"#]+)"', text)
            assert links and all(link.startswith("/series/1.2.3/") for link in links)
            for link in sorted(set(links)):
                assert asked(address + unescape(link))[0] == 200, link
        status, page, _ = asked(f"{address}/series/9/")
        assert status == 404 and "There is no such series" in text_of(page)


def test_a_run_that_failed_before_it_had_images_opens_at_its_report_and_says_why(tmp_path: Path) -> None:
    folder = write_run(posed("plain", (24, 48, 48)), tmp_path / "run")
    for name in ("volume", "lung", "lesion"):
        shutil.rmtree(folder / name)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["state"] = manifest["operators"]["volume-ratio"]["state"] = "failed"
    manifest["operators"]["volume-ratio"] |= {"outputs": {}, "error": {"code": "x.y", "message": "The disk is full."}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with served(folder) as address:
        status, page, _ = asked(f"{address}/")
        assert status == 200
        told = text_of(page)
        assert "This run failed" in told and "The disk is full." in told and "measured no lesion" in told
        assert asked(f"{address}/files")[0] == 200
        status, page, _ = asked(f"{address}/slice/axial/1.png")
        assert status == 404 and "this run did not write one" in text_of(page)


@pytest.mark.parametrize("missing", [("lung", "lesion"), ("lesion",)])
def test_a_run_without_a_mask_shows_what_there_is(tmp_path: Path, missing: tuple[str, ...]) -> None:
    folder = write_run(posed("plain", (24, 48, 48)), tmp_path / "run")
    for name in missing:
        shutil.rmtree(folder / name)
    with served(folder) as address:
        assert asked(f"{address}/")[0] == asked(f"{address}/report")[0] == 200
        assert picture(f"{address}/slice/axial/12.png").any()


@pytest.mark.parametrize("place", ["volume", "lung"])
def test_a_file_that_is_cut_short_is_one_line_and_the_server_lives(tmp_path: Path, place: str) -> None:
    folder = write_run(posed("plain", (24, 48, 48)), tmp_path / "run")
    (file,) = (path for path in (folder / place).iterdir() if path.suffix in (".raw", ".zraw"))
    whole = file.read_bytes()
    slices = [f"/slice/{plane}/20.png" for plane in ("axial", "coronal", "sagittal")]
    with served(folder) as address:
        if place == "volume":
            assert asked(address + slices[0])[0] == 200  # cut short once the run is open
        file.write_bytes(whole[: len(whole) // 2])
        for page in slices:
            status, body, _ = asked(address + page)
            assert status == 422 and f"{file.name}: is cut short" in text_of(body)
        file.write_bytes(whole)
        assert [asked(address + page)[0] for page in ("/", "/report", *slices)] == [200] * 5


@settings(max_examples=25, deadline=None)
@given(scenes())
def test_any_volume_however_small_or_oblique_has_its_pictures(scene: tuple[Mask, Mask, Volume]) -> None:
    lesion, lung, volume = scene
    images = Images(volume=volume, lung=lung, lesion=lesion)
    opened = cast(OpenedRun, SimpleNamespace(images=images, lesions=(), saliency=None, once=lambda _, make: make()))
    at = chosen_voxel(opened, {})
    for plane in shown_planes(volume.grid, at):
        shown = Image.open(io.BytesIO(slice_png(opened, plane.name, plane.index, Drawing())))
        assert max(shown.size) == 720
        assert slice_words(images, plane.name, plane.index).startswith(plane.name.capitalize())
    for size, name in (("quarter", "ct"), ("quarter", "marks"), ("full", "marks")):
        assert layer_of(opened, size, name).array.size


def test_a_folder_without_a_run_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"no run of Carina; expected a manifest\.json there"):
        run_app(tmp_path)


def test_a_run_that_was_run_again_is_opened_anew_and_few_are_kept(tmp_path: Path) -> None:
    phantom = posed("plain", (24, 48, 48))
    folders = [write_run(phantom, tmp_path / name) for name in ("a", "b", "c")]
    shelf = RunShelf(kept=2)
    first = shelf.open(folders[0])
    assert shelf.open(folders[0]) is first
    write_run(phantom, folders[0])
    again = shelf.open(folders[0])
    assert again is not first
    shelf.open(folders[1])
    shelf.open(folders[2])
    assert shelf.open(folders[0]) is not again


def test_a_run_is_named_by_its_scans_date_and_its_folder(tmp_path: Path) -> None:
    run = write_run(posed("plain"), tmp_path / "second look")
    with served(run) as address:
        assert ">second look</span>" in asked(f"{address}/")[1].decode()
    write_ct_series(posed("plain").volume, run / "dicom")
    with served(run) as address:
        for page in ("", "report", "files", "correct/lesion"):
            told = asked(f"{address}/{page}")[1].decode()
            assert ">2020-01-01, second look</span>" in told, page
            assert re.search("<title>.+, 2020-01-01, second look - Carina</title>", told), page
