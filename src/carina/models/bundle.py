"""The bundle format: a folder in the MONAI bundle layout that says everything inference needs.

``configs/metadata.json`` holds MONAI's metaformat fields and one object of ours, ``carina``; it is parsed once into
the frozen ``Bundle``. Adding a bundle is adding a folder. docs/bundles.md describes every key.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from carina.errors import BadConfig
from carina.models.classifying import Familiar, LittleDisease, Saliency
from carina.models.looking import LesionLook, LungLook, check_clear
from carina.models.lung_rules import Border, Components
from carina.models.monai_config import inference_config
from carina.models.validation import Validation
from carina.models.weights_digest import check_digest, digests, weights_sha256, write_digest
from carina.pipeline.json_text import read_json

SHIPPED = Path(__file__).parent / "bundles"
"""The bundles that ship with Carina."""

METADATA = Path("configs/metadata.json")
WEIGHTS = Path("models/model.onnx")

_DIRECTIONS = ({"R", "L"}, {"A", "P"}, {"S", "I"})


class Blending(StrEnum):
    """How overlapping windows are averaged: evenly, or with a Gaussian that trusts the middle of a window."""

    CONSTANT = "constant"
    GAUSSIAN = "gaussian"


class NetworkOutput(StrEnum):
    """What the network gives."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"


class Restore(StrEnum):
    """How a result gets back to the input grid: the foreground probability, or the finished labels."""

    LINEAR = "linear"
    NEAREST = "nearest"


class Order(StrEnum):
    """What a classifier's input goes through first: the HU window (``default``) or crop and resize (``naturecomm``)."""

    DEFAULT = "default"
    NATURECOMM = "naturecomm"


class Windows(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sliding window: ``patch`` in network voxels ``(x, y, z)``, ``overlap`` as a share of the patch, 0 to 0.9."""

    patch: tuple[int, int, int]
    overlap: float
    blending: Blending = Blending.CONSTANT

    def __post_init__(self) -> None:
        if min(self.patch) < 1:
            raise ValueError(f"patch {self.patch} must have three sides of at least 1 voxel")
        if not 0 <= self.overlap <= 0.9:
            raise ValueError(f"overlap {self.overlap} must lie between 0 and 0.9")


class Common(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="task"):
    """What every network needs. Axis order is the network's, ``(x, y, z)``.

    ``orientation`` says where the index of each network axis grows to (``RAS``: right, anterior, superior).
    ``window_hu`` is mapped to 0 to 1 and clipped. ``labels`` names every class but the background by its number.
    ``network`` is the specification that ``models.networks.build_network`` takes, for training and parity checks.
    ``served_as`` is the model's name on a Triton server, the bundle's own where empty. ``validation`` is what reports
    say a result is worth.
    """

    orientation: str
    window_hu: tuple[float, float]
    labels: dict[int, str]
    output: NetworkOutput = NetworkOutput.LOGITS
    network: dict[str, Any] = {}
    served_as: str = ""
    validation: Validation | None = None

    @property
    def task(self) -> str:
        """``lung``, ``lesion`` or ``covid``."""
        return str(self.__struct_config__.tag)

    def __post_init__(self) -> None:
        letters = self.orientation
        if len(letters) != 3 or any(a not in pair for a, pair in zip(letters, _DIRECTIONS, strict=True)):
            raise ValueError(f"orientation {letters!r} must be R or L, then A or P, then S or I")
        if not self.window_hu[0] < self.window_hu[1]:
            raise ValueError(f"window_hu {self.window_hu} must grow")


class Segmentation(Common, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a segmentation network is fed and read.

    ``spacing_mm`` is the network grid's, ``(x, y, z)``. ``original`` are the windows of the publication; ``fast`` those
    of our plan over the lungs' box: with the patch of ``original``, as few of its windows as cover the box and
    overlap by ``overlap``; with another patch, windows of its own; None: all of ``original`` that reach the box.
    ``reach`` is how far around a voxel the network looks for its answer there, ``(x, y, z)``, nothing else of the
    window having a say: then the fast plan takes as few windows as overlap by that much, and the mask doesn't depend
    on how they lie. None: the answer depends on the window (group norm).
    ``divisor``: each side of a window must be a multiple of it, or of its own where three are given. ``threshold`` is
    compared with the foreground's probability. ``crop_to_body``: the original plan leaves out what lies outside the
    body's box.
    """

    spacing_mm: tuple[float, float, float]
    original: Windows
    fast: Windows | None = None
    reach: tuple[int, int, int] | None = None
    divisor: int | tuple[int, int, int] = 1
    threshold: float = 0.5
    restore: Restore = Restore.LINEAR
    components: Components | None = None
    crop_to_body: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.spacing_mm) <= 0:
            raise ValueError(f"spacing_mm {self.spacing_mm} must be positive")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold {self.threshold} must lie between 0 and 1")
        for windows in (self.original, self.fast or self.original):
            self._check_sides(windows.patch)
        self._check_reach()
        if min(self.labels, default=0) < 1 or max(self.labels) > 255:
            raise ValueError(f"labels {sorted(self.labels)} must be numbers from 1 to 255; 0 is the background")
        if len(self.labels) > 1 and self.restore is Restore.LINEAR:
            raise ValueError("restore must be nearest where there is more than one label")

    def _check_reach(self) -> None:
        if self.reach is None:
            return
        if min(self.reach) < 0:
            raise ValueError(f"reach {self.reach} must be three numbers of voxels, 0 or more")
        if self.fast:
            raise ValueError("reach and fast are two plans; give one of them, the other null")
        if self.network.get("kind") == "segresnet" and self.network.get("norm", "group") == "group":
            raise ValueError("reach must be null for a network with group norm, whose answers depend on the window")

    def _check_one_label(self, **keys: object) -> None:
        """What works on one mask is of no use to several."""
        given = [key for key, value in keys.items() if value]
        if given and len(self.labels) > 1:
            raise ValueError(f"{given[0]} must be null where there is more than one label; labels are {self.labels}")

    def _check_sides(self, patch: tuple[int, int, int]) -> None:
        if any(side % divisor for side, divisor in zip(patch, self.divisors, strict=True)):
            raise ValueError(f"patch {patch} must be a multiple of divisor {self.divisor} on each side")

    @property
    def divisors(self) -> tuple[int, int, int]:
        """What the sides of a window are multiples of, along the network's axes ``(x, y, z)``."""
        return self.divisor if isinstance(self.divisor, tuple) else (self.divisor, self.divisor, self.divisor)


