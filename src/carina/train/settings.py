"""Settings of a training: one frozen value, read from a preset or a file, any key of it overridable."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from carina.cases.purpose import Purpose, Targets, Task


class Loss(StrEnum):
    """What is minimised.

    ``dice`` and ``dice-ce-squared`` are the published ones, each example's Dice over both classes (the latter with
    squares below the line); ``dice-ce`` takes the foreground's Dice over the batch and counts hard voxels more.
    ``cross-entropy`` is the classifier's; ``cross-entropy-places`` tells it as well where synthetic disease lies
    (`guide`).
    """

    DICE = "dice"
    DICE_CE = "dice-ce"
    DICE_CE_SQUARED = "dice-ce-squared"
    CROSS_ENTROPY = "cross-entropy"
    CROSS_ENTROPY_PLACES = "cross-entropy-places"


class Optimiser(StrEnum):
    """How weights move."""

    ADAM = "adam"
    ADAMW = "adamw"


class Schedule(StrEnum):
    """How the learning rate goes: as it is, or warm-up over 5 % of the steps and then half a cosine to 1 %."""

    CONSTANT = "constant"
    COSINE = "cosine"


class Arithmetic(StrEnum):
    """Arithmetic of the forward pass; ``f16`` only on a GPU, with loss scaling."""

    F32 = "f32"
    BF16 = "bf16"
    F16 = "f16"


class Device(StrEnum):
    """Where a training computes; ``auto`` is a CUDA GPU where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Patch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Examples of one shape ``(x, y, z)``; each step draws one kind of patch, with a chance of ``share``."""

    shape: tuple[int, int, int]
    batch: int = 2
    share: float = 1.0


class Augment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Chances (0 to 1) and extents of random changes, for ``source = "labels"``.

    ``flip`` is per axis; ``rotate`` turns by up to ``rotate_degrees`` in the axial plane; ``shift`` adds up to
    ``shift_by`` to scaled intensities; ``gamma``, ``noise`` and ``zoom`` are the classifier's.
    """

    flip: float = 0.0
    rotate: float = 0.0
    rotate_degrees: float = 15.0
    rot90: float = 0.0
    shift: float = 0.0
    shift_by: float = 0.1
    gamma: float = 0.0
    gamma_range: tuple[float, float] = (0.5, 4.5)
    noise: float = 0.0
    noise_sd: float = 0.05
    zoom: float = 0.0
    zoom_range: tuple[float, float] = (0.8, 1.2)


class TrainSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that a training depends on, but its data list.

    ``network`` is what ``models.networks.build_network`` takes. ``spacing_mm`` is ``(x, y, z)``, None (``"none"`` in a
    file) keeps the image's own; ``window_hu`` is scaled to [0, 1] and clipped. ``whole_scans`` draws synthetic examples
    as whole scans at ``spacing_mm`` (`whole_scans`, `whole_lesions`), for a first look. ``other_pneumonias`` is the
    share of a classifier's full crops without COVID-19 that show another pneumonia. ``positive`` is the share of
    patches centred on foreground. ``order`` is the classifier's (``default``: window, then crop and resize;
    ``naturecomm``: crop and resize on HU, then window). ``hard_weight`` is how often ``dice-ce`` counts hard voxels of
    synthetic examples (dense lesions, gas that is no lung), ``lesion_weight`` how much the missed share of their
    lesions counts, each as much as the others. Exactly one of ``steps`` and ``epochs`` is above 0; an epoch draws
    ``per_case`` examples for each training case. ``validate_every`` counts what the length is given in,
    ``log_every`` and ``save_every`` count steps. ``scale_rate`` multiplies ``rate`` by the number of processes;
    ``clip`` 0 leaves gradients as they are. ``average`` above 0 keeps averaged weights, which are what is validated and
    published; their batch norms' statistics are taken anew over ``settle`` batches first. ``init`` names a bundle to
    fine-tune from; ``keep_start`` is the share of the weights it starts from in what is validated and published, the
    rest is what was trained: what the start knew and a fine-tuning forgets comes back (Wortsman and others, "Robust
    fine-tuning of zero-shot models", CVPR 2022). ``folds`` above 1 pools the list and validates on part ``fold``,
    patient by patient. ``window`` and ``window_overlap`` are those of validation and of the published bundle.
    ``cache_rate`` is the share of cases that is kept in memory, as MONAI calls it. ``mlflow`` is a tracking URI, empty:
    none.
    """

    task: Task
    name: str
    network: dict[str, Any]
    patches: tuple[Patch, ...]
    window_hu: tuple[float, float]
    source: Targets = Targets.LABELS
    orientation: str = "RAS"
    spacing_mm: tuple[float, float, float] | None = (0.8, 0.8, 5.0)
    crop_to_body: bool = False
    whole_scans: bool = False
    other_pneumonias: float = 0.0
    positive: float = 0.5
    order: str = "default"
    margin_voxels: int = 5
    augment: Augment = Augment()
    loss: Loss = Loss.DICE_CE
    hard_weight: float = 4.0
    lesion_weight: float = 0.0
    optimiser: Optimiser = Optimiser.ADAMW
    rate: float = 2e-3
    scale_rate: bool = False
    weight_decay: float = 1e-5
    schedule: Schedule = Schedule.COSINE
    clip: float = 5.0
    steps: int = 0
    epochs: int = 0
    per_case: int = 1
    validate_every: int = 20
    log_every: int = 10
    save_every: int = 50
    window: tuple[int, int, int] = (224, 224, 32)
    window_overlap: float = 0.25
    average: float = 0.0
    keep_start: float = 0.0
    settle: int = 40
    device: Device = Device.AUTO
    arithmetic: Arithmetic = Arithmetic.F32
    deterministic: bool = False
    seed: int = 1
    threads: int = 0
    workers: int = 1
    cache_mb: int = 4096
    cache_rate: float = 1.0
    leave_out: tuple[str, ...] = ()
    init: str = ""
    folds: int = 0
    fold: int = 0
    tensorboard: bool = True
    mlflow: str = ""

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Sides of a voxel of whole scans, ``(z, y, x)``."""
        x, y, z = self.spacing_mm or (4.0, 4.0, 4.0)
        return z, y, x

    @property
    def purpose(self) -> Purpose:
        """What this training asks of its data list."""
        return Purpose(
            task=self.task,
            source=self.source,
            classes=int(self.network.get("classes", 2)),
            learns_places=self.loss is Loss.CROSS_ENTROPY_PLACES,
            takes_bellies=self.whole_scans,
            leave_out=self.leave_out,
            crop_shape=self.patches[0].shape,
            spacing_mm=self.spacing_mm,
            cache_mb=self.cache_mb,
            cache_rate=self.cache_rate,
        )
