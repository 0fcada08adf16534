"""Opens a data list as a source of examples: of the labels that it has, or of disease synthesised in its lungs."""

from __future__ import annotations

from carina.cases.case import Case
from carina.cases.datalist import DataList, without
from carina.cases.purpose import Targets, Task
from carina.cases.reading import is_unusable, read_cases
from carina.errors import BadConfig
from carina.train.examples import ExampleSource
from carina.train.labelled import LabelledSource
from carina.train.settings import TrainSettings
from carina.train.synthetic import SyntheticSource
from carina.train.whole_scans import coarse_case


def open_source(data: DataList, settings: TrainSettings) -> ExampleSource:
    """Prepare the list's cases, those named in ``leave_out`` apart, and open them as a source of examples.

    Raises:
        BadSeries: a file can't be read.
        BadConfig: nothing is left to draw from.
    """
    seen = without(data, settings.leave_out)
    if not seen.training:
        raise BadConfig("datalist.empty", f"{data.file}: no training case is left; look at training and leave_out.")
    if settings.source is Targets.LABELS:
        return LabelledSource(seen, settings)
    return _open_synthetic(seen, settings)


def _open_synthetic(data: DataList, settings: TrainSettings) -> ExampleSource:
    parts = []
    for listed in (data.training, data.validation):
        usable = [one for one in listed if not is_unusable(one, settings.task)]
        parts.append(_drawn_into(read_cases(data, usable, settings.purpose), settings))
    if not parts[0]:
        raise BadConfig(
            "datalist.no-lungs",
            f"{data.file}: no training case has lungs free of disease (label 0 or none), and disease is synthesised "
            "in such lungs only.",
        )
    return SyntheticSource(settings=settings, training=parts[0], held=parts[1] or parts[0])


def _drawn_into(cases: list[Case], settings: TrainSettings) -> list[Case]:
    """The cases that examples are drawn from: a classifier's without disease, whole scans at their own resolution."""
    if settings.task is Task.COVID:
        cases = [case for case in cases if case.lesion is None]
    if settings.whole_scans:
        cases = [coarse_case(case, settings.voxel_mm) for case in cases]
    return cases
