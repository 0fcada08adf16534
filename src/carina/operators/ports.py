"""The port types of the medical operators: what may stand at an operator's parameters and results.

Values of lower rooms know nothing of files, so their ports are annotated: ``VolumePort`` is a ``Volume`` to Python and
to a type checker, and tells the engine how a volume is stored. The values that exist for ports alone know their files.
"""

from __future__ import annotations

import csv
import os
import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from carina import RESEARCH_ONLY
from carina.deliver.onward import dicom_files
from carina.dicom.objects import save_object as save_object
from carina.dicom.series import Source
from carina.errors import BadSeries, kind_and_place, with_words
from carina.measure.findings import Classification, RatioFindings
from carina.operators.stored_files import facts_of, one_file, read_tree, with_suffix, written_files
from carina.operators.stored_findings import StoredClassification, StoredRatio
from carina.operators.stored_images import StoredMask, StoredVolume
from carina.operators.stored_source import StoredSource
from carina.pipeline.json_text import as_json, as_pretty_json
from carina.pipeline.places import file_name
from carina.pipeline.ports import FILE_ERRORS, PortFiles, Saved
from carina.pipeline.values import Row, write_csv
from carina.volume.files import SUFFIXES, read_map, write_map
from carina.volume.volume import Mask, ScalarMap, Volume

VolumePort = Annotated[Volume, StoredVolume]
"""HU voxels with their grid."""

MaskPort = Annotated[Mask, StoredMask]
"""Labelled voxels on a volume's grid."""

SourcePort = Annotated[Source, StoredSource]
"""What a run is made from: a chosen DICOM series, or a volume file."""

ClassificationPort = Annotated[Classification, StoredClassification]
"""Class probabilities with slices to show."""

RatioPort = Annotated[RatioFindings, StoredRatio]
"""The lesion to lung volume ratio by region, with slices to show."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DicomObjects:
    """DICOM objects by file name without suffix; ``note`` says why there are none."""

    objects: Mapping[str, Dataset]
    note: str = ""

    def save(self, folder: Path, saved: Saved) -> Sequence[Path]:
        """Write a file for each object."""
        return [save_object(dataset, folder / f"{file_name(name)}.dcm") for name, dataset in self.objects.items()]

    @classmethod
    def load(cls, files: Sequence[Path]) -> Self:
        """Read every DICOM file, whether it is named ``.dcm`` or not.

        Raises:
            BadSeries: ``ports.files``, one of them is no whole DICOM object.
        """
        return cls(objects={_stem(path): _read_object(path) for path in dicom_files(files)})

    @classmethod
    def recognise(cls, files: Sequence[Path]) -> bool:
        """Whether there is a DICOM file."""
        return bool(dicom_files(files))


def _stem(path: Path) -> str:
    """A file's name without its suffix; one that is named after a UID has none."""
    return path.stem if path.suffix.lower() == ".dcm" else path.name


def _read_object(path: Path) -> Dataset:
    try:
        dataset = dcmread(path)
        uids = [dataset.SOPInstanceUID, dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID]
    except (InvalidDicomError, struct.error, *FILE_ERRORS) as error:
        failure = BadSeries("ports.files", f"{path}: is no whole DICOM object ({kind_and_place(error)}).")
        raise with_words(failure, error) from error
    if not all(uids):
        raise BadSeries("ports.files", f"{path}: is no whole DICOM object (its UIDs are empty).")
    return dataset


