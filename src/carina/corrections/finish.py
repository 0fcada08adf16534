"""A correction that is finished: the mask, the Segmentation object, the ratio measured again, beside the run's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from filelock import FileLock, Timeout
from pydicom import dcmread

from carina import RESEARCH_ONLY, __version__
from carina.api.result import Run
from carina.corrections.hands import by_whom
from carina.corrections.journal import sync_folder
from carina.corrections.masks import CORRECTIONS, MaskName, network_mask
from carina.corrections.painting import labels_sha256
from carina.dicom.codes import Structure, structure_of
from carina.dicom.objects import Producer, save_object
from carina.dicom.seg_reader import Correction, Earlier, earlier_of, reader_segmentation
from carina.dicom.series import Series
from carina.errors import BadConfig, BadSeries, unwritable, with_words
from carina.measure.agreement import dice
from carina.measure.lungs import split_lungs
from carina.measure.ratio import lesion_ratio
from carina.operators.ports import MaskPort, RatioPort
from carina.pipeline.json_text import as_pretty_json, read_json
from carina.pipeline.places import write_whole
from carina.pipeline.ports import load_folder, save_value
from carina.volume.arrays import Labels
from carina.volume.volume import Mask

if TYPE_CHECKING:
    from carina.dicom.series import Source

FACTS = "correction.json"
SEG_NAMES = {MaskName.LUNG: "lung-seg", MaskName.LESION: "lesion-seg"}
"""Names of the Segmentation objects, a run's and a correction's."""

BY_READER = "This mask was corrected by a reader."

_LUNG_LABELS = ["left lung", "right lung"]


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished correction says of itself, as it is stored; volumes in ml, ratios in percent, ``at`` in UTC.

    ``reader`` finished it, ``painters`` are those whose strokes it holds, ``revision`` counts the strokes; ``seg_uid``
    is empty where the source is no DICOM series. ``warnings`` are those of measuring the ratio: what was left out of
    it, above all.
    """

    layer: MaskName
    number: int
    reader: str
    painters: tuple[str, ...] = ()
    at: datetime
    revision: int
    sha256: str
    network_sha256: str
    dice: float
    network_ml: float
    reader_ml: float
    network_ratio_percent: float | None
    reader_ratio_percent: float | None
    seg_uid: str = ""
    replaces_uid: str = ""
    warnings: tuple[str, ...] = ()
    carina: str = __version__
    notice: str = RESEARCH_ONLY

    @property
    def by(self) -> str:
        """Whose it is, in words."""
        return by_whom(self.reader, self.painters, self.reader)


class Busy(BadConfig):
    """Another correction of the run is being finished."""


