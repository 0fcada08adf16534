"""Whatever a UID, a name or a destination says: every writer stays in the folder that it was given."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import EncapsulatedPDFStorage

from carina.api.cohort import run_many
from carina.api.study import RunSettings, run
from carina.cli.convert import convert
from carina.config import Settings
from carina.deliver.folder import deliver_to_folder
from carina.dicom.objects import save_object as save_object
from carina.errors import BadConfig, DeliveryFailed
from carina.measure.findings import Classification, RatioFindings
from carina.operators import (
    ClassificationPort,
    DicomObjects,
    MaskPort,
    RatioPort,
    SaliencyPort,
    Scene,
    VolumePort,
)
from carina.operators.alone import Alone, find_operator, run_alone
from carina.pipeline import Json, Operator, OperatorTable, Table, ports
from carina.pipeline.definition import parse_definition
from carina.pipeline.run import run_pipeline
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.volume import Grid, Mask, ScalarMap, Volume

NAMES = (
    "../../victim.txt",
    "../outside/x",
    "{top}/outside/x",
    "/",
    "..",
    ".",
    "",
    "%",
    "50% of it",
    "a\0b",
    "two\nlines",
    "tab\there",
    "caf\udce9",
    "\ud800",
    "x" * 300,
    "\u202egnp.exe",
    "CON",
    "manifest.json",
    ".lock",
    "-rf",
    "~",
    "$HOME",
    "a/b",
    "a\\b",
)

TEXTS = st.sampled_from(NAMES) | st.text(st.characters(exclude_categories=()), max_size=40)


class Guard:
    """A folder to write into, with a stranger's files around it."""

    def __init__(self, top: Path) -> None:
        self.top, self.out = top, top / "a" / "b" / "out"
        self.out.mkdir(parents=True)
        (top / "outside").mkdir()
        for place in (top, self.out.parent, self.out.parents[1], top / "outside"):
            (place / "victim.txt").write_text("precious")
        self.before = self.around()

    def around(self) -> dict[str, bytes | None]:
        """Every file and folder that is not in the folder to write into."""
        found = (path for path in self.top.rglob("*") if path != self.out and self.out not in path.parents)
        return {str(path): path.read_bytes() if path.is_file() else None for path in found}

    @contextmanager
    def watch(self) -> Iterator[Path]:
        shutil.rmtree(self.out)
        self.out.mkdir()
        yield self.out
        assert self.around() == self.before


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    return Guard(tmp_path_factory.mktemp("guard"))


GRID = Grid(shape=(2, 3, 4), origin_mm=(0.0, 0.0, 0.0), spacing_mm=(2.0, 1.0, 1.0))
VOLUME = Volume(hu=np.full((2, 3, 4), -800, np.int16), grid=GRID, uid="")
MASK = Mask(labels=np.ones((2, 3, 4), np.uint8), grid=GRID, names={1: "lungs"}, uid="")
MAP = ScalarMap(values=np.ones((2, 3, 4), np.float32), grid=GRID, quantity="q", unit="u", uid="")


def pdf() -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = EncapsulatedPDFStorage, "1.2.3"
    return dataset


VALUES: dict[str, tuple[Any, Callable[[str], object]]] = {
    "volume": (VolumePort, lambda name: dataclasses.replace(VOLUME, uid=name)),
    "mask": (MaskPort, lambda name: dataclasses.replace(MASK, uid=name)),
    "saliency": (SaliencyPort, lambda name: SaliencyPort(map=dataclasses.replace(MAP, uid=name))),
    "scene": (
        Scene,
        lambda name: Scene(
            volume=dataclasses.replace(VOLUME, uid=name),
            shown=dataclasses.replace(MASK, uid=name),
            layer=name,
            order=1,
            colours={1: "#000000"},
        ),
    ),
    "classification": (ClassificationPort, lambda name: Classification(uid=name, probabilities={name: 1.0})),
    "ratio": (RatioPort, lambda name: RatioFindings(uid=name, regions=(), lesion_count=0)),
    "objects": (DicomObjects, lambda name: DicomObjects(objects={name: pdf()})),
    "table": (Table, lambda name: Table(rows=[{"a": 1}], name=name)),
    "json": (Json, lambda name: Json(value=1, name=name)),
}


@pytest.mark.parametrize("kind", VALUES)
@settings(max_examples=40, deadline=None)
@given(name=TEXTS)
def test_every_port_type_stays_in_its_folder(guard: Guard, kind: str, name: str) -> None:
    port_type, make = VALUES[kind]
    value = make(name.replace("{top}", str(guard.top)))
    with guard.watch() as out:
        files = ports.save_value(port_type, value, out / "port")
        assert all(path.resolve().is_relative_to(out / "port") and path.is_file() for path in files)
        back = ports.load_value(port_type, files)
    if hasattr(value, "uid"):
        assert back.uid == value.uid.encode("utf-8", "backslashreplace").decode()


