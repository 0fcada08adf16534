"""A node with studies in several syntaxes and results, for tests of what DICOMweb answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from pydicom import dcmread
from pydicom.uid import (
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    SegmentationStorage,
)

from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from served_nodes import add_job, hold, opened, serving, write_result

SHAPE = (6, 64, 64)


@dataclass(frozen=True, kw_only=True)
class Served:
    """A node with three studies: a plain one with results, one in JPEG-LS, one in RLE."""

    url: str
    plain: list[Path]
    jpeg_ls: list[Path]
    rle: list[Path]
    seg: Path
    pdf: Path

    def get(self, path: str, accept: str = "") -> httpx.Response:
        return httpx.get(f"{self.url}/dicom-web{path}", headers={"Accept": accept} if accept else {})


@contextmanager
def serving_studies(folder: Path) -> Iterator[Served]:
    """A node in a folder, until the block ends."""
    volume = chest_phantom(shape=SHAPE, lesions=1, seed=5).volume
    series = {}
    for number, syntax in enumerate((ExplicitVRLittleEndian, JPEGLSLossless, RLELossless)):
        settings = SeriesSettings(study=f"{number}", patient_id=f"P{number}", shuffled=False, transfer_syntax=syntax)
        series[number] = list(
            write_ct_series(replace(volume, uid=f"2.25.{number}"), folder / str(number), settings=settings)
        )
    node = opened(folder)
    arrivals = [hold(node, files) for files in series.values()]
    job = add_job(node, arrivals[0])
    seg, pdf = (write_result(node, job, series[0][0], kind) for kind in (SegmentationStorage, EncapsulatedPDFStorage))
    add_job(node, arrivals[0], ended="faulted")
    with serving(node) as url:
        yield Served(url=url, plain=series[0], jpeg_ls=series[1], rle=series[2], seg=seg, pdf=pdf)


def uids(file: Path) -> tuple[str, str, str]:
    header = dcmread(file, stop_before_pixels=True)
    return header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID
