"""Definitions: what is read, and every mistake at once with its line."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from carina.errors import BadConfig
from carina.pipeline.check import check_text
from carina.pipeline.definition import parse_definition, read_text
from carina.pipeline.graph import bind
from carina.pipeline.operator import Operator, Setting
from carina.pipeline.table import OperatorTable


class Two(NamedTuple):
    number: int
    text: str


def start(source: int) -> Two:
    """Begin."""
    return Two(source, str(source))


def count(number: int, more: int | None = None, *, times: int = 1) -> int:
    """Count."""
    return number * times + (more or 0)


def say(text: str | float) -> None:
    """End."""


TABLE = OperatorTable.of(
    Operator(
        name="start",
        images=("toy/start",),
        function=start,
        inputs={"/input": "source"},
        outputs={"/number": "number", "/text": "text"},
        services=("toy/server",),
    ),
    Operator(
        name="count",
        images=("toy/count",),
        function=count,
        inputs={"/input": "number", "/more": "more"},
        outputs={"/output": ""},
        variables={"TIMES": Setting(parameter="times", read=int)},
    ),
    Operator(name="say", images=("toy/say",), function=say, inputs={"/input": "text"}),
)

GOOD = """api-version: 0.4.0
name: toy
description: a small one
orchestrator: Clara
pull-secrets: [mine]
parameters:
  times: "3"
operators:
- name: first
  description: begins
  container:
    image: toy/start
    tag: 1.2
    command: ["python", "start.py"]
  requests: {cpu: 2, gpu: 0, memory: 512}
  input:
  - path: /input
  output:
  - {path: /number, name: number}
  - {path: /text, name: text}
  services:
  - name: server
    container: {image: toy/server, tag: 1}
    connections:
      http: [{name: ADDRESS, port: 8000}]
      file: [{name: FOLDER, path: /models}]
    requests: {gpu: 1}
- name: second
  container:
    image: toy/count
    variables: {TIMES: "${{ times }}"}
  input:
  - {from: FIRST, name: Number, path: /input}
  output:
  - path: /output
- name: third
  container: {image: toy/say}
  input:
  - {from: first, name: text, path: /input}
"""


def problems(text: str) -> list[str]:
    return [f"{line}: {message}" for line, message in check_text(text, "toy.yaml", TABLE)]


def test_everything_the_language_knows_is_read() -> None:
    definition = parse_definition(GOOD, "toy.yaml")
    first, second, third = definition.steps
    assert (definition.name, definition.pull_secrets) == ("toy", ("mine",))
    assert (first.container.tag, first.container.command) == ("1.2", ("python", "start.py"))
    assert (first.requests.cpu, first.requests.gpu, first.requests.memory_mb) == (2, 0, 512)
    assert [(c.kind, c.name, c.port, c.path) for c in first.services[0].connections] == [
        ("http", "ADDRESS", 8000, ""),
        ("file", "FOLDER", None, "/models"),
    ]
    assert (second.inputs[0].source, second.inputs[0].line) == ("FIRST", 33)
    assert second.container.variables["TIMES"].text == "3"
    assert third.container.tag == "latest"
    assert problems(GOOD) == []


def test_names_are_compared_without_case_and_settings_are_read() -> None:
    graph, found = bind(parse_definition(GOOD), TABLE)
    assert found == []
    assert list(graph.nodes) == ["first", "second", "third"]
    assert graph.nodes["second"].wires["number"].step == "first"
    assert graph.nodes["second"].settings == {"times": 3}
    assert graph.inputs == {"input": int}


def test_arguments_replace_parameters_and_change_the_hash() -> None:
    plain, told = parse_definition(GOOD), parse_definition(GOOD, arguments={"times": "4"})
    assert told.steps[1].container.variables["TIMES"].text == "4"
    assert plain.sha256 != told.sha256 == parse_definition(GOOD, arguments={"times": "4"}).sha256
    with pytest.raises(BadConfig, match=r"definition:7: argument 'tmies' is no parameter; known: times"):
        parse_definition(GOOD, arguments={"tmies": "4"})


BAD = """api-version: 0.4.0
name: toy
colour: red
operators:
- name: first
  container: {image: toy/start}
  input: [{path: /input}]
  output: [{path: /number, name: number}, {path: /text, name: text}, {path: /third, name: third}]
- name: second
  container:
    image: toy/count
    variables:
      TIMES: many
      COLOUR: red
  input:
  - {from: first, name: text, path: /input}
  output: [{path: /output}]
- name: third
  container: {image: toy/cuont}
- name: fourth
  container: {image: toy/say, command: [say, --loud, "1"]}
  input:
  - {from: first, path: /input}
- name: Fourth
  container: {image: toy/say}
  input:
  - {from: nobody, path: /input}
- name: fifth
  container: {image: toy/count}
  input:
  - {from: first, name: colour, path: /input}
  - {path: /elsewhere}
- name: sixth
  container: {image: toy/count}
  input: [{from: fourth, path: /more}]
  output: [{path: /output}]
- name: seventh
  container: {image: toy/say}
  input: [{path: /input}]
  services: [{name: s, container: {image: toy/cloud}}]
