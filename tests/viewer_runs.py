"""Runs whose masks are the truth of a phantom, as folders that the viewer opens, and a server of one of them."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import uvicorn
from starlette.applications import Starlette

from carina.api.cohort_table import COHORT_TABLE, CohortTable, Fate, Item, findings_of
from carina.dicom.find import choose_source, find_series
from carina.dicom.read import read_source
from carina.measure.findings import Classification
from carina.measure.ratio import lesion_ratio
from carina.operators.findings import findings
from carina.operators.ports import MaskPort, SaliencyPort
from carina.operators.stored_findings import StoredClassification, StoredRatio
from carina.pipeline.digests import Digests
from carina.pipeline.manifest import DefinitionRecord, Manifest, OperatorRecord, State, write_manifest
from carina.pipeline.ports import save_value
from carina.service.viewer.server import loopback_listener, run_app
from carina.synth.phantom import Phantom, PhantomLesion, chest_phantom
from carina.testing.dicom import write_ct_series
from carina.volume import Grid, Mask, ScalarMap, Volume
from carina.volume.files import write_volume
from carina.volume.header import triple
from carina.volume.resample import reorient, resample

LEFT_LOW = PhantomLesion(centre_mm=(80.0, 30.0, -55.0), radii_mm=(20.0, 20.0, 20.0))
LEFT_HIGH = PhantomLesion(centre_mm=(70.0, 30.0, 50.0), radii_mm=(11.0, 11.0, 11.0))
"""Both lesions lie in the patient's left lung: what shows them on the other side mirrors."""

POSES = {"plain": "LPS", "feet first": "RPI", "prone": "RAS", "coronal": "LIP"}
"""Ways in which a chest is stored, by where x, y and z grow to."""

OBLIQUE_DEGREES = 14.0

CLASSIFICATION = Classification(uid="1.2.3", probabilities={"non-COVID-19": 0.996, "COVID-19": 0.004})


def posed(pose: str, shape: tuple[int, int, int] = (60, 96, 96)) -> Phantom:
    """A chest with both lesions on its left, stored in one of the poses; ``oblique`` turns it about z and x."""
    phantom = chest_phantom(shape=shape, lesions=[LEFT_LOW, LEFT_HIGH], seed=3)
    codes = POSES.get(pose, "LPS")
    arrays = phantom.volume.hu, phantom.lung.labels, phantom.lesion.labels > 0
    hu, lung, lesion = (np.ascontiguousarray(reorient(array, phantom.volume.grid, codes)[0]) for array in arrays)
    grid = reorient(phantom.volume.hu, phantom.volume.grid, codes)[1]
    grid = turned(grid) if pose == "oblique" else grid
    return replace(
        phantom,
        volume=Volume(hu=hu, grid=grid, uid="1.2.3"),
        lung=replace(phantom.lung, labels=lung, grid=grid, uid="1.2.3"),
        lesion=replace(phantom.lesion, labels=lesion.astype(np.uint8), grid=grid, uid="1.2.3"),
    )


def turned(grid: Grid) -> Grid:
    """The grid about its middle, turned about z and then about x."""
    cos, sin = np.cos(np.deg2rad(OBLIQUE_DEGREES)), np.sin(np.deg2rad(OBLIQUE_DEGREES))
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    middle = grid.points_mm((np.array(grid.shape) - 1) / 2)
    z, y, x = (triple(turn @ np.array(axis)) for axis in grid.axes)
    return replace(grid, axes=(z, y, x), origin_mm=triple(middle + turn @ (np.array(grid.origin_mm) - middle)))


def through_dicom(phantom: Phantom, folder: Path) -> Phantom:
    """The phantom as Carina reads it from a DICOM series, its masks on the grid that was read."""
    write_ct_series(phantom.volume, folder)
    volume = read_source(choose_source(find_series(folder).found, uid=phantom.volume.uid))

    def moved(mask: Mask) -> Mask:
        return replace(mask, labels=resample(mask.labels, mask.grid, volume.grid, 0), grid=volume.grid)

    return replace(phantom, volume=volume, lung=moved(phantom.lung), lesion=moved(phantom.lesion))


