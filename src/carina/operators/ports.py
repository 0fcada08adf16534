"""Port types of the medical operators, and how each is stored in a folder."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from carina import RESEARCH_ONLY
from carina.dicom.series import Series, Source, VolumeFile
from carina.errors import BadSeries
from carina.measure.findings import Classification, RatioFindings
from carina.operators.stored_files import one_file, read_tree, with_suffix, written_files
from carina.operators.stored_findings import load_classification, load_ratio, save_classification, save_ratio
from carina.pipeline.ports import PortFormat, Saved, register
from carina.volume.volume import Mask, ScalarMap, Volume

if TYPE_CHECKING:
    from pydicom import Dataset

Row = Mapping[str, str | float | int | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class DicomObjects:
    """DICOM objects by file name without suffix; ``note`` says why there are none."""

    objects: Mapping[str, Dataset]
    note: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Saliency:
    """A classifier's saliency on the volume's grid, or, in ``not_computed``, the sentence why there is none."""

    map: ScalarMap | None
    not_computed: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """What a viewer shows: the original volume with one mask, or a saliency, over it.

    ``layer`` names the folder of ``shown``; layers of a higher ``order`` lie on top. ``window_hu`` is the grey window,
    ``colours`` a ``#rrggbb`` for each label (of a saliency: -1 for its lowest, 1 for its highest value), ``opacity``
    from 0 to 1.
    """

    volume: Volume
    shown: Mask | Saliency
    layer: str
    order: int
    colours: Mapping[int, str]
    opacity: float = 0.4
    window_hu: tuple[int, int] = (-1350, 150)


@dataclass(frozen=True, kw_only=True, eq=False)
class FindingsTables:
    """Findings as people and programs read them: a tree for JSON and rows for CSV."""

    tree: Mapping[str, Any]
    rows: Sequence[Row]


@dataclass(frozen=True, kw_only=True, eq=False)
class Log:
    """Lines that an operator wrote about its work."""

    lines: tuple[str, ...] = field(default=())


_IMAGES = (".mhd", ".mha", ".nii", ".nii.gz", ".nrrd", ".nhdr")


def _save_volume(volume: Volume, folder: Path, saved: Saved) -> Sequence[Path]:
    from carina.volume.files import write_volume

    name = f"{volume.uid}.mhd"
    write_volume(volume, folder / name)
    if volume.warnings:
        (folder / f"{volume.uid}.json").write_bytes(msgspec.json.encode({"warnings": volume.warnings}))
    return written_files(folder, name)


def _load_volume(files: Sequence[Path]) -> Volume:
    from carina.volume.files import read_volume

    volume = read_volume(one_file(files, "volume", *_IMAGES))
    return replace(volume, warnings=tuple(_facts(files).get("warnings", ())))


def _save_mask(mask: Mask, folder: Path, saved: Saved) -> Sequence[Path]:
    from carina.volume.files import write_mask

    name = f"{mask.uid}.mhd"
    write_mask(mask, folder / name)
    facts = {
        "names": {str(label): word for label, word in mask.names.items()},
        "made_by": mask.made_by,
        "warnings": mask.warnings,
        "notice": RESEARCH_ONLY,
    }
    (folder / f"{mask.uid}.json").write_bytes(msgspec.json.encode(facts))
    return written_files(folder, name)


def _load_mask(files: Sequence[Path]) -> Mask:
    from carina.volume.files import read_mask

    facts = _facts(files)
    names = {int(label): str(word) for label, word in facts.get("names", {}).items()}
    mask = read_mask(one_file(files, "mask", *_IMAGES), names)
    return replace(mask, made_by=facts.get("made_by", ""), warnings=tuple(facts.get("warnings", ())))


def _save_saliency(saliency: Saliency, folder: Path, saved: Saved) -> Sequence[Path]:
    from carina.volume.files import write_map

    if saliency.map is None:
        path = folder / "not-computed.json"
        path.write_bytes(msgspec.json.encode({"not_computed": saliency.not_computed, "notice": RESEARCH_ONLY}))
        return [path]
    name = f"{saliency.map.uid}.mhd"
    write_map(saliency.map, folder / name)
    facts = {
        "quantity": saliency.map.quantity,
        "unit": saliency.map.unit,
        "made_by": saliency.map.made_by,
        "notice": RESEARCH_ONLY,
    }
    (folder / f"{saliency.map.uid}.json").write_bytes(msgspec.json.encode(facts))
    return written_files(folder, name)


def _load_saliency(files: Sequence[Path]) -> Saliency:
    from carina.volume.files import read_map

    facts = _facts(files)
    if "not_computed" in facts:
        return Saliency(map=None, not_computed=facts["not_computed"])
    found = read_map(one_file(files, "saliency", *_IMAGES), facts.get("quantity", ""), facts.get("unit", ""))
    return Saliency(map=replace(found, made_by=facts.get("made_by", "")))


def _facts(files: Sequence[Path]) -> dict[str, Any]:
    found = with_suffix(files, ".json")
    return dict(msgspec.json.decode(found[0].read_bytes())) if found else {}


def _save_source(source: Source, folder: Path, saved: Saved) -> Sequence[Path]:
    """Copies, numbered in slice order."""
    paths = [source.path] if isinstance(source, VolumeFile) else list(dict.fromkeys(i.path for i in source.instances))
    for number, path in enumerate(paths):
        name = path.name if isinstance(source, VolumeFile) else f"{number:04d}-{path.name}"
        shutil.copyfile(path, folder / name)
    return sorted(folder.iterdir())


def _load_source(files: Sequence[Path]) -> Source:
    from carina.dicom.find import choose, find_series

    if not files:
        raise BadSeries("series.none-found", "the folder is empty; expected a CT series or a volume file.")
    return choose(find_series(files[0] if len(files) == 1 else Path(os.path.commonpath([f.parent for f in files]))))


def _save_objects(objects: DicomObjects, folder: Path, saved: Saved) -> Sequence[Path]:
    from carina.dicom.objects import save

    return [save(dataset, folder / f"{name}.dcm") for name, dataset in objects.objects.items()]


def _load_objects(files: Sequence[Path]) -> DicomObjects:
    from pydicom import dcmread

    return DicomObjects(objects={path.stem: dcmread(path) for path in with_suffix(files, ".dcm")})


def _save_scene(scene: Scene, folder: Path, saved: Saved) -> Sequence[Path]:
    """``LAYER.json`` beside the folders ``volume`` and ``LAYER``: hard links to what is stored already."""
    volume = _place(scene.volume, folder / "volume", saved, _save_volume)
    save = _save_mask if isinstance(scene.shown, Mask) else _save_saliency
    shown = _place(scene.shown, folder / scene.layer, saved, save)
    facts = {
        "notice": RESEARCH_ONLY,
        "volume": volume.relative_to(folder).as_posix(),
        "window_hu": scene.window_hu,
        "layer": {
            "name": scene.layer,
            "order": scene.order,
            "file": shown.relative_to(folder).as_posix(),
            **_layer_facts(scene.shown),
            "colours": {str(label): colour for label, colour in scene.colours.items()},
            "opacity": scene.opacity,
        },
    }
    name = f"{scene.layer}.json"
    (folder / name).write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=2))
    first = folder / name
    return [first, *(path for path in written_files(folder, name) if path != first)]


def _layer_facts(shown: Mask | Saliency) -> dict[str, Any]:
    """What a viewer must know of a layer's values: its labels' words, or how far a map reaches from 0, and its unit."""
    if isinstance(shown, Mask):
        return {"kind": "labels", "labels": {str(label): word for label, word in shown.names.items()}}
    if shown.map is None:
        return {"kind": "map", "not_computed": shown.not_computed}
    reach = float(max(shown.map.values.max(), -shown.map.values.min()))
    return {"kind": "map", "range": [-reach, reach], "unit": shown.map.unit, "quantity": shown.map.quantity}


def _place(value: Volume | Mask | Saliency, folder: Path, saved: Saved, save: Any) -> Path:
    """The stored files of a value, linked into a folder (copied where links can't be), or written there."""
    folder.mkdir(parents=True, exist_ok=True)
    files = saved(value)
    for path in files:
        try:
            os.link(path, folder / path.name)
        except OSError:
            shutil.copyfile(path, folder / path.name)
    written: Sequence[Path] = files or save(value, folder, saved)
    return folder / written[0].name


def _load_scene(files: Sequence[Path]) -> Scene:
    header = next(path for path in files if path.suffix == ".json" and (path.parent / path.stem).is_dir())
    facts = msgspec.json.decode(header.read_bytes())
    layer = facts["layer"]
    low, high = facts["window_hu"]
    load = _load_saliency if layer.get("kind") == "map" else _load_mask
    return Scene(
        volume=_load_volume(_beside(header.parent / facts["volume"])),
        shown=load(_beside(header.parent / layer["file"])),
        layer=layer["name"],
        order=layer["order"],
        colours={int(label): colour for label, colour in layer["colours"].items()},
        opacity=layer["opacity"],
        window_hu=(low, high),
    )


def _beside(image: Path) -> list[Path]:
    """An image and the files that belong to it."""
    return [path for path in sorted(image.parent.iterdir()) if path.stem == image.stem]


def _save_tables(tables: FindingsTables, folder: Path, saved: Saved) -> Sequence[Path]:
    tree, rows = folder / "findings.json", folder / "findings.csv"
    tree.write_bytes(msgspec.json.format(msgspec.json.encode(tables.tree), indent=2))
    text = io.StringIO()
    columns = list(dict.fromkeys(column for row in tables.rows for column in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(tables.rows)
    rows.write_text(text.getvalue(), encoding="utf-8")
    return [tree, rows]


def _load_tables(files: Sequence[Path]) -> FindingsTables:
    rows = one_file(files, "table", "findings.csv").read_text(encoding="utf-8")
    tree = read_tree(one_file(files, "tree", "findings.json"))
    return FindingsTables(tree=tree, rows=list(csv.DictReader(io.StringIO(rows))))


def _save_log(log: Log, folder: Path, saved: Saved) -> Sequence[Path]:
    path = folder / "log.txt"
    path.write_text("".join(f"{line}\n" for line in log.lines), encoding="utf-8")
    return [path]


def _load_log(files: Sequence[Path]) -> Log:
    return Log(lines=tuple(one_file(files, "log", ".txt").read_text(encoding="utf-8").splitlines()))


def _has(*suffixes: str) -> Any:
    return lambda files: bool(with_suffix(files, *suffixes))


def _is_scene(files: Sequence[Path]) -> bool:
    return any(path.suffix == ".json" and (path.parent / path.stem).is_dir() for path in files)


for _type, _format in {
    Volume: PortFormat(save=_save_volume, load=_load_volume, recognise=_has(*_IMAGES)),
    Mask: PortFormat(save=_save_mask, load=_load_mask, recognise=_has(*_IMAGES)),
    Saliency: PortFormat(save=_save_saliency, load=_load_saliency, recognise=_has(*_IMAGES, "not-computed.json")),
    Series | VolumeFile: PortFormat(save=_save_source, load=_load_source, recognise=bool),
    DicomObjects: PortFormat(save=_save_objects, load=_load_objects, recognise=_has(".dcm")),
    Scene: PortFormat(save=_save_scene, load=_load_scene, recognise=_is_scene),
    Classification: PortFormat(
        save=save_classification, load=load_classification, recognise=_has("classification.json")
    ),
    RatioFindings: PortFormat(save=save_ratio, load=load_ratio, recognise=_has("volume-ratio.json")),
    FindingsTables: PortFormat(save=_save_tables, load=_load_tables, recognise=_has("findings.json")),
    Log: PortFormat(save=_save_log, load=_load_log, recognise=_has("log.txt")),
}.items():
    register(_type, _format)
