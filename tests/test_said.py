"""Whatever an operator says, the manifest of its run can be read again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from carina.pipeline import Context, Operator, OperatorTable
from carina.pipeline.manifest import LARGEST_MANIFEST_BYTES, Manifest, read_manifest
from carina.pipeline.run import run_pipeline
from carina.pipeline.said import LEFT_OUT, MOST_WARNINGS
from toy_operators import definition, step


def manifest_of(folder: Path, say: Callable[[Context], object], steps: int = 1) -> Manifest:
    """The manifest of a run whose steps say something."""

    def operator(number: int, *, context: Context) -> int:
        say(context)
        return number

    talker = Operator(
        name="talker", images=("toy/talk",), function=operator, inputs={"/input": "number"}, outputs={"/output": ""}
    )
    parts = definition(*(step(f"s{number}", "talk", "[{path: /input}]") for number in range(steps)))
    run_pipeline(parts, OperatorTable.of(talker), inputs={"input": 1}, out=folder)
    found = read_manifest(folder)
    assert found is not None and (folder / "manifest.json").stat().st_size < LARGEST_MANIFEST_BYTES
    return found


def nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


def warn_all(context: Context, *sentences: str) -> None:
    for sentence in sentences:
        context.warn(sentence)


def record_all(context: Context, *facts: tuple[str, object]) -> None:
    for key, fact in facts:
        context.record(key, fact)


TALK: dict[str, Callable[[Context], object]] = {
    "long warnings": lambda context: warn_all(context, *["W" * 3_000_000] * 5),
    "many warnings": lambda context: warn_all(context, *(f"warning {number}" for number in range(20_000))),
    "many and long": lambda context: warn_all(context, *(f"{n} " + "\U0001fac1" * 2000 for n in range(500))),
    "escapes": lambda context: warn_all(context, *(f"{n}" + '\\"' * 2000 for n in range(500))),
    "a large fact": lambda context: record_all(context, ("large", "x" * 20_000_000)),
    "a fact of many lines": lambda context: record_all(context, ("lines", [0] * 1_000_000)),
    "a fact with a long key": lambda context: record_all(context, ("k" * 20_000_000, 1)),
    "many facts": lambda context: record_all(context, *((f"{n}", "x" * 1000) for n in range(20_000))),
    "one fact again and again": lambda context: record_all(context, *[("same", "x" * 1000)] * 20_000),
    "a deep fact": lambda context: record_all(context, ("deep", nested(500))),
}


ALONE = [(talk, 1) for talk in TALK]
TOGETHER = [(talk, 30) for talk in ("many and long", "escapes", "a fact of many lines")]


@pytest.mark.parametrize(("talk", "steps"), ALONE + TOGETHER)
def test_no_operator_makes_a_manifest_that_can_not_be_read(tmp_path: Path, talk: str, steps: int) -> None:
    found = manifest_of(tmp_path, TALK[talk], steps)
    for record in found.operators.values():
        assert record.state == "done" and len(record.warnings) <= MOST_WARNINGS + 1
        assert record.warnings and all(len(warning) < 1100 for warning in record.warnings)


def test_what_was_cut_or_left_out_is_said(tmp_path: Path) -> None:
    long = manifest_of(tmp_path / "long", TALK["long warnings"]).operators["s0"].warnings
    assert len(long) == 5 and all(one.endswith("W (cut, of 3000000 characters)") for one in long)
    many = manifest_of(tmp_path / "many", TALK["many warnings"]).operators["s0"].warnings
    assert many == [*(f"warning {number}" for number in range(MOST_WARNINGS)), LEFT_OUT]
    large = manifest_of(tmp_path / "large", TALK["a large fact"]).operators["s0"]
    assert large.facts == {} and "The fact 'large' is too large for the manifest" in large.warnings[0]


def test_what_operators_say_usually_is_taken_as_it_is(tmp_path: Path) -> None:
    def say(context: Context) -> None:
        context.warn("one\ntwo")
        context.record("made_by", {"lung": [1, 2.5, None]})

    record = manifest_of(tmp_path, say).operators["s0"]
    assert record.warnings == ["one two"] and record.facts == {"made_by": {"lung": [1, 2.5, None]}}
