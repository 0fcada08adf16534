"""Port types: how a value finds its files, and the two that serve anybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carina.errors import BadConfig, BadSeries
from carina.pipeline import ports
from carina.pipeline.check import check_definition
from carina.pipeline.definition import parse_definition
from carina.pipeline.operator import Operator, fits, holds, members, type_name
from carina.pipeline.table import OperatorTable
from carina.pipeline.values import Json, Table


@dataclass(frozen=True)
class Plain:
    """A value that knows nothing of files."""

    content: str


class StoredPlain:
    @staticmethod
    def save(value: Plain, folder: Path, saved: ports.Saved) -> Sequence[Path]:
        (folder / "plain.txt").write_text(value.content)
        return [folder / "plain.txt"]

    @staticmethod
    def load(files: Sequence[Path]) -> Plain:
        return Plain(files[0].read_text())

    @staticmethod
    def recognise(files: Sequence[Path]) -> bool:
        return files[0].name == "plain.txt"


PlainPort = Annotated[Plain, StoredPlain]


def there_and_back(port_type: Any, value: object, folder: Path) -> Any:
    files = ports.save_value(port_type, value, folder)
    assert ports.load_value(port_type, files) == ports.load_folder(port_type, folder)
    return ports.load_value(port_type, files)


@pytest.mark.parametrize(
    ("port_type", "value"),
    [
        (int, 7),
        (str, "caf\xe9 \n"),
        (list[int], [1, 2]),
        (dict[str, float], {"a": 0.1}),
        (PlainPort, Plain("a")),
        (Json, Json(value={"a": [1, None, "x"]}, name="facts")),
        (Table, Table(rows=[{"side": "left", "percent": 3.25, "id": "007"}], columns=("side", "percent", "id"))),
        (Table, Table(rows=[], columns=("side", "percent"), name="emphysema")),
    ],
)
def test_a_value_survives_its_folder(port_type: Any, value: object, tmp_path: Path) -> None:
    assert there_and_back(port_type, value, tmp_path / "x") == value


@pytest.mark.parametrize("value", [Plain("a"), Json(value=1), Table(rows=[{"a": 1}], columns=("a",)), 4])
def test_a_port_of_several_types_asks_each_for_its_files(value: object, tmp_path: Path) -> None:
    assert there_and_back(int | PlainPort | Table | Json, value, tmp_path) == value


CELLS = st.none() | st.text(min_size=1) | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=True)


@given(st.data())
def test_every_table_survives_its_file(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    columns = tuple(data.draw(st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True)))
    rows = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(columns, CELLS)), max_size=4))
    table = Table(rows=rows, columns=columns)
    assert there_and_back(Table, table, tmp_path_factory.mktemp("table")) == table


def test_a_table_opens_in_other_programs(tmp_path: Path) -> None:
    rows: list[dict[str, str | float]] = [
        {"region": "left lung", "below_950_percent": 3.5},
        {"region": "right lung", "note": "motion"},
    ]
    (file,) = ports.save_value(Table, Table(rows=rows, name="emphysema: by side"), tmp_path)
    assert file.name.startswith("emphysema_by_side-") and file.suffix == ".csv"
    assert file.read_text().splitlines() == [
        '"region","below_950_percent","note"',
        '"left lung",3.5,""',
        '"right lung","","motion"',
    ]


@pytest.mark.parametrize("text", ["", "a,b\nc,d\n", '"a","b"\n1\n', '"a"\n"x\n', "\ufeff"])
def test_a_table_that_is_none_of_ours_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(BadSeries, match=r"x\.csv: is no table of Carina .* expected CSV with quoted texts"):
        ports.load_folder(Table, tmp_path)


def test_what_a_folder_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(BadSeries, match=r"x\.json: is no JSON"):
        ports.load_folder(Json, tmp_path)
    with pytest.raises(BadSeries, match=r"expected one \.csv file, found 0"):
        ports.load_folder(Table, tmp_path)
    with pytest.raises(BadConfig, match=r"expected Table or Plain, found x\.json"):
        ports.load_folder(Table | PlainPort, tmp_path)
    with pytest.raises(BadConfig, match="no such folder; expected one that holds Plain"):
        ports.load_folder(PlainPort, tmp_path / "none")


def test_an_annotated_port_is_its_type_to_the_check() -> None:
    assert members(PlainPort | None | Annotated[int | str, "x"]) == (Plain, type(None), int, str)
    assert fits(PlainPort, Plain) and fits(Plain, PlainPort | int) and not fits(PlainPort | int, PlainPort)
    assert holds(PlainPort | int, Plain("a")) and not holds(PlainPort, 1)
    assert type_name(PlainPort | Json) == "Plain or Json"


def test_a_result_that_can_not_be_stored_is_a_mistake_of_the_definition(tmp_path: Path) -> None:
    def give(number: int) -> Plain:
        """Give."""
        return Plain(str(number))

    operator = Operator(
        name="give", images=("toy/give",), function=give, inputs={"/input": "number"}, outputs={"/output": ""}
    )
    text = "api-version: 0.4.0\nname: toy\noperators:\n- {name: g, container: {image: toy/give}, "
    definition = parse_definition(text + "input: [{path: /input}], output: [{path: /output}]}")
    (problem,) = check_definition(definition, OperatorTable(operators=(operator,)))
    assert problem == (4, "'g' /output gives Plain, which has no save and load of its own")
    with pytest.raises(BadConfig, match="values of type Plain can't be stored: give the type save, load and recognise"):
        ports.save_value(Plain, Plain("a"), tmp_path)