def write_run(phantom: Phantom, folder: Path, classification: Classification = CLASSIFICATION) -> Path:
    """The folder of a run that found just what is there, with a saliency: on the left a fall, on the right a rise."""
    uid = "1.2.3"
    if classification.saliency is not None:
        places = phantom.volume.grid.points_mm(np.argwhere(np.ones(phantom.volume.grid.shape, np.bool_)))[:, 0]
        values = (0.2 * (places > 20) - 0.1 * (places < -20)).astype(np.float32).reshape(phantom.volume.grid.shape)
        found = ScalarMap(values=values, grid=phantom.volume.grid, quantity="fall", unit="", uid=uid)
        (folder / "saliency").mkdir(parents=True, exist_ok=True)
        SaliencyPort(map=found).save(folder / "saliency", lambda _: ())
    write_volume(phantom.volume, folder / "volume" / f"{uid}.mhd")
    save_value(MaskPort, phantom.lung, folder / "lung")
    save_value(MaskPort, phantom.lesion, folder / "lesion")
    ratio = lesion_ratio(phantom.lesion, phantom.lung, phantom.volume)
    steps = {"volume-ratio": StoredRatio.save, "classification": StoredClassification.save}
    for step in steps:
        (folder / "steps" / step).mkdir(parents=True, exist_ok=True)
    written = {
        "volume-ratio": StoredRatio.save(ratio, folder / "steps" / "volume-ratio", lambda _: ()),
        "classification": StoredClassification.save(classification, folder / "steps" / "classification", lambda _: ()),
        "findings": findings(ratio, classification).save(folder, lambda _: ()),
    }
    digests = Digests()
    manifest = Manifest(
        state=State.DONE,
        fingerprint="0" * 64,
        started="2026-01-01T12:00:00+00:00",
        ended="2026-01-01T12:00:20+00:00",
        seconds=20.0,
        definition=DefinitionRecord(name="a-test", file="a-test.yaml", sha256="1" * 64),
        inputs={"kind": "DICOM series", "series_uid": uid, "sha256": "2" * 64},
        bundles={"lung": {"name": "lung-net", "version": "1.0.0", "sha256": "3" * 64}},
        operators={
            step: OperatorRecord(
                image=f"carina/{step}",
                state=State.DONE,
                started="2026-01-01T12:00:00+00:00",
                seconds=1.5,
                outputs={"/output": [path.relative_to(folder).as_posix() for path in files]},
                files={path.relative_to(folder).as_posix(): digests.of(path) for path in files},
                warnings=["Two slices were missing."] if step == "volume-ratio" else [],
            )
            for step, files in written.items()
        },
    )
    write_manifest(manifest, folder)
    return folder


def write_cohort(folder: Path, count: int) -> list[Item]:
    """A cohort of one run in many folders; the ratio of its last is far from the others, and one series failed."""
    first = write_run(posed("plain"), folder / "case-0")
    found = findings_of(first)
    items = []
    for number in range(count):
        name = f"case-{number}"
        if number:
            shutil.copytree(first, folder / name)
        ratio = 60.0 if number == count - 1 else 1.0 + number / 10
        own = {**found, "lungs ratio_percent": ratio}
        items.append(Item(name=name, place=name, fate=Fate.DONE, folder=folder / name, findings=own))
    items.append(Item(name="<b>head</b>", place="head", fate=Fate.FAILED, code="series.none", message="No chest."))
    CohortTable(folder / COHORT_TABLE, items).write()
    return items


@contextmanager
def served(run: Path | Starlette) -> Iterator[str]:
    """The viewer of a run, or an application, on a port of its own; gives its address without a slash at the end."""
    listener = loopback_listener(0)
    app = run_app(run) if isinstance(run, Path) else run
    config = uvicorn.Config(app, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