class Lung(Segmentation, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="lung"):
    """A network that finds the lungs. ``border`` moves their border by HU; None leaves the network's.

    ``first_look`` names another network that sees the whole scan first and decides what may be lung; None: none.
    """

    border: Border | None = None
    first_look: LungLook | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_one_label(border=self.border, first_look=self.first_look)


class Lesion(Segmentation, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="lesion"):
    """A network that finds lesions in the lungs.

    ``first_look`` names another network that sees the whole scan first, and decides what it is sure of; None: none.
    ``clear_hu`` is where the clearest lung lies in the deep breaths that the networks know: a chest that holds less air
    is shown to them as if it held as much (`infer.breath`); None: as it is.
    """

    first_look: LesionLook | None = None
    clear_hu: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_one_label(first_look=self.first_look)
        check_clear(self.clear_hu)


class Covid(Common, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="covid"):
    """A network that classifies the scan from a crop around the lungs.

    ``margin_voxels`` of the input grid are added around the lung mask's box on every side; the crop is then resized to
    ``size``, network voxels ``(x, y, z)``. ``labels`` names every class, from 0. Scores (or the logarithms of
    probabilities) are divided by ``temperature``, then ``shifts`` are added to those of the labels in it; that
    calibrates them. ``familiar`` None classifies every chest, ``little_disease`` None whatever is marked in it.
    """

    size: tuple[int, int, int]
    margin_voxels: int = 5
    order: Order = Order.DEFAULT
    saliency: Saliency = Saliency()
    temperature: float = 1.0
    shifts: dict[int, float] = {}
    familiar: Familiar | None = None
    little_disease: LittleDisease | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if sorted(self.labels) != list(range(len(self.labels))) or len(self.labels) < 2:
            raise ValueError(f"labels {sorted(self.labels)} must be 0, 1, ... and at least two")
        if min(self.size) < 1 or self.margin_voxels < 0:
            raise ValueError("size must be positive, margin_voxels 0 or more")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature {self.temperature} must be a positive number")
        if not set(self.shifts) <= set(self.labels):
            raise ValueError(f"shifts {sorted(self.shifts)} must be of labels {sorted(self.labels)}")
        if self.saliency.label not in self.labels:
            raise ValueError(f"saliency label {self.saliency.label} must be one of {sorted(self.labels)}")


Spec = Lung | Lesion | Covid
"""The ``carina`` object of a bundle, by its task."""


class _Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of MONAI's metaformat that we read; others may be there."""

    version: str
    description: str
    network_data_format: dict[str, Any]
    carina: Spec
    name: str = ""
    intended_use: str = ""
    data_source: str = ""
    authors: str = ""
    copyright: str = ""
    eval_metrics: dict[str, Any] = {}


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A network with everything that inference needs.

    ``name`` is the folder's name; ``title`` a human one. ``sha256`` is taken over metadata and weights.
    """

    folder: Path
    name: str
    title: str
    version: str
    description: str
    intended_use: str
    eval_metrics: Mapping[str, Any]
    sha256: str
    carina: Spec

    @property
    def made_by(self) -> str:
        """What results say they were made by: ``name version sha256-prefix``."""
        return f"{self.name} {self.version} {self.sha256[:12]}"

    @property
    def onnx(self) -> Path:
        """The weights."""
        return self.folder / WEIGHTS

    @property
    def card(self) -> Path:
        """The model card."""
        return self.folder / "docs" / "README.md"

    @property
    def served_as(self) -> str:
        """The model's name on a Triton server."""
        return self.carina.served_as or self.name


