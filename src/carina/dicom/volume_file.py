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
from carina.errors import BadSeries
from carina.volume.files import read_grid, volume_name, volume_suffix

DAMAGED = frozenset({"file.unreadable", "file.truncated", "file.missing", "file.name", "input.unreadable"})
"""Problems of a file that can't be read at all; others are of what it holds."""

DATA_FILE = re.compile(rb"^(?:ElementDataFile *=|data ?file *:) *(.+?) *\r?$", re.IGNORECASE | re.MULTILINE)
"""Where a MetaImage or NRRD header says that the voxels lie."""

VOLUME_HEADER_BYTES = 1 << 16


def volume_file(path: Path) -> Found:
    """A volume file as it was found: its grid, or what is wrong with it. No voxels are read."""
    uid = volume_name(path)
    data = _data_files(path)
    files = (path, *data)
    try:
        os.fsencode(path).decode()
        grid, voxel_type = read_grid(path)
    except UnicodeDecodeError:
        words = "its path is no UTF-8 text, which readers of volume files need: rename it"
        return Found(path=path, uid=uid, files=files, problems=(SliceProblem(code="file.name", words=words),))
    except BadSeries as error:
        words = error.message.removeprefix(f"{path.name}: ")
        return Found(path=path, uid=uid, files=files, problems=(SliceProblem(code=error.code, words=words),))
    problem: tuple[SliceProblem, ...] = ()
    if voxel_type.startswith("8-bit"):
        problem = (SliceProblem(code="file.no-hu", words="8-bit values can't be HU; give the CT itself, not a mask"),)
    axes = grid.axes
    return Found(
        path=path,
        uid=uid,
        description=path.name,
        files=files,
        slices=grid.shape[0],
        matrix=grid.shape[1:],
        pixel_spacing_mm=grid.spacing_mm[1:],
        slice_spacing_mm=grid.spacing_mm[0],
        plane=plane(axes),
        source=VolumeFile(path=path, uid=uid, data=data),
        problems=problem,
    )


def _data_files(path: Path) -> tuple[Path, ...]:
    """The file beside a MetaImage or NRRD header that its voxels lie in; none where they are in the file itself."""
    if volume_suffix(path) not in (".mhd", ".nhdr"):
        return ()
    try:
        with path.open("rb") as stream:
            named = DATA_FILE.search(stream.read(VOLUME_HEADER_BYTES))
    except OSError:
        return ()
    file = path.with_name(os.fsdecode(named[1])) if named and b"/" not in named[1] else path
    return (file,) if file != path and file.is_file() else ()


def broken_volumes(found: Iterable[Found]) -> Iterator[BrokenFile]:
    """Those of the volume files that can't be read."""
    for one in found:
        damage = next((problem for problem in one.problems if problem.code in DAMAGED), None)
        if damage is not None:
            yield BrokenFile(path=one.path, code=damage.code, reason=damage.words)
