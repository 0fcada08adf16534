"""The error tree: one line for each error, and a boundary that tells every exception."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carina import errors
from carina.errors import LONGEST_TRACE, BadConfig, BadSeries, Bug, CarinaError, fault_of_others, one_line, told

ANY_TEXT = st.text(st.characters(exclude_categories=()))
"""Every code point, lone surrogates and control characters too."""


def raised(error: Exception) -> Exception:
    """The error with a traceback, as a boundary meets it."""
    try:
        raise error
    except type(error) as caught:
        return caught


@given(ANY_TEXT)
def test_a_text_from_outside_is_one_line_that_can_be_printed(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in line)
    line.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Thorax 1.0", "Thorax 1.0"),
        ("T\u00e9te\u0301, \u80f8\u90e8", "T\u00e9te\u0301, \u80f8\u90e8"),
        ("a\tb\r\nc", "a b c"),
        ("\x1b[31mred", " [31mred"),
        ("left\u202etfel", "left tfel"),
        ("caf\udce9", "caf\\udce9"),
    ],
)
def test_what_is_printable_stays(text: str, line: str) -> None:
    assert one_line(text) == line


@given(ANY_TEXT, st.lists(ANY_TEXT, max_size=3))
def test_a_message_has_the_lines_that_it_was_given(text: str, more: list[str]) -> None:
    error = BadConfig("config.invalid", text, *more)
    assert error.message.count("\n") == len(more)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, copy.message, str(copy)) == (error.code, error.message, error.message)


def test_what_nobody_foresaw_is_a_fault_of_ours() -> None:
    bug = told(raised(ValueError("bad\nnumber \x1b[2J" + "9" * 1000)))
    assert isinstance(bug, Bug)
    assert (bug.code, bug.exit_code) == ("bug.ValueError", 1)
    assert bug.message.startswith("this is a fault of Carina's (ValueError at test_errors:")
    assert bug.said.startswith("bad number  [2J999") and len(bug.said) < 400
    assert "please report it at" in bug.message
    assert "CARINA_TRACEBACK=1 prints the traceback" in bug.message
    assert len(bug.message) < 600
    assert "in raised\n    raise error\nValueError: bad\n" in bug.trace


JANE = "DOE^JANE"


class Speechless(Exception):
    """Can't say its text."""

    def __str__(self) -> str:
        raise LookupError(JANE)


def chained() -> Exception:
    try:
        try:
            raise KeyError(JANE)
        except KeyError as error:
            raise ValueError(f"of {JANE}") from error
    except ValueError as error:
        error.add_note(JANE)
        return error


NAMING = {
    "a text": ValueError(f"patient {JANE}"),
    "a key": KeyError(JANE),
    "an error of the system without a number": OSError(JANE),
    "words in place of the system's": OSError(errno.EIO, JANE),
    "a full disk": OSError(errno.ENOSPC, JANE),
    "bytes": UnicodeDecodeError("ascii", JANE.encode() + b"\xe9", 8, 9, JANE),
    "several": ExceptionGroup(JANE, [ValueError(JANE)]),
    "the end of the process": SystemExit(JANE),
    "what led to it": chained(),
    "none": Speechless(JANE),
    "an assertion": AssertionError(JANE),
    "memory": MemoryError(JANE),
}


@pytest.mark.parametrize("kind", NAMING)
def test_what_a_strangers_exception_says_is_in_its_traceback_alone(kind: str) -> None:
    error = NAMING[kind]
    failures: list[CarinaError] = [fault_of_others(error, "operator 'x'")]
    if isinstance(error, Exception):
        failures += [told(error), told(error, [Path("/out")]), told(error, kept="the log"), Bug.of(error)]
    for failure in failures:
        assert "DOE" not in f"{failure} {failure!r} {failure.places}"
        for told_in in [failure.message, failure.places] if failure.trace else []:
            assert type(error).__name__ in told_in
    assert kind == "none" or JANE in failures[0].trace


def test_a_traceback_of_any_length_is_kept_within_bounds() -> None:
    trace = told(ValueError("the beginning " + "x" * 3 * LONGEST_TRACE + " the end"), ()).trace
    assert len(trace) < LONGEST_TRACE + 100
    assert "the beginning" in trace and trace.endswith("the end\n") and "characters were left out here" in trace


def test_a_bug_says_where_its_traceback_lies() -> None:
    bug = told(raised(KeyError("x")), kept=Path("OUT/traceback.txt"))
    assert "OUT/traceback.txt has the traceback" in bug.message


def test_the_address_is_that_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class Metadata:
        def get_all(self, name: str) -> list[str]:
            assert name == "Project-URL"
            return ["Homepage, https://example.org", "Issues, https://example.org/issues"]

    monkeypatch.setattr("importlib.metadata.metadata", lambda name: Metadata())
    assert errors.tracker() == "https://example.org/issues"


def test_an_error_of_the_tree_stays_itself() -> None:
    error = BadSeries("series.gap", "two slices are missing")
    assert told(error) is error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/in/a.dcm"), "input.unreadable", "/in/a.dcm: can't be re"),
        (OSError(errno.EIO, "Input/output error", b"in/caf\xe9"), "input.unreadable", r"in/caf\udce9: can't be read"),
        (PermissionError(errno.EACCES, "Permission denied", "/out/run/x"), "output.unwritable", "/out/run/x: can't be"),
        (PermissionError(errno.EACCES, "Permission denied", "/out"), "output.unwritable", "/out: can't be written"),
        (OSError(errno.EROFS, "Read-only file system", "/in/x"), "output.unwritable", "Read-only file system"),
        (OSError(errno.ENOSPC, "No space left on device"), "output.disk-full", "/out/run: no space left"),
        (OSError("a text and no number"), "output.unwritable", "(OSError)"),
        (MemoryError(), "node.memory", "memory of this machine did not suffice"),
    ],
)
def test_an_error_of_the_system_is_the_senders_or_the_nodes(error: Exception, code: str, words: str) -> None:
    told_as = told(error, [Path("/out/run")])
    assert told_as.code == code
    assert words in told_as.message


def test_without_an_output_an_error_without_a_name_is_the_inputs() -> None:
    assert isinstance(told(OSError(errno.EIO, "Input/output error")), BadSeries)


def test_every_class_has_an_exit_code_of_its_own() -> None:
    ending = [kind for kind in CarinaError.__subclasses__() if kind.__module__ == CarinaError.__module__]
    codes = [kind.exit_code for kind in ending]
    assert len(codes) == 5
    assert sorted(codes) == sorted(set(codes))
