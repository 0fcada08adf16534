"""One operator by itself on folders, and the command lines of operators and pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import dcmread

from carina.cli.operator import operator
from carina.cli.pipelines import pipelines
from carina.config import DicomDestination, DicomwebDestination, Settings
from carina.errors import BadConfig
from carina.operators.alone import Alone, find_operator, run_alone
from carina.operators.catalogue import find_definition
from carina.operators.networks import Networks
from carina.operators.ports import DicomObjects, MaskPort, RatioPort, VolumePort
from carina.pipeline import ports
from carina.synth.phantom import Phantom, chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.pacs import orthanc, orthanc_program


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return chest_phantom(shape=(40, 200, 200), lesions=2, seed=3)


@pytest.fixture(scope="module")
def folders(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("alone")
    write_ct_series(phantom.volume, place / "ct")
    ports.save_value(MaskPort, phantom.lung, place / "lung")
    ports.save_value(MaskPort, phantom.lesion, place / "lesion")
    return place


def alone(name: str, **more: Any) -> list[str]:
    settings = Settings()
    asked = {"inputs": {}, "outputs": {}, "variables": {}} | more
    return run_alone(Alone(operator=find_operator(name), **asked), (settings, Networks(settings)))


def test_an_operator_runs_from_the_command_line(folders: Path, phantom: Phantom, tmp_path: Path) -> None:
    words = ["run", "dicom-reader", "--input", f"{folders / 'ct'}", "-o", f"/output={tmp_path / 'out'}"]
    result = CliRunner().invoke(operator, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    volume = ports.load_folder(VolumePort, tmp_path / "out")
    assert np.array_equal(volume.hu, phantom.volume.hu)
    assert volume.grid.same_place(phantom.volume.grid)


def test_operators_hand_folders_on_to_each_other(folders: Path, phantom: Phantom, tmp_path: Path) -> None:
    masks = {"lesion": folders / "lesion", "lung": folders / "lung"}
    alone("ai-volume-ratio", inputs=masks, outputs={"output": tmp_path / "ratio"})
    ratio = ports.load_folder(RatioPort, tmp_path / "ratio")
    assert ratio.regions[0].lesion_ml == pytest.approx(phantom.lesion.volume_ml(), rel=0.01)
    report = {"input": tmp_path / "ratio", "dcm": folders / "ct"}
    alone("clara/dicom-report-writer", inputs=report, outputs={"output": tmp_path / "pdf"})
    assert dcmread(tmp_path / "pdf" / "volume-ratio.dcm").EncapsulatedDocument.startswith(b"%PDF-")


def test_variables_and_options_are_read_as_in_a_definition(folders: Path, tmp_path: Path) -> None:
    alone(
        "dicom-seg-writer",
        inputs={"input": folders / "lung", "dcm": folders / "ct"},
        outputs={"output": tmp_path / "seg", "logs": tmp_path / "logs"},
        variables={"NVIDIA_SEG_LABELS": r"[\"Lung-seg\"]"},
    )
    assert [str(s.SegmentLabel) for s in dcmread(tmp_path / "seg" / "lung-seg.dcm").SegmentSequence] == ["Lung-seg"]
    assert "geometry read back" in next((tmp_path / "logs").iterdir()).read_text()
    command = ("--agent", "ClaraSCU", "--data", '["NEAR"]')
    with pytest.raises(BadConfig, match=r"also wrote NEAR/lung-seg.dcm; say with --work where to keep it"):
        alone("register-results", inputs={"input": tmp_path / "seg"}, command=command)
    warnings = alone("register-results", inputs={"input": tmp_path / "seg"}, command=command, work=tmp_path / "work")
    assert (tmp_path / "work" / "NEAR" / "lung-seg.dcm").is_file() and "NEAR is not configured" in warnings[0]
    assert list(ports.load_folder(DicomObjects, tmp_path / "seg").objects) == ["lung-seg"]


@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [
        ("fax", {}, "no operator is called 'fax'; `carina operator list` shows all that are known."),
        ("ai-lnug", {}, "no operator is called 'ai-lnug'; is ai-lung meant. "),
        ("ai-lung", {"inputs": {"ct": Path()}}, "no input is called 'ct'; known: /input"),
        ("ai-lung", {"outputs": {"x": Path()}}, "no output is called 'x'; known: /output, /publish"),
        ("ai-lung", {}, r"'ai-lung' lacks the input '/input' \(Volume\)"),
        ("ai-lung", {"inputs": {"input": Path("nowhere")}}, "nowhere: no such folder; expected one that holds Volume"),
        ("dicom-reader", {"variables": {"X": "1"}}, "'dicom-reader' has no variable 'X'; known: none"),
        ("register-results", {"command": ("--agent", "fax")}, "is 'fax': expected ClaraSCU or renderserver"),
    ],
)
def test_what_is_wrong_is_named(name: str, more: dict[str, object], expected: str) -> None:
    with pytest.raises(BadConfig, match=expected):
        alone(name, **more)


def test_the_list_shows_ports_and_variables() -> None:
    listed = CliRunner().invoke(operator, ["list"]).output
    assert "clara/ai-lung, carina/ai-lung" in listed and "NVIDIA_SEG_LABELS" in listed
    assert "/volume           Volume, optional" in listed


def test_check_prints_each_mistake_with_its_line_and_ends_with_4(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = find_definition("default").read_text()
    file.write_text(text.replace("carina/ai-lung", "carina/ai-lnug").replace("path: /classification}", "path: /class}"))
    result = CliRunner().invoke(pipelines, ["check", str(file)])
    assert result.exit_code == 4
    lines = result.output.splitlines()
    said = "unknown image 'carina/ai-lnug'; is carina/ai-lung or clara/ai-lung meant? `carina operator list` shows all"
    assert lines[0].startswith(f"{file}:19: {said}")
    assert max(map(len, lines)) - len(str(file)) < 200
    assert lines[1].startswith(f"{file}:70: 'findings' has no input '/class'; known: /input, /classification")
    assert lines[2].startswith(f"{file}:110: 'measurements' has no input '/class'; known: /input, /dcm, ")
    assert lines[3].endswith(": 3 mistakes [definition.invalid]")


def test_check_of_a_good_definition_gives_a_summary(tmp_path: Path) -> None:
    result = CliRunner().invoke(pipelines, ["check", str(find_definition("default"))])
    assert result.exit_code == 0
    assert "carina-default: 20 operators, 29 wires between them, no mistakes" in result.output
    with pytest.raises(BadConfig, match=r"none.yaml: can't be read \(No such file or directory\)"):
        CliRunner().invoke(pipelines, ["check", str(tmp_path / "none.yaml")], catch_exceptions=False)


def test_list_and_show() -> None:
    assert CliRunner().invoke(pipelines, ["list"]).output.startswith("default       20 operators  Lungs, COVID-19")
    assert CliRunner().invoke(pipelines, ["show"]).output == find_definition("default").read_text()
    with pytest.raises(BadConfig, match="no definition is called 'x'; known: default"):
        CliRunner().invoke(pipelines, ["show", "x"], catch_exceptions=False)


def test_a_mask_without_names_still_loads(folders: Path, tmp_path: Path) -> None:
    for path in (folders / "lesion").iterdir():
        if path.suffix != ".json":
            tmp_path.joinpath(path.name).write_bytes(path.read_bytes())
    assert set(ports.load_folder(MaskPort, tmp_path).names.values()) == {"label 1"}


def test_objects_reach_a_real_pacs_by_c_store_and_stow_rs_once(folders: Path, tmp_path: Path) -> None:
    if orthanc_program() is None:
        pytest.skip("Orthanc is not installed")
    seg = {"input": folders / "lung", "dcm": folders / "ct"}
    alone("dicom-seg-writer", inputs=seg, outputs={"output": tmp_path / "seg"})
    uid = str(dcmread(tmp_path / "seg" / "lung-seg.dcm").SOPInstanceUID)
    with orthanc() as pacs:
        destinations: dict[str, DicomDestination | DicomwebDestination] = {
            "NODE": DicomDestination(host=pacs.host, port=pacs.dicom_port, ae_title=pacs.ae_title, timeout_s=60),
            "WEB": DicomwebDestination(url=pacs.dicomweb_url, timeout_s=60),
        }
        settings = Settings(destinations=destinations)
        asked = Alone(
            operator=find_operator("register-results"),
            inputs={"input": tmp_path / "seg"},
            outputs={},
            variables={},
            command=("--agent", "ClaraSCU", "--data", '["NODE", "WEB"]'),
        )
        assert run_alone(asked, (settings,)) == []
        assert pacs.instances() == (uid,)
