"""Which series is taken: rules, ranking, reasons, and the two verbs that show and convert."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from pydicom import dcmread

from carina.cli.convert import convert
from carina.cli.series import series
from carina.dicom.find import choose_source, find_series, judge_each_study
from carina.dicom.rules import Prefer, Rules, load_rules
from carina.dicom.series import Series, VolumeFile
from carina.errors import BadConfig, BadSeries
from carina.volume import Grid, Volume
from carina.volume.files import read_volume, write_volume
from reading_slices import SERIES_UID, ct_slice, save, write_series

CHEST = [2.0 * k for k in range(100)]
RULES = Rules(min_matrix=8, prefer=load_rules().prefer)


def invoke(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])


def reasons(folder: Path, rules: Rules = RULES) -> dict[str, str]:
    return {one.uid: ("taken" if one.taken else one.reason) for one in find_series(folder, rules)}


@pytest.mark.parametrize(
    ("worse", "why"),
    [
        ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]}, "it is original, not derived"),
        ({"BodyPartExamined": "HEAD"}, "this one shows HEAD"),
        ({"heights": CHEST[:50]}, "it covers 200 mm, this one 100"),
        ({"heights": [5.0 * k for k in range(40)]}, "slices are 2.00 mm apart, here 5.00"),
        ({"ConvolutionKernel": "B70f"}, "its kernel STANDARD is preferred to B70f"),
        ({"SeriesDescription": "x", "BodyPartExamined": ""}, "its description names the chest"),
        ({"heights": CHEST[:90]}, "it has 100 slices, this one 90"),
        ({}, "they are equally good and its UID comes first"),
    ],
)
def test_the_better_series_is_taken_and_the_reason_told(tmp_path: Path, worse: dict[str, Any], why: str) -> None:
    write_series(tmp_path / "good", CHEST)
    write_series(
        tmp_path / "worse", **{"heights_mm": worse.pop("heights", CHEST), "SeriesInstanceUID": "2.25.2", **worse}
    )
    assert reasons(tmp_path) == {SERIES_UID: "taken", "2.25.2": f"series {SERIES_UID} is taken instead: {why}"}


@pytest.mark.parametrize(
    ("rules", "changes", "words"),
    [
        ({"min_slices": 200}, {}, "it has 100 slices, at least 200 expected"),
        ({"plane": "coronal"}, {}, "its slices are axial, expected coronal"),
        ({"max_slice_spacing_mm": 1.0}, {}, "its slices are 2.00 mm apart, expected 0.2 to 1"),
        ({"max_pixel_spacing_mm": 1.0}, {}, "its pixels are 2.00 mm, at most 1 expected"),
        ({"min_matrix": 64}, {}, "its matrix is 20 x 24, at least 64 expected"),
        ({"kernel_include": ["^lung"]}, {}, "Convolution Kernel 'STANDARD' is none of ^lung"),
        ({"kernel_exclude": ["^stand"]}, {}, "Convolution Kernel 'STANDARD' is excluded by 'stand'"),
        ({"description_include": ["covid"]}, {}, "Series Description 'Chest' is none of covid"),
        ({"description_exclude": [r"\bmip\b"]}, {"SeriesDescription": "AX MIP 10"}, "'AX MIP 10' is excluded by"),
        (
            {"image_type_exclude": ["^MIP$"]},
            {"ImageType": ["DERIVED", "PRIMARY", "MIP"]},
            "DERIVED\\PRIMARY\\MIP is excluded",
        ),
        ({"modality": ["MR", "PT"]}, {}, "Modality is CT, expected MR or PT"),
    ],
)
def test_a_rule_that_is_broken_is_named(
    tmp_path: Path, rules: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    write_series(tmp_path, CHEST, **changes)
    chosen = msgspec.convert({"min_matrix": 8, **rules}, Rules)
    with pytest.raises(BadSeries, match=re.escape(words)) as caught:
        choose_source(find_series(tmp_path, chosen), chosen)
    assert SERIES_UID in caught.value.message


@pytest.mark.parametrize("description", ["Scout", "TOPOGRAM 0.6", "Dose Report", "AX MIP", "Smart Prep"])
def test_default_rules_leave_out_what_is_no_chest_volume(tmp_path: Path, description: str) -> None:
    write_series(tmp_path, CHEST, SeriesDescription=description)
    (found,) = find_series(tmp_path)
    assert f"Series Description '{description}' is excluded" in found.reason


def test_doubts_reach_the_warnings(tmp_path: Path) -> None:
    write_series(tmp_path, CHEST[:20], BodyPartExamined="BRAIN")
    source = choose_source(find_series(tmp_path, RULES), RULES)
    assert isinstance(source, Series)
    assert source.warnings == (
        "It covers only 40 mm, hardly a whole chest.",
        "Body Part Examined is BRAIN, not the chest.",
    )


def test_a_series_can_be_asked_for_by_uid(tmp_path: Path) -> None:
    write_series(tmp_path / "a", CHEST)
    write_series(tmp_path / "b", CHEST[:5], SeriesInstanceUID="2.25.2")
    found = find_series(tmp_path, RULES)
    assert choose_source(found, RULES, uid="2.25.2").uid == "2.25.2"
    with pytest.raises(BadSeries, match=r"no series 2\.25\.3 here; 2 others are"):
        choose_source(found, RULES, uid="2.25.3")


def test_one_series_of_each_study(tmp_path: Path) -> None:
    for study in ("2.25.8", "2.25.9"):
        for kernel in ("B70f", "B30f"):
            uid = f"{study}.{kernel[1:3]}"
            write_series(tmp_path / uid, CHEST, StudyInstanceUID=study, SeriesInstanceUID=uid, ConvolutionKernel=kernel)
    judged = judge_each_study(find_series(tmp_path, RULES), RULES)
    assert [one.uid for one in judged if one.taken] == ["2.25.8.30", "2.25.9.30"]


def test_dicom_is_preferred_to_a_volume_file(tmp_path: Path) -> None:
    grid = Grid(shape=(100, 64, 64), spacing_mm=(2, 1, 1), origin_mm=(0, 0, 0))
    write_volume(Volume(hu=np.full(grid.shape, -800, np.int16), grid=grid, uid="v"), tmp_path / "v.mhd")
    assert choose_source(find_series(tmp_path)) == VolumeFile(path=tmp_path / "v.mhd", uid="v")
    write_series(tmp_path, CHEST)
    assert reasons(tmp_path)["v"] == f"series {SERIES_UID} is taken instead: it is a DICOM series"


def test_a_dicomdir_is_no_series(tmp_path: Path) -> None:
    write_series(tmp_path, CHEST)
    directory = ct_slice((0, 0, 0), 1, SOPClassUID="1.2.840.10008.1.3.10", PixelData=None)
    save(directory, tmp_path / "DICOMDIR")
    assert reasons(tmp_path) == {SERIES_UID: "taken"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("min_slice = 3", "rules.toml:1: min_slice: unknown key; known are modality"),
        ("min_slices = 'many'", "rules.toml:1: min_slices: expected `int`, got `str`"),
        ("plane = 'oblique'", "invalid enum value 'oblique'"),
        ("prefer = 3", "rules.toml:1: prefer: expected a table, got `int`"),
        ("[prefer]\norder = ['nicest']", "rules.toml:2: prefer.order: invalid enum value 'nicest'"),
        ("kernel_exclude = ['(']", "'(' is no regular expression"),
        ("kernel_exclude = ['a{99999999999}']", "is no regular expression"),
        ("= 3", "rules.toml: no valid TOML: Invalid"),
        ("#" * 200_000, "rules.toml: too large for a settings file"),
    ],
)
def test_a_wrong_rule_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "rules.toml").write_text(text)
    with pytest.raises(BadConfig, match=re.escape(words)):
        load_rules(tmp_path / "rules.toml")


def test_rules_without_an_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").symlink_to("/dev/zero")
    with pytest.raises(BadConfig, match="too large for a settings file"):
        load_rules(tmp_path / "rules.toml")


def test_absent_rules_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="can't be read"):
        load_rules(tmp_path / "absent.toml")


def test_default_rules_are_the_shipped_file() -> None:
    assert load_rules("") == load_rules(None) and load_rules().min_slices == 10
    assert Prefer().order == load_rules().prefer.order


def test_own_rules_need_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text("min_slices = 3\n[prefer]\ncoverage_mm = 80")
    own, shipped = load_rules(tmp_path / "rules.toml"), load_rules()
    assert (own.min_slices, own.prefer.coverage_mm) == (3, 80.0)
    assert own.description_exclude == shipped.description_exclude and own.prefer.kernel == shipped.prefer.kernel


def test_carina_series_lists_lines_and_json(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text("min_matrix = 8\nprefer.coverage_mm = 150")
    write_series(tmp_path / "ct", CHEST)
    write_series(tmp_path / "mr", CHEST[:3], SeriesInstanceUID="2.25.2", Modality="MR")
    lines = invoke(series, tmp_path, "--rules", tmp_path / "rules.toml")
    assert lines.exit_code == 0
    first, second, note, last = lines.output.splitlines()
    assert note.startswith("note: judged by headers alone")
    assert last == "files: 104: 100 used, 0 copies, 4 other, 0 broken"
    assert first.startswith(f"taken\t{SERIES_UID}\tCT\tChest\t100\t2.00\tSTANDARD\tfits the rules")
    assert second.startswith("no\t2.25.2\tMR") and "Modality is MR, expected CT" in second
    assert "Secret" not in lines.output
    facts = json.loads(invoke(series, tmp_path, "--rules", tmp_path / "rules.toml", "--json").output)
    assert [fact["code"] for fact in facts] == [None, "series.modality"]
    assert facts[0]["taken"] and facts[0]["slice_spacing_mm"] == 2.0 and facts[0]["coverage_mm"] == 200.0


def test_carina_series_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from carina.cli.series import _print_records

    write_series(tmp_path, CHEST, SeriesDescription="Chest [bold]x[/red]")
    _print_records(find_series(tmp_path, RULES))
    shown = capsys.readouterr().out
    assert "taken  CT  Chest [bold]x[/red]  100 slices  2.00 mm  STANDARD" in shown


def test_carina_series_on_nothing(tmp_path: Path) -> None:
    result = invoke(series, tmp_path)
    assert isinstance(result.exception, BadSeries) and "the folder is empty" in result.exception.message


@pytest.mark.parametrize(("kind", "suffix"), [("nifti", ".nii.gz"), ("metaimage", ".mhd"), ("nrrd", ".nrrd")])
def test_carina_convert_goes_on_after_a_bad_series(tmp_path: Path, kind: str, suffix: str) -> None:
    write_series(tmp_path / "in" / "good", CHEST)
    write_series(tmp_path / "in" / "gap", [0, 2, 4, 10, 12], SeriesInstanceUID="2.25.2")
    write_series(tmp_path / "in" / "mr", CHEST[:3], SeriesInstanceUID="2.25.3", Modality="MR")
    result = invoke(convert, tmp_path / "in", "-o", tmp_path / "out", "--format", kind)
    assert result.exit_code == 3
    assert "1 of 2 series converted; 1 left out, 'carina series' says why" in result.output
    assert "failed: series 2.25.2: slices are missing: 6.00 mm between" in result.output
    assert "[series.gap]" in result.output and "2.25.3" not in result.output
    back = read_volume(tmp_path / "out" / f"{SERIES_UID}{suffix}")
    source = choose_source(find_series(tmp_path / "in" / "good", RULES), RULES)
    from carina.dicom.read import read_source as read_series

    assert np.array_equal(back.hu, read_series(source).hu)


@pytest.mark.parametrize("lacking", [[3], range(len(CHEST))], ids=["one slice", "every slice"])
def test_carina_convert_tells_of_a_series_whose_slices_lack_their_pixels(
    tmp_path: Path, lacking: Sequence[int]
) -> None:
    files = write_series(tmp_path / "in", CHEST)
    for k in lacking:
        dataset = dcmread(files[k])
        del dataset.PixelData
        dataset.save_as(files[k])
    result = invoke(convert, tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 3
    assert "0 of 1 series converted" in result.output and "it has no pixel data" in result.output


def test_carina_convert_names_volumes_of_one_uid_apart(tmp_path: Path) -> None:
    for number in (1, 2):
        write_series(tmp_path / "in" / str(number), CHEST[:12], AcquisitionNumber=number, SOPInstanceUID="")
    result = invoke(convert, tmp_path / "in", "-o", tmp_path / "out", "--format", "nrrd")
    assert result.exit_code == 0, result.output
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert [name.startswith(f"{SERIES_UID}_AcquisitionNumber_{k}") for k, name in enumerate(names, 1)] == [True, True]


def test_carina_convert_with_nothing_to_convert(tmp_path: Path) -> None:
    write_series(tmp_path / "in", CHEST[:3], Modality="MR")
    result = invoke(convert, tmp_path / "in", "-o", tmp_path / "out")
    assert isinstance(result.exception, BadSeries) and "holds no CT series" in result.exception.message
    assert not (tmp_path / "out").exists()


def test_folders_behind_links_are_looked_into_once(tmp_path: Path) -> None:
    write_series(tmp_path / "elsewhere" / "study", CHEST)
    node = tmp_path / "node"
    node.mkdir()
    for name in ("first", "second"):
        (node / name).symlink_to(tmp_path / "elsewhere" / "study", target_is_directory=True)
    (tmp_path / "elsewhere" / "study" / "circle").symlink_to(node, target_is_directory=True)
    assert reasons(node) == {SERIES_UID: "taken"}
    source = choose_source(find_series(node, RULES), RULES)
    assert isinstance(source, Series) and len(source.instances) == len(CHEST)
