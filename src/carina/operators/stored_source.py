"""How a source is stored: copies of its files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from carina.dicom.find import find_series, handed_source
from carina.dicom.series import Source, VolumeFile
from carina.errors import BadSeries
from carina.pipeline.places import file_name
from carina.pipeline.ports import Saved
from carina.volume.files import volume_name, volume_suffix


class StoredSource:
    """A series' files, numbered in slice order, or the one volume file; read back whatever the rules say of it."""

    @staticmethod
    def save(source: Source, folder: Path, saved: Saved) -> Sequence[Path]:
        """Copy the files."""
        if isinstance(source, VolumeFile):  # under its own name, by which a header names the file of its voxels
            copies = {path.name: path for path in _with_voxels(source.path)}
        else:
            paths = dict.fromkeys(instance.path for instance in source.instances)
            copies = {f"{number:04d}-{file_name(path.name)}": path for number, path in enumerate(paths)}
        for name, path in copies.items():
            shutil.copyfile(path, folder / name)
        return [folder / name for name in copies]

    @staticmethod
    def load(files: Sequence[Path]) -> Source:
        """The best series, or the volume file, among some files that a step of a run was handed.

        Raises:
            BadSeries: there are none, or none that can be read.
        """
        if not files:
            raise BadSeries("series.none-found", "the folder is empty; expected a CT series or a volume file.")
        place = files[0] if len(files) == 1 else Path(os.path.commonpath([f.parent for f in files]))
        return handed_source(find_series(place))

    @staticmethod
    def recognise(files: Sequence[Path]) -> bool:
        """Whether there is any file at all."""
        return bool(files)


def _with_voxels(path: Path) -> list[Path]:
    """A volume file and, of a header alone, the files beside it that may hold its voxels."""
    if volume_suffix(path) not in (".mhd", ".nhdr"):
        return [path]
    beside = (one for one in path.parent.iterdir() if one.name.startswith(f"{volume_name(path)}.") and one.is_file())
    return list(dict.fromkeys([path, *sorted(beside)]))