class Unchanged(BadConfig):
    """There is nothing to finish: the mask is the one that was finished last, or the network's own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Draft:
    """A corrected mask, not yet finished: ``labels`` are ``(z, y, x)``, ``revision`` counts the strokes in them.

    ``reader`` finishes it, ``painters`` are those whose strokes are in it.
    """

    layer: MaskName
    labels: Labels
    revision: int
    reader: str
    painters: tuple[str, ...] = ()
    at: datetime


def finished_folder(run: Path, layer: MaskName, number: int) -> Path:
    """Where a finished correction is."""
    return run / CORRECTIONS / f"{layer}-{number}"


def finished_of(run: Path, layer: MaskName) -> list[Finished]:
    """The finished corrections of a mask, the latest last.

    Raises:
        BadConfig: ``corrections.damaged``, what one says of itself can't be read.
    """
    found = []
    for path in (run / CORRECTIONS).glob(f"{layer}-*/{FACTS}"):
        try:
            found.append(read_json(path.read_bytes(), Finished))
        except (OSError, ValueError) as error:
            words = f"{path}: can't be read ({type(error).__name__}): bring it back from a backup."
            raise with_words(BadConfig("corrections.damaged", words), error) from error
    return sorted(found, key=lambda one: one.number)


def reader_mask(run: Run, layer: MaskName) -> Mask:
    """The mask as the last reader finished it, else as the network left it.

    Raises:
        BadConfig: ``run.no-image``, the run made none.
    """
    done = finished_of(run.folder, layer)
    if not done:
        return network_mask(run, layer)
    found: Mask = load_folder(MaskPort, finished_folder(run.folder, layer, done[-1].number) / "mask")
    return found


def finish(run: Run, draft: Draft, source: Source | None) -> Finished:
    """Write a correction into a folder of its own, which appears whole.

    Of a run of a DICOM series ``source`` is that series; without it, or for a volume file, no object is made.

    Raises:
        BadConfig: the folder can't be written.
        Busy: ``corrections.busy``, another correction of this run is being finished.
        BadSeries: ``corrections.source``, the source is not the one of the run.
        ModelFailed: the object that was made is not the mask.
        Unchanged: ``corrections.unchanged``, the mask is the one that was finished last.
    """
    with _alone(run.folder):
        return _finish(run, draft, source)


def _finish(run: Run, draft: Draft, source: Source | None) -> Finished:
    layer, earlier = draft.layer, finished_of(run.folder, draft.layer)
    if earlier and earlier[-1].sha256 == labels_sha256(draft.labels):
        raise unchanged(layer, earlier)
    network = network_mask(run, layer)
    mask = replace(network, labels=draft.labels, warnings=(BY_READER, *network.warnings))
    number = earlier[-1].number + 1 if earlier else 1
    with _appearing_folder(finished_folder(run.folder, layer, number)) as partial:
        save_value(MaskPort, mask, partial / "mask")
        before, after, warnings = _ratios(run, layer, mask, partial / "ratio")
        seg_uid, replaced_uid = _object(run, draft, mask, network, source, partial / "dicom")
        finished = Finished(
            layer=layer,
            number=number,
            reader=draft.reader,
            painters=draft.painters,
            at=draft.at,
            revision=draft.revision,
            sha256=labels_sha256(mask.labels),
            network_sha256=labels_sha256(network.labels),
            dice=dice(network.labels, mask.labels),
            network_ml=network.volume_ml(),
            reader_ml=mask.volume_ml(),
            network_ratio_percent=before,
            reader_ratio_percent=after,
            seg_uid=seg_uid,
            replaces_uid=replaced_uid,
            warnings=warnings,
        )
        write_whole(partial / FACTS, as_pretty_json(finished))
    return finished


def unchanged(layer: MaskName, done: Sequence[Finished]) -> Unchanged:
    """The error of who would finish a mask that is as it was finished last, or else as the network left it."""
    last = f"as correction {done[-1].number} of {done[-1].by} left it" if done else "as the network left it"
    said = f"the {layer} mask is {last}, so there is nothing to finish: paint first, or accept or reject it."
    return Unchanged("corrections.unchanged", said)


def _ratios(run: Run, layer: MaskName, mask: Mask, folder: Path) -> tuple[float | None, float | None, tuple[str, ...]]:
    """The run's ratio, and the one that is measured now, which is stored, with what its measuring warned of.

    The other mask is the reader's where known.
    """
    before = run.stored("volume-ratio.json").get("regions", [])
    network = before[0]["ratio_percent"] if before else None
    try:
        other = reader_mask(run, MaskName.LUNG if layer is MaskName.LESION else MaskName.LESION)
    except BadConfig as error:
        if error.code != "run.no-image":
            raise
        return network, None, ()
    lesion, lung = (mask, other) if layer is MaskName.LESION else (other, mask)
    findings = lesion_ratio(lesion, lung, run.volume)
    save_value(RatioPort, findings, folder)
    told = {*mask.warnings, *other.warnings}
    return network, findings.regions[0].ratio_percent, tuple(one for one in findings.warnings if one not in told)


def _object(run: Run, draft: Draft, mask: Mask, network: Mask, source: Source | None, folder: Path) -> tuple[str, str]:
    """Writes the object; gives its UID and that of the one it replaces."""
    if not isinstance(source, Series):
        return "", ""
    _check_source(run, source)
    replaced = _earlier(run.folder, draft.layer)
    correction = Correction(
        reader=draft.reader,
        painters=draft.painters,
        earlier=replaced,
        is_from_network=bool(((mask.labels > 0) & (network.labels > 0)).any()),
    )
    shown, texts = _segments(mask)
    dataset = reader_segmentation(shown, source, _producer(mask, draft.at), correction, texts)
    save_object(dataset, folder / f"{SEG_NAMES[draft.layer]}.dcm")
    return str(dataset.SOPInstanceUID), replaced.sop_instance_uid if replaced else ""


def _check_source(run: Run, series: Series) -> None:
    known = {} if run.is_deidentified else run.manifest.inputs  # then it is the run's own
    found = {"series_uid": series.uid, "instances": len(series.instances)}
    for name, seen in found.items():
        if name in known and known[name] != seen:
            raise BadSeries(
                "corrections.source",
                f"the source has {name.replace('_', ' ')} {seen}, the run was made from {known[name]}: give the "
                "folder from which the run was made.",
            )


def _segments(mask: Mask) -> tuple[Mask, list[str] | None]:
    """As ``dicom-seg-writer``: a lung mask of one label becomes left and right."""
    is_lung = len(mask.names) == 1 and structure_of(next(iter(mask.names.values()))) is Structure.LUNGS
    return (split_lungs(mask), _LUNG_LABELS) if is_lung else (mask, None)


def _producer(mask: Mask, at: datetime) -> Producer:
    name, version, sha256 = ([*mask.made_by.split(" "), "", "", ""])[:3]
    return Producer(
        model_creator="Carina",
        model_name=name or "no model",
        model_version=version or "0",
        bundle_sha256=sha256,
        software_version=__version__,
        when=at.astimezone(),
    )


def _earlier(run: Path, layer: MaskName) -> Earlier | None:
    """The object that a correction replaces: the last correction's, else the run's own."""
    name = f"{SEG_NAMES[layer]}.dcm"
    done = [finished_folder(run, layer, one.number) / "dicom" for one in finished_of(run, layer)]
    for folder in (*reversed(done), run / "dicom"):
        if (folder / name).is_file():
            return earlier_of(dcmread(folder / name, stop_before_pixels=True))
    return None


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Keep every other process and thread from finishing a correction of the same run."""
    lock = FileLock(run / CORRECTIONS / ".finish.lock")
    try:
        (run / CORRECTIONS).mkdir(exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        words = "another correction of this run is being finished: wait, then look again."
        raise Busy("corrections.busy", words) from error
    except OSError as error:
        raise unwritable(error, run) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _appearing_folder(place: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name once everything in it is on the disk; on an error it is gone again."""
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        (partial / "dicom").mkdir(parents=True)
        yield partial
        for path in partial.rglob("*"):
            if path.is_dir():
                sync_folder(path)
            else:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        sync_folder(partial)
        partial.replace(place)
        sync_folder(place.parent)
    except OSError as error:
        raise unwritable(error, place) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
