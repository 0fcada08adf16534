"""MetaImage, NIfTI and NRRD files among what was found."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from carina.dicom.found import Found
from carina.dicom.geometry import plane
from carina.dicom.headers import SliceProblem
from carina.dicom.inventory import BrokenFile
from carina.dicom.series import VolumeFile
from carina.errors import BadSeries, one_line
from carina.volume.files import read_volume_header, volume_name, volume_suffix
from carina.volume.header import VolumeHeader

DAMAGED = frozenset({"file.unreadable", "file.truncated", "file.leftover", "file.missing", "file.outside"})
"""Problems of a file that can't be read at all; others are of what it holds."""

DATA_FILE = re.compile(rb"^(?:ElementDataFile *=|data ?file *:) *(.+?) *\r?$", re.IGNORECASE | re.MULTILINE)
"""Where a MetaImage or NRRD header says that the voxels lie."""

VOLUME_HEADER_BYTES = 1 << 16


def volume_file(path: Path, most_voxels: int) -> Found:
    """A volume file as it was found: its grid, or what is wrong with it. No voxels are read."""
    uid = volume_name(path)
    try:
        header = read_volume_header(path)
    except BadSeries as error:
        problem = SliceProblem(code=error.code, words=error.message.removeprefix(f"{one_line(path.name)}: "))
        return Found(path=path, uid=uid, files=(path, *_data_files(path)), problems=(problem,))
    data = () if header.voxels.path == path else (header.voxels.path,)
    grid = header.grid
    return Found(
        path=path,
        uid=uid,
        description=path.name,
        files=(path, *data),
        slices=grid.shape[0],
        matrix=grid.shape[1:],
        pixel_spacing_mm=grid.spacing_mm[1:],
        slice_spacing_mm=grid.spacing_mm[0],
        plane=plane(grid.axes),
        source=VolumeFile(path=path, uid=uid, data=data),
        problems=tuple(_problems(header, most_voxels)),
    )


def _problems(header: VolumeHeader, most_voxels: int) -> Iterator[SliceProblem]:
    z, y, x = header.grid.shape
    if z * y * x > most_voxels:
        words = f"its volume has {z} x {y} x {x} voxels, more than limits.voxels ({most_voxels}) allow"
        yield SliceProblem(code="file.too-large", words=words)
    if header.voxel_type.startswith("8-bit"):
        yield SliceProblem(code="file.no-hu", words="8-bit values can't be HU; give the CT itself, not a mask")


def _data_files(path: Path) -> tuple[Path, ...]:
    """The file beside a damaged MetaImage or NRRD header that its voxels seem to lie in."""
    if volume_suffix(path) not in (".mhd", ".nhdr"):
        return ()
    try:
        with path.open("rb") as stream:
            named = DATA_FILE.search(stream.read(VOLUME_HEADER_BYTES))
    except OSError:
        return ()
    file = path.parent / os.fsdecode(named[1]) if named and b"/" not in named[1] else path
    is_there = os.path.isfile(file)  # noqa: PTH113 - of a name that no file can have it says no, Path raises
    return (file,) if file != path and is_there else ()


def broken_volumes(found: Iterable[Found]) -> Iterator[BrokenFile]:
    """Those of the volume files that can't be read."""
    for one in found:
        damage = next((problem for problem in one.problems if problem.code in DAMAGED), None)
        if damage is not None:
            yield BrokenFile(path=one.path, code=damage.code, reason=damage.words)
