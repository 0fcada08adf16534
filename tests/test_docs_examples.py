"""What the pages show is what a reader gets: every Python block runs, every command line is one that is understood."""

from __future__ import annotations

import builtins
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

import carina.testing.triton
from carina.cli.main import carina as command
from carina.config import load_settings
from carina.models.bundle import Spec
from carina.models.validation import Validation
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.ports import free_port

ROOT = Path(__file__).resolve().parents[1]

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md", *sorted(ROOT.glob("docs/*.md"))]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page; ``line`` is that of its first line."""

    page: Path
    language: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in FENCE.finditer(text):
            if found[1] in languages:
                line = text.count("\n", 0, found.start(2)) + 1
                yield Block(page=page, language=found[1], text=found[2], line=line)


# Python


OWN_TESTS = {ROOT / "README.md", ROOT / "docs" / "pipelines.md"}
"""Pages whose own tests run their Python and look at what comes of it as well."""

WITH_PYTHON = sorted({block.page for block in blocks("python")} - OWN_TESTS)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to be in, with a series in ``STUDY``, as the pages call it."""
    folder = tmp_path_factory.mktemp("docs")
    write_ct_series(chest_phantom(shape=(48, 192, 192), seed=3).volume, folder / "STUDY")
    return folder


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From top to bottom, as in one session, beside a folder STUDY."""
    monkeypatch.chdir(study)
    monkeypatch.setattr(builtins, "input", lambda prompt="": "")
    monkeypatch.setattr(carina.testing.triton, "tritonserver", on_free_ports(carina.testing.triton.tritonserver))
    names: dict[str, Any] = {"__name__": "session"}
    for block in (block for block in blocks("python") if block.page == page):
        try:
            # Lines are counted as in the page, so that a traceback leads there.
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
        except (RuntimeError, ModuleNotFoundError) as error:
            if "not installed" not in str(error) or os.environ.get("CI") == "true":
                raise
            pytest.skip(f"{block}: {error}")


def on_free_ports(server: Any) -> Any:
    """The Triton server on ports that nobody else has, whatever the page says."""

    def started(repository: Path, **named: Any) -> Any:
        return server(repository, **{**named, "ports": (free_port(), free_port())})

    return started


# Command lines

INLINE = re.compile(r"`((?:[\w./]*/)?carina (?!operator run`)[a-z][^`]*)`")

OPERATORS = {"|", "||", "&&", ";", ">", ">>", "2>", "<"}


def command_lines() -> Iterator[tuple[str, str]]:
    """Every call of ``carina`` in the pages: place and line, those in running text too."""
    for block in blocks("", "sh", "bash", "console"):
        for number, line in enumerate(block.text.replace("\\\n", " ").splitlines()):
            if re.match(r"(\$ )?([A-Z_]+=\S+ )*([\w./]*/)?carina ", line):
                yield f"{block.page.name}:{block.line + number}", line.removeprefix("$ ")
    for page in PAGES:
        text = FENCE.sub(lambda found: "\n" * found[0].count("\n"), page.read_text(encoding="utf-8"))
        for found in INLINE.finditer(text):
            yield f"{page.name}:{text.count(chr(10), 0, found.start()) + 1}", found[1].replace("\\|", "|")


def words_of(line: str) -> list[str]:
    """The words after ``carina``, without the description behind two spaces, a shell's operators, and brackets."""
    line = re.split(r" {2,}|\s#", line.strip())[0]
    words = []
    for word in shlex.split(line):
        if word in OPERATORS:
            break
        words.append(word)
    start = next(k for k, word in enumerate(words) if word.rpartition("/")[2] == "carina")
    bare = [re.sub(r"^\[(?=-)|(?<!\[.)\]$", "", word) if "=" not in word else word for word in words[start + 1 :]]
    return [word for word in bare if word not in ("...", "\u2026")]


def understood(words: list[str]) -> None:
    """Check that the words lead to a command that knows its options and has its arguments.

    A word in capitals stands for a value, or for any command of a group; any other must be one of an option's choices.

    Raises:
        click.UsageError: they do not.
    """
    one, context, words = followed(words)
    if not words:
        return  # `carina train` in a sentence names the verb
    given, rest, _ = one.make_parser(context).parse_args(list(words))
    if rest:
        raise click.UsageError(f"{rest} are more than {one.name!r} takes", context)
    for parameter in one.params:
        check_parameter(parameter, given.get(parameter.name or ""), context)


def followed(words: list[str]) -> tuple[click.Command, click.Context, list[str]]:
    """The command that words lead to through the groups, and what is left of them."""
    one: click.Command = command
    context = click.Context(command, info_name="carina")
    while isinstance(one, click.Group) and words and not words[0].startswith("-"):
        name = one.list_commands(context)[0] if words[0].isupper() else words[0]
        found = one.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no command is called {name!r}", context)
        one, context, words = found, click.Context(found, parent=context, info_name=name), words[1:]
    return one, context, words


def check_parameter(parameter: click.Parameter, value: Any, context: click.Context) -> None:
    if parameter.required and not value:
        raise click.MissingParameter(ctx=context, param=parameter)
    if isinstance(parameter.type, click.Choice) and value and not str(value).isupper():
        for word in value if isinstance(value, (list, tuple)) else str(value).split("|"):
            parameter.type.convert(word, parameter, context)


LINES = list(command_lines())


@pytest.mark.parametrize(("place", "line"), LINES, ids=[place for place, _ in LINES])
def test_a_command_line_is_understood(place: str, line: str) -> None:
    try:
        understood(words_of(line))
    except click.ClickException as error:
        pytest.fail(f"{place}: {line}\n{error.format_message()}")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("carina walk STUDY", "no command is called 'walk'"),
        ("carina run STUDY --out RUN --fast", "--fast"),
        ("carina run STUDY", "out"),
        ("carina run STUDY OTHER -o RUN", "more than 'run' takes"),
        ("carina convert SOURCE -o FOLDER --format dicom", "dicom"),
        ("carina convert SOURCE -o FOLDER --format nifti|dicom", "dicom"),
    ],
)
def test_a_wrong_command_line_is_found(line: str, why: str) -> None:
    with pytest.raises(click.ClickException) as caught:
        understood(words_of(line))
    assert why in caught.value.format_message()


def test_there_are_command_lines_and_python() -> None:
    """A pattern that finds nothing proves nothing."""
    assert len(LINES) > 30 and {"pipelines.md", "reading.md", "training.md"} <= {
        place.split(":")[0] for place, _ in LINES
    }
    assert {page.name for page in WITH_PYTHON} >= {"inference.md", "phantom.md"}


# Files


@pytest.mark.parametrize("block", list(blocks("toml")), ids=str)
def test_toml_is_toml_and_settings_are_settings(block: Block, tmp_path: Path) -> None:
    if "runtime" in tomllib.loads(block.text):
        (tmp_path / "carina.toml").write_text(block.text, encoding="utf-8")
        assert load_settings(tmp_path / "carina.toml", {}).runtime.timeout_s == 60.0


@pytest.mark.parametrize("block", list(blocks("json")), ids=str)
def test_json_is_json_and_bundles_are_bundles(block: Block) -> None:
    text = block.text.strip()
    tree = json.loads(text if text.startswith("{") else f"{{{text}}}")
    if "carina" in tree and isinstance(tree["carina"], dict):
        msgspec.convert(tree["carina"], Spec, strict=False)
    if "validation" in tree and isinstance(tree["validation"], dict):
        msgspec.convert(tree["validation"], Validation)
