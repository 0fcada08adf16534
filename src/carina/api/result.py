"""A finished run, opened from its folder: volume, masks, findings and a picture, each read when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carina.errors import BadConfig, one_line
from carina.measure.findings import in_class_order
from carina.operators.ports import SaliencyPort, SourcePort
from carina.pipeline.json_text import read_json
from carina.pipeline.manifest import Manifest, OperatorRecord, read_manifest
from carina.pipeline.places import below
from carina.pipeline.ports import load_files, load_folder
from carina.volume.files import read_mask, read_volume
from carina.volume.volume import Mask, ScalarMap, Volume

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    from carina.dicom.series import Source


@dataclass(frozen=True, eq=False)
class Run:
    """What a run left in its folder; in a notebook it shows itself as an overlay picture."""

    folder: Path

    @cached_property
    def manifest(self) -> Manifest:
        """Inputs, bundles, versions, times, each operator's state and warnings."""
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise BadConfig("run.no-manifest", f"{self.folder}: no run of Carina; expected a manifest.json there.")
        return manifest

    @property
    def warnings(self) -> tuple[str, ...]:
        """Every warning of the run, in sentences, each once."""
        said = [*self.manifest.warnings, *(w for one in self.manifest.operators.values() for w in one.warnings)]
        return tuple(dict.fromkeys(said))

    @property
    def is_deidentified(self) -> bool:
        """Whether an operator of the run made a series without its patient, for the others to read."""
        return bool(self._deidentifying())

    def deidentified(self) -> Source:
        """The series without its patient, of which the run's objects are.

        Raises:
            BadConfig: the run's folder holds no such series.
            BadSeries: its files are damaged.
        """
        names = [name for step, path in self._deidentifying()[:1] for name in step.outputs.get(path, [])]
        files = [path for name in names if (path := below(self.folder, name)).is_file()]
        if not files:
            words = "the series without its patient is gone, or the pipeline does not keep it"
            raise BadConfig("run.no-series", f"{self.folder}: {words}; make the run again.")
        found: Source = load_files(SourcePort, files, str(self.folder))
        return found

    def _deidentifying(self) -> list[tuple[OperatorRecord, str]]:
        """Operators that made something in place of the pipeline's input, each with that output."""
        from carina.operators.table import known_operators

        paths = {image: one.replaces_input for image, one in known_operators().images.items() if one.replaces_input}
        return [(one, paths[one.image]) for one in self.manifest.operators.values() if one.image in paths]

    @cached_property
    def volume(self) -> Volume:
        """The CT, HU ``(z, y, x)``."""
        return read_volume(self.image("volume"))

    @cached_property
    def lung(self) -> Mask:
        """The lungs on the volume's grid."""
        return self._mask("lung")

    @cached_property
    def lesion(self) -> Mask:
        """The lesions on the volume's grid."""
        return self._mask("lesion")

    @cached_property
    def saliency(self) -> ScalarMap:
        """By how much the probability of COVID-19 falls when a place is hidden, on the volume's grid; 0 to 1.

        Raises:
            BadConfig: the run stored none (no lung, switched off, or a pipeline without that output).
        """
        self.image("saliency")
        found: ScalarMap = load_folder(SaliencyPort, self.folder / "saliency").map
        return found

    @property
    def regions(self) -> list[dict[str, Any]]:
        """What was measured, region by region: volumes in ml, ratio in percent, HU; first both lungs together.

        Empty where the pipeline measured no ratio.
        """
        return list(self.stored("volume-ratio.json").get("regions", []))

    @cached_property
    def findings(self) -> pd.DataFrame:
        """The regions as a table, a row each."""
        import pandas as pd

        return pd.DataFrame(self.regions)

    @property
    def probabilities(self) -> dict[str, float]:
        """Class probabilities by name, COVID-19 first; empty where the scan was not classified."""
        return in_class_order(self.stored("classification.json").get("probabilities", {}))

    @property
    def dicom(self) -> tuple[Path, ...]:
        """The DICOM objects of the run, those of a series of slices too."""
        return tuple(sorted((self.folder / "dicom").rglob("*.dcm")))

    def overlay(self, index: int | None = None, *, view: str = "axial") -> Image:
        """A slice with lungs outlined and lesions filled; without an index, the one that shows most.

        ``view`` is ``axial``, ``coronal`` or ``sagittal``.

        Raises:
            BadConfig: the view is not known or has no slice of that index.
        """
        from carina.report.overlay import overlay_image

        return overlay_image(self.volume, self.lung, self.lesion, index, view)

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        picture = BytesIO()
        self.overlay().save(picture, "PNG")
        return picture.getvalue()

    def stored(self, name: str) -> dict[str, Any]:
        """What the run's operators stored in a JSON file of this name (``volume-ratio.json``); nothing where none did.

        Raises:
            BadConfig: ``run.damaged``, the file is gone or no JSON.
        """
        outputs = [files for one in self.manifest.operators.values() for files in one.outputs.values()]
        names = [file for files in outputs for file in files if Path(file).name == name]
        if not names:
            return {}
        path = below(self.folder, names[0])
        try:
            return read_json(path.read_bytes(), dict[str, Any])
        except (OSError, ValueError) as error:
            again = "the same command makes again what is damaged"
            raise BadConfig("run.damaged", f"{path}: can't be read ({one_line(str(error))}); {again}.") from error

    def image(self, place: str) -> Path:
        """The MetaImage of ``volume``, ``lung``, ``lesion`` or ``saliency``.

        Raises:
            BadConfig: ``run.no-image``, the run wrote none.
        """
        images = sorted((self.folder / place).glob("*.mhd"))
        if not images:
            raise BadConfig("run.no-image", f"{self.folder / place}: no MetaImage; this run did not write one.")
        return images[0]

    def _mask(self, place: str) -> Mask:
        return read_mask(self.image(place))


def open_run(folder: Path | str) -> Run:
    """Open an earlier run.

    Raises:
        BadConfig: the folder holds no manifest.
    """
    run = Run(Path(folder))
    _ = run.manifest
    return run
