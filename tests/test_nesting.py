"""Texts from outside that nest too deep, or stand for endlessly many values: one clear line, whoever reads them."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.api.result import Run
from carina.cases.datalist import read_datalist
from carina.config import load_settings
from carina.deliver import dicomweb
from carina.dicom.walk import own_of_run
from carina.errors import BadConfig, BadSeries
from carina.models.bundle import METADATA, WEIGHTS, load_bundle
from carina.models.foreign import read_package, read_table
from carina.models.verify import verify_metadata
from carina.nesting import DEEPEST, check_extent
from carina.operators.text import text_list
from carina.pipeline.definition import load_definition
from carina.pipeline.json_text import read_json
from carina.pipeline.manifest import read_manifest
from carina.pipeline.values import Json
from carina.train.recipe import load_recipe

SOURCE = Path(__file__).resolve().parents[1] / "src" / "carina"
DEPTHS = (DEEPEST + 1, 400, 990, 5000, 200_000)

JSON_SHAPES: dict[str, Callable[[int], str]] = {
    "lists": lambda depth: "[" * depth + "]" * depth,
    "objects": lambda depth: '{"a":' * depth + "1" + "}" * depth,
    "both": lambda depth: '[{"a":' * (depth // 2 + 1) + "1" + "}]" * (depth // 2 + 1),
    "beside texts of brackets": lambda depth: '["]]]\\"]", ' * depth + "1" + "]" * depth,
}
NESTED = [pytest.param(shape(depth), id=f"{name} {depth}") for name, shape in JSON_SHAPES.items() for depth in DEPTHS]


@pytest.mark.parametrize("text", NESTED)
def test_json_that_nests_too_deep_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"it is nested more than {DEEPEST} deep"):
        read_json(text)
    with pytest.raises(ValueError, match=f"it is nested more than {DEEPEST} deep"):
        read_json(text.encode())


@pytest.mark.parametrize("shape", JSON_SHAPES.values(), ids=list(JSON_SHAPES))
def test_json_that_nests_as_deep_as_it_may_is_read(shape: Callable[[int], str]) -> None:
    assert read_json(shape(DEEPEST - 2))


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.text(), lambda one: st.lists(one) | st.dictionaries(st.text(), one), max_leaves=30
)


@settings(max_examples=60)
@given(_VALUES, st.integers(0, 2 * DEEPEST))
def test_only_the_depth_counts(value: Any, around: int) -> None:
    """Brackets within texts and beside each other are none."""
    for _ in range(around):
        value = [value, "[{"]
    text = msgspec.json.encode(value)
    if _depth(value) <= DEEPEST:
        assert read_json(text) == value
    else:
        with pytest.raises(ValueError, match="nested more than"):
            read_json(text)


def test_one_file_reads_json() -> None:
    """So that the bound holds everywhere, but inside a server of others and from one process of ours to another."""
    apart = {"models/served_model.py", "jobs/execute.py", "jobs/compare.py", "pipeline/program_guard.py"}
    readers = {"json.loads", "json.load", "msgspec.json.decode", "yaml.safe_load", "yaml.load"}
    found = {
        (file.relative_to(SOURCE).as_posix(), ast.unparse(node.func))
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in readers
    }
    assert {row for row in found if row[0] not in apart} == {
        ("pipeline/json_text.py", "msgspec.json.decode"),
        ("models/foreign.py", "yaml.safe_load"),
    }


def _bundle(folder: Path, text: bytes) -> None:
    for name, content in ((METADATA, text), (WEIGHTS, b"")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    load_bundle(folder)


def _monai(folder: Path, text: bytes, name: str = "inference.json") -> None:
    (folder / "configs").mkdir()
    (folder / "models").mkdir()
    (folder / "models" / "model.pt").write_bytes(b"")
    (folder / "configs" / "metadata.json").write_bytes(b"{}")
    (folder / "configs" / name).write_bytes(text)
    read_package(folder)


def _in_file(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    def reader(folder: Path, text: bytes) -> object:
        (folder / name).write_bytes(text)
        return read(folder / name)

    return reader


READERS: dict[str, Callable[[Path, bytes], object]] = {
    "manifest": _in_file("manifest.json", lambda file: read_manifest(file.parent)),
    "run": _in_file("manifest.json", lambda file: Run(file.parent).manifest),
    "data list": _in_file("data.json", read_datalist),
    "port": _in_file("value.json", lambda file: Json.load([file])),
    "bundle": _bundle,
    "MONAI": _monai,
    "MONAI in YAML": lambda folder, text: _monai(folder, text, "inference.yaml"),
    "definition": _in_file("pipeline.yaml", load_definition),
    "settings": _in_file("carina.toml", lambda file: load_settings(file, {})),
    "recipe": _in_file("recipe.toml", lambda file: load_recipe(str(file))),
}


@pytest.mark.parametrize("depth", [400, 5000])
@pytest.mark.parametrize("kind", READERS)
def test_every_reader_refuses_it_in_one_line(kind: str, depth: int, tmp_path: Path) -> None:
    text = JSON_SHAPES["lists"](depth)
    if kind in ("settings", "recipe"):
        text = "a = " + text.replace("[", "[\n")
    with pytest.raises((BadConfig, BadSeries), match=r"nested|[Ee]xpected|must be") as caught:
        READERS[kind](tmp_path, text.encode())
    assert "\n" not in caught.value.message.removeprefix(f"{tmp_path / 'pipeline.yaml'}:\n")


def test_an_option_of_nested_lists_is_no_list_of_texts() -> None:
    for depth in DEPTHS:
        with pytest.raises(ValueError, match="expected a list of texts"):
            text_list(JSON_SHAPES["lists"](depth))


def test_answers_and_neighbours_that_nest_are_as_none(tmp_path: Path) -> None:
    text = JSON_SHAPES["objects"](5000).encode()
    (tmp_path / "manifest.json").write_bytes(text)
    assert own_of_run(tmp_path) == frozenset()
    assert dicomweb._decode(text) is None


def test_a_schema_that_nests_is_named(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    schema = tmp_path / "schema.json"
    schema.write_text(JSON_SHAPES["lists"](5000), encoding="utf-8")
    with pytest.raises(BadConfig, match=r"no JSON schema can be read from it \(it is nested"):
        verify_metadata(load_bundle(next((SOURCE / "models" / "bundles").iterdir())), schema)


ENDLESS = {
    "aliases of aliases": "a: &a [x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
    "an alias of itself": "a: &a [*a, *a]\n",
    "a mapping of itself": "a: &a {b: *a, c: *a}\n",
}


@pytest.mark.parametrize("text", ENDLESS.values(), ids=list(ENDLESS))
def test_aliases_that_stand_for_more_and_more_are_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "inference.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadConfig, match=r"can't be read as YAML \(it (stands for|is nested) more than"):
        read_table(file)


@pytest.mark.parametrize("text", ['a: !!int ""', "a: !!bool x", "a: !!timestamp x", "a: !!float ''", "a: !!binary é"])
def test_yaml_whose_types_do_not_fit_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "inference.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadConfig, match="can't be read as YAML"):
        read_table(file)


def test_a_configuration_larger_than_any_is_not_opened(tmp_path: Path) -> None:
    file = tmp_path / "inference.json"
    file.write_bytes(b'{"a": "' + b"x" * 1_000_000 + b'"}')
    with pytest.raises(BadConfig, match="more than 1000000 bytes"):
        read_table(file)


def test_references_that_fan_out_or_lead_back_end(tmp_path: Path) -> None:
    """Each is followed once: ten of ten of ten would be ten to the twentieth."""
    steps = {f"s{number}": [f"@s{number + 1}"] * 10 for number in range(40)}
    text = {"preprocessing": "@s0", **steps, "inferer": "@inferer", "postprocessing": "$" + "-" * 100_000 + "1"}
    _monai(tmp_path, json.dumps(text).encode())


def test_plain_values_are_let_through() -> None:
    check_extent({"a": [1, {"b": ("c", {1, 2})}]})