@dataclass(frozen=True, kw_only=True, eq=False)
class SaliencyPort:
    """A classifier's saliency on the volume's grid, or, in ``not_computed``, the sentence why there is none."""

    map: ScalarMap | None
    not_computed: str = ""

    def save(self, folder: Path, saved: Saved) -> Sequence[Path]:
        """Write ``UID.mhd`` with its quantity and unit in ``UID.json``, or ``not-computed.json``."""
        if self.map is None:
            path = folder / "not-computed.json"
            path.write_bytes(as_json({"not_computed": self.not_computed, "notice": RESEARCH_ONLY}))
            return [path]
        stem = file_name(self.map.uid)
        write_map(self.map, folder / f"{stem}.mhd")
        facts = {name: getattr(self.map, name) for name in ("uid", "quantity", "unit", "made_by")}
        (folder / f"{stem}.json").write_bytes(as_json({**facts, "notice": RESEARCH_ONLY}))
        return written_files(folder, f"{stem}.mhd")

    @classmethod
    def load(cls, files: Sequence[Path]) -> Self:
        """Read what ``save`` wrote."""
        facts = facts_of(files)
        if "not_computed" in facts:
            return cls(map=None, not_computed=facts["not_computed"])
        found = read_map(one_file(files, "saliency", *SUFFIXES), facts.get("quantity", ""), facts.get("unit", ""))
        return cls(map=replace(found, uid=facts.get("uid", found.uid), made_by=facts.get("made_by", "")))

    @classmethod
    def recognise(cls, files: Sequence[Path]) -> bool:
        """Whether there is an image, or the file that says why there is none."""
        return bool(with_suffix(files, *SUFFIXES, "not-computed.json"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """What a viewer shows: the original volume with one mask, or a saliency, over it.

    ``layer`` names the folder of ``shown``; layers of a higher ``order`` lie on top. ``window_hu`` is the grey window,
    ``colours`` a ``#rrggbb`` for each label (of a saliency: -1 for its lowest, 1 for its highest value), ``opacity``
    from 0 to 1.
    """

    volume: Volume
    shown: Mask | SaliencyPort
    layer: str
    order: int
    colours: Mapping[int, str]
    opacity: float = 0.4
    window_hu: tuple[int, int] = (-1350, 150)

    def save(self, folder: Path, saved: Saved) -> Sequence[Path]:
        """Write ``LAYER.json`` beside the folders ``volume`` and ``LAYER``: hard links to what is stored already."""
        layer = file_name(self.layer)
        volume = _place(self.volume, folder / "volume", saved, StoredVolume())
        files: PortFiles = StoredMask() if isinstance(self.shown, Mask) else SaliencyPort
        shown = _place(self.shown, folder / layer, saved, files)
        facts = {
            "notice": RESEARCH_ONLY,
            "volume": volume.relative_to(folder).as_posix(),
            "window_hu": self.window_hu,
            "layer": {
                "name": self.layer,
                "order": self.order,
                "file": shown.relative_to(folder).as_posix(),
                **_layer_facts(self.shown),
                "colours": {str(label): colour for label, colour in self.colours.items()},
                "opacity": self.opacity,
            },
        }
        name = f"{layer}.json"
        (folder / name).write_bytes(as_pretty_json(facts))
        first = folder / name
        return [first, *(path for path in written_files(folder, name) if path != first)]

    @classmethod
    def load(cls, files: Sequence[Path]) -> Self:
        """Read what ``save`` wrote."""
        header = next(path for path in files if _is_scene_header(path))
        facts = read_tree(header)
        layer = facts["layer"]
        low, high = facts["window_hu"]
        kind: PortFiles = SaliencyPort if layer.get("kind") == "map" else StoredMask()
        return cls(
            volume=StoredVolume.load(_beside(header.parent / facts["volume"])),
            shown=kind.load(_beside(header.parent / layer["file"])),
            layer=layer["name"],
            order=layer["order"],
            colours={int(label): colour for label, colour in layer["colours"].items()},
            opacity=layer["opacity"],
            window_hu=(low, high),
        )

    @classmethod
    def recognise(cls, files: Sequence[Path]) -> bool:
        """Whether there is a ``LAYER.json`` beside a folder ``LAYER``."""
        return any(map(_is_scene_header, files))


def _layer_facts(shown: Mask | SaliencyPort) -> dict[str, Any]:
    """What a viewer must know of a layer's values: its labels' words, or how far a map reaches from 0, and its unit."""
    if isinstance(shown, Mask):
        return {"kind": "labels", "labels": {str(label): word for label, word in shown.names.items()}}
    if shown.map is None:
        return {"kind": "map", "not_computed": shown.not_computed}
    reach = float(max(shown.map.values.max(), -shown.map.values.min()))
    return {"kind": "map", "range": [-reach, reach], "unit": shown.map.unit, "quantity": shown.map.quantity}


def _place(value: Volume | Mask | SaliencyPort, folder: Path, saved: Saved, kind: PortFiles) -> Path:
    """The stored files of a value, linked into a folder (copied where links can't be), or written there."""
    folder.mkdir(exist_ok=True)
    files = saved(value)
    for path in files:
        try:
            os.link(path, folder / path.name)
        except OSError:
            shutil.copyfile(path, folder / path.name)
    written = files or kind.save(value, folder, saved)
    return folder / written[0].name


def _is_scene_header(path: Path) -> bool:
    return path.suffix == ".json" and (path.parent / path.stem).is_dir()


def _beside(image: Path) -> list[Path]:
    """An image and the files that belong to it."""
    return [path for path in sorted(image.parent.iterdir()) if path.stem == image.stem]


@dataclass(frozen=True, kw_only=True, eq=False)
class FindingsTables:
    """Findings as people and programs read them: a tree for JSON and rows for CSV."""

    tree: Mapping[str, Any]
    rows: Sequence[Row]

    def save(self, folder: Path, saved: Saved) -> Sequence[Path]:
        """Write ``findings.json`` and ``findings.csv``."""
        tree, rows = folder / "findings.json", folder / "findings.csv"
        tree.write_bytes(as_pretty_json(self.tree))
        write_csv(self.rows, rows)
        return [tree, rows]

    @classmethod
    def load(cls, files: Sequence[Path]) -> Self:
        """Read what ``save`` wrote; the cells of the rows are texts."""
        tree = read_tree(one_file(files, "tree", "findings.json"))
        with one_file(files, "table", "findings.csv").open(newline="", encoding="utf-8") as rows:
            return cls(tree=tree, rows=list(csv.DictReader(rows)))

    @classmethod
    def recognise(cls, files: Sequence[Path]) -> bool:
        """Whether there is a ``findings.json``."""
        return bool(with_suffix(files, "findings.json"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Log:
    """Lines that an operator wrote about its work."""

    lines: tuple[str, ...] = ()

    def save(self, folder: Path, saved: Saved) -> Sequence[Path]:
        """Write ``log.txt``."""
        path = folder / "log.txt"
        path.write_text("".join(f"{line}\n" for line in self.lines), encoding="utf-8")
        return [path]

    @classmethod
    def load(cls, files: Sequence[Path]) -> Self:
        """Read a text file."""
        return cls(lines=tuple(one_file(files, "log", ".txt").read_text(encoding="utf-8").splitlines()))

    @classmethod
    def recognise(cls, files: Sequence[Path]) -> bool:
        """Whether there is a ``log.txt``."""
        return bool(with_suffix(files, "log.txt"))