"""


def test_every_mistake_is_reported_at_once_with_its_line() -> None:
    assert problems(BAD) == [
        "3: unknown key 'colour' in the definition; known: api-version, name, description, orchestrator, pull-secrets, "
        "parameters, operators",
        "8: 'first' has no output '/third'; known: /number, /text",
        "13: variable 'TIMES' of 'second' is 'many': invalid literal for int() with base 10: 'many'",
        "14: 'second' has no variable 'COLOUR'; known: TIMES",
        "16: 'first' /text gives str, but 'second' /input takes int",
        "19: unknown image 'toy/cuont'; known: toy/count, toy/say, toy/start",
        "21: 'fourth' has no command option '--loud'; known: none",
        "23: 'fourth' must name the output of 'first' it reads; declared: number, text, third",
        "24: operator name 'Fourth' is already used on line 20",
        "27: 'Fourth' reads from 'nobody', which is no operator here; "
        "known: first, second, third, fourth, fifth, sixth, seventh",
        "28: 'fifth' declares no output; image 'toy/count' gives /output",
        "31: 'fifth' reads the output 'colour' of 'first', which doesn't declare it; declared: number, text, third",
        "32: 'fifth' has no input '/elsewhere'; known: /input, /more",
        "33: 'sixth' lacks the input '/input' (int)",
        "35: 'sixth' reads from 'fourth', which has no output",
        "39: 'seventh' /input has no 'from' and so reads the pipeline's input, which is int; it takes str or float",
        "40: 'seventh' asks for the service 'toy/cloud'; known to it: none",
    ]


def test_a_cycle_names_its_path() -> None:
    text = """api-version: 0.4.0
name: toy
operators:
- {name: a, container: {image: toy/count}, input: [{from: c, path: /input}], output: [{path: /output}]}
- {name: b, container: {image: toy/count}, input: [{from: a, path: /input}], output: [{path: /output}]}
- {name: c, container: {image: toy/count}, input: [{from: b, path: /input}], output: [{path: /output}]}
"""
    assert problems(text) == ["4: a cycle: a -> b -> c -> a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1: the definition is empty"),
        ("name: [", "1: no valid YAML"),
        ("- 1", "1: the definition must be a mapping"),
        ("api-version: 0.3.0\nname: x\noperators: []", "1: api-version is '0.3.0'; this engine reads '0.4.0'"),
        ("api-version: 0.4.0\nname: x\noperators: []", "3: the definition has no operators"),
        ("api-version: 0.4.0\nname: x y\noperators:\n- {}", "2: the pipeline's name is 'x y'; a name has 1 to 255"),
        ("api-version: 0.4.0\nname: x\noperators:\n- {name: y}", "4: an operator lacks the key 'container'"),
        ("api-version: 0.4.0\nname: x\nname: y\noperators:\n- {}", "3: key 'name' appears twice in the definition"),
        ("api-version: 0.4.0\nname: ${{ y }}\noperators:\n- {}", "2: placeholder 'y' is no parameter"),
    ],
)
def test_a_text_that_is_no_definition_is_refused(text: str, expected: str) -> None:
    assert any(found.startswith(expected) for found in problems(text)), problems(text)


def test_the_error_lists_every_problem() -> None:
    with pytest.raises(BadConfig) as error:
        parse_definition("api-version: 1\nfoo: 1\nname: x\noperators:\n- {}", "my.yaml")
    assert error.value.code == "definition.invalid"
    places = [line.split(" ")[0] for line in str(error.value).splitlines()]
    assert places == ["my.yaml:1:", "my.yaml:2:", "my.yaml:5:", "my.yaml:5:"]


def test_a_table_that_does_not_match_its_function_is_refused() -> None:
    wrong = Operator(name="w", images=("w",), function=count, inputs={"/input": "number"}, outputs={"/output": ""})
    with pytest.raises(TypeError, match="don't match its function's parameters"):
        _ = wrong.input_ports
    wrong = Operator(name="w", images=("w",), function=start, inputs={"/input": "source"}, outputs={"/output": ""})
    with pytest.raises(TypeError, match="don't match its result"):
        _ = wrong.output_ports


def test_a_long_chain_is_no_deep_one() -> None:
    steps = [
        f"- {{name: s{k}, container: {{image: toy/count}}, input: [{{from: s{k + 1}, path: /input}}], "
        "output: [{path: /output}]}\n"
        for k in range(1500)
    ]
    last = "- {name: s1500, container: {image: toy/count}, input: [{path: /input}], output: [{path: /output}]}\n"
    text = "api-version: 0.4.0\nname: long\noperators:\n" + "".join(steps) + last
    graph, found = bind(parse_definition(text), TABLE)
    assert found == [] and list(graph.nodes)[:2] == ["s1500", "s1499"]
    (cycle,) = problems(text.replace(last, last.replace("{path: /input}", "{from: s0, path: /input}")))
    assert ": a cycle: s0 -> s1500 -> s1499 -> " in cycle


def test_aliases_that_stand_for_millions_of_nodes_are_refused() -> None:
    text = f"""api-version: 0.4.0
name: bomb
a: &a [{", ".join(["{name: a, port: 1}"] * 200)}]
s: &s {{name: t, container: {{image: i}}, connections: {{http: *a}}}}
o: &o {{name: o, container: {{image: i}}, services: [{", ".join(["*s"] * 200)}]}}
operators: [{", ".join(["*o"] * 200)}]
"""
    assert problems(text)[0] == "1: aliases make more than 100000 nodes of it; a definition has some hundred"


def test_a_number_of_any_length_is_read_or_named() -> None:
    for digits in ("9" * 20, "9" * 5000):
        (problem,) = problems(GOOD.replace("cpu: 2", f"cpu: {digits}"))
        assert problem.startswith("15: 'cpu' of operator 'first' is '999") and "expected a whole number" in problem


def test_a_file_that_is_no_definition_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(BadConfig, match=r"huge\.yaml: has more than 1000000 characters; no definition has"):
        read_text(tmp_path / "huge.yaml")