@settings(max_examples=25, deadline=None)
@given(name=TEXTS)
def test_a_run_stays_in_its_folder(guard: Guard, name: str) -> None:
    name = name.replace("{top}", str(guard.top))

    def give(number: int) -> Table:
        """Give a table of a name."""
        return Table(rows=[{name or "a": number}], name=name)

    operator = Operator(
        name="give", images=("x/give",), function=give, inputs={"/input": "number"}, outputs={"/output": ""}
    )
    text = "api-version: 0.4.0\nname: x\noperators:\n- {name: give, container: {image: x/give}, "
    definition = parse_definition(text + "input: [{path: /input}], output: [{path: /output}]}")
    with guard.watch() as out:
        result = run_pipeline(definition, OperatorTable.of(operator), inputs={"input": 1}, out=out)
        assert len(result.files("give", "/output")) == 1


@pytest.mark.parametrize("place", ["../x", "/tmp/x", "a/../../x", "..", "/output/../../../x"])
def test_an_operator_with_a_place_outside_is_refused(place: str) -> None:
    def give(number: int) -> int:
        """Give."""
        return number

    fields: dict[str, Any] = {"name": "give", "images": ("x/give",), "function": give, "inputs": {"/input": "number"}}
    path = place if place.startswith("/output") else "/output"
    places = {} if path == place else {path: place}
    refused = OperatorTable().with_usable(Operator(outputs={path: ""}, places=places, **fields)).refused
    assert len(refused) == 1 and "does not lie in the run's folder" in refused[0]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects")
    save_object(pdf(), folder / "report.dcm")
    return folder


def is_text(name: str) -> bool:
    """Whether all of it is Unicode: half a surrogate pair, as JSON can escape it, is refused."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


@settings(max_examples=40, deadline=None)
@given(name=TEXTS)
def test_what_a_destination_is_called_makes_a_folder_in_the_run(guard: Guard, objects: Path, name: str) -> None:
    import json

    name = name.replace("{top}", str(guard.top))
    with guard.watch() as out:
        asked = Alone(
            operator=find_operator("register-results"),
            inputs={"input": objects},
            outputs={},
            variables={},
            command=("--agent", "ClaraSCU", "--data", json.dumps([name])),
            work=out,
        )
        if not is_text(name):
            with pytest.raises(BadConfig, match=r"option '--data' of 'register-results'.*expected a list of texts"):
                run_alone(asked, (Settings(),))
            return
        if name == "manifest.json":
            with pytest.raises(DeliveryFailed, match=r"manifest\.json can't be written .File exists"):
                run_alone(asked, (Settings(),))
            return
        run_alone(asked, (Settings(),))
        assert len(list(out.glob("*/report.dcm"))) == 1


@pytest.mark.parametrize("name", ["50% of it.dcm", "caf\udce9.dcm", "two\nlines.dcm", "x" * 250 + ".dcm", "-rf"])
def test_a_delivered_file_of_any_name_arrives_whole(guard: Guard, objects: Path, tmp_path: Path, name: str) -> None:
    file = shutil.copyfile(objects / "report.dcm", tmp_path / name)
    with guard.watch() as out:
        (out / name).symlink_to(guard.top / "outside" / "victim.txt")
        deliver_to_folder([file], "archive", out)
        assert [path.read_bytes() for path in out.iterdir()] == [file.read_bytes()]


def test_outputs_of_an_operator_alone_follow_no_link(guard: Guard, tmp_path: Path) -> None:
    phantom = chest_phantom(shape=(36, 200, 200), lesions=0)
    ports.save_value(VolumePort, dataclasses.replace(phantom.volume, uid="v"), tmp_path / "volume")
    with guard.watch() as out:
        (out / "v.mhd").symlink_to(guard.top / "outside" / "victim.txt")
        inputs, outputs = {"input": tmp_path / "volume"}, {"output": out}
        run_alone(Alone(operator=find_operator("dicom-reader"), inputs=inputs, outputs=outputs, variables={}), ())
        assert not (out / "v.mhd").is_symlink()


UIDS = ("../../../../escaped", "/tmp/carina-escaped", "..", "%d%s", "a/b", "1.2.\n3", "x" * 64)
READ = "api-version: 0.4.0\nname: read\noperators:\n- {name: reader, container: {image: carina/dicom-reader}, "


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("uid", UIDS)
def test_series_of_a_hostile_uid_are_run_listed_and_converted_in_place(guard: Guard, tmp_path: Path, uid: str) -> None:
    for file in write_ct_series(chest_phantom(shape=(36, 200, 200), lesions=0).volume, tmp_path / "ct"):
        dataset = pydicom.dcmread(file)
        with pydicom.config.disable_value_validation():
            dataset.SeriesInstanceUID = dataset.StudyInstanceUID = uid
            dataset.save_as(file)
    (tmp_path / "read.yaml").write_text(READ + "input: [{path: /input}], output: [{path: /output}]}")
    with guard.watch() as out:
        run(tmp_path / "ct", out / "run", RunSettings(pipeline=tmp_path / "read.yaml"))
        assert len(list((out / "run" / "volume").glob("*.mhd"))) == 1
        cohort = run_many(tmp_path / "ct", out / "cohort", "study", RunSettings(pipeline=tmp_path / "read.yaml"))
        assert cohort.failures == () and (out / "cohort" / "cohort.csv").is_file()
        ended = CliRunner().invoke(convert, [str(tmp_path / "ct"), "-o", str(out / "nifti")])
        assert ended.exit_code == 0 and len(list((out / "nifti").glob("*.nii.gz"))) == 1, ended.output
    assert not Path("/tmp/carina-escaped").exists() and not os.path.lexists("/tmp/carina-escaped.nii.gz")