def load_bundle(folder: Path) -> Bundle:
    """Read and check the bundle in ``folder``.

    Raises:
        BadConfig: a file is missing, or a key is missing, unknown or wrong; the message names file and key. Or the
            weights are not what the digest beside them says.
    """
    folder = folder.resolve()
    file = folder / METADATA
    try:
        text = file.read_bytes()
        sha256, of_weights = digests(text, folder / WEIGHTS)
    except OSError as error:
        raise BadConfig(
            "bundle.unreadable",
            f"{error.filename}: can't be read ({error.strerror}). A bundle has {METADATA} and {WEIGHTS}.",
        ) from error
    metadata = parse_metadata(file, text)
    check_digest(folder / WEIGHTS, of_weights)
    return Bundle(
        folder=folder,
        name=folder.name,
        title=metadata.name or folder.name,
        version=metadata.version,
        description=metadata.description,
        intended_use=metadata.intended_use,
        eval_metrics=metadata.eval_metrics,
        sha256=sha256,
        carina=metadata.carina,
    )


def find_bundle(name: str, folders: Iterable[Path | str] = ()) -> Bundle:
    """The bundle called ``name``: from ``folders`` in their order, else from those that ship with Carina.

    No folder of the name is passed over, whatever it lacks and wherever a link of that name leads, and none of
    ``folders`` that isn't there: another's weights would stand in for its own, and nobody would see it.

    Raises:
        BadConfig: there is none of this name (the message lists the known ones), or it is wrong.
    """
    for place in _places(folders):
        if not place.is_dir():
            how = f"{name!r} may be in it: make or mount it, or take it out of models.folders"
            raise BadConfig("bundle.folder", f"{place}: is no folder that is there, and {how}.")
        if name and Path(name).name == name != ".." and (place / name).is_dir():
            return load_bundle(place / name)
    known = ", ".join(known_bundles(folders)) or "none"
    raise BadConfig("bundle.unknown", f"No bundle is called {name!r}; known are: {known}.")


def known_bundles(folders: Iterable[Path | str] = ()) -> list[str]:
    """The names that ``find_bundle`` takes, sorted."""
    return sorted({one.name for place in _places(folders) for one in place.glob("*") if _is_meant(one)})


def _is_meant(folder: Path) -> bool:
    """Whether a folder is a bundle, or what is left of one."""
    return any((folder / part).is_file() for part in (METADATA, WEIGHTS))


def write_bundle(
    folder: Path, metadata: Mapping[str, Any], onnx: Path, *, card: str, license_text: str | None = None
) -> Bundle:
    """Write a bundle: metadata (MONAI's fields and ``carina``), weights, their digest, card, licence; read it back.

    ``license_text`` None takes Apache-2.0's short notice. ``configs/inference.json`` is derived from the metadata.

    Raises:
        BadConfig: that describes no bundle, or ``onnx`` is not what the digest beside it says; nothing usable is left.
    """
    text = msgspec.json.format(msgspec.json.encode(metadata), indent=2)
    parse_metadata(folder / METADATA, text)
    sha256 = weights_sha256(onnx)
    check_digest(onnx, sha256)
    for part in ("configs", "models", "docs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / METADATA).write_bytes(text + b"\n")
    (folder / "configs" / "inference.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(inference_config(metadata)), indent=2) + b"\n"
    )
    if onnx.resolve() != (folder / WEIGHTS).resolve():
        shutil.copyfile(onnx, folder / WEIGHTS)
    write_digest(folder / WEIGHTS, sha256)
    (folder / "docs" / "README.md").write_text(card, encoding="utf-8")
    (folder / "LICENSE").write_text(license_text or _APACHE, encoding="utf-8")
    return load_bundle(folder)


_APACHE = """Licensed under the Apache License, Version 2.0; a copy is at http://www.apache.org/licenses/LICENSE-2.0.
Distributed on an "AS IS" basis, without warranties or conditions of any kind.
For research use only. Not for diagnosis.
"""


def _places(folders: Iterable[Path | str]) -> list[Path]:
    return [*(Path(folder) for folder in folders), SHIPPED]


def parse_metadata(file: Path, text: bytes) -> _Metadata:
    """The metadata of a bundle, of ``file``; BadConfig where ``text`` describes none."""
    try:
        return read_json(text, _Metadata)
    except msgspec.ValidationError as error:
        raise BadConfig("bundle.invalid", f"{file}: {error}. docs/bundles.md lists the keys.") from error
    except ValueError as error:
        raise BadConfig("bundle.syntax", f"{file}: no valid JSON: {error}.") from error
