"""The error tree: the class says who must act, the code says what happened.

Codes are stable and dotted (``series.gap``); scripts may rely on them and on the exit codes below.
A message names what was seen, what was expected and what to do; it never names a patient.
"""

from __future__ import annotations

import errno
import os
import re
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, TypeVar

DISTRIBUTION = "carina-ct"
"""The name under which Carina is installed; its metadata say where faults are reported."""

MOST_OF_A_TEXT = 300
"""Characters that are kept of a foreign exception's text."""

LONGEST_LINE = 1000
MOST_LINES = 50
"""What an error tells at most: a stranger's text may be endless, and a list of mistakes too."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
DATABASE_DAMAGED = "node.database-damaged"
OF_DATABASE = "of_database"
"""What an error of SQLite's has its database's file under, where that is a node's."""

_DAMAGED = (11, 26)
"""``SQLITE_CORRUPT`` and ``SQLITE_NOTADB``; their module is loaded only where there is a database."""

_SAID_OF_DAMAGE = ("no such table", "no such column", "Could not decode")
"""How it is said of what is missing, or is no text, in a database of today's schema."""

ONLY_WHILE_WRITING = FULL | {errno.EROFS, errno.EFBIG}

SAID_AGAIN_S = 600.0
"""After so long, trouble that lasts is said again."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]+")
"""Control characters, line separators, and marks that turn the direction of writing."""


def one_line(text: str) -> str:
    """A text from outside as it may be printed: nothing in it moves the cursor, breaks the line or can't be encoded.

    Control characters become a space, and bytes of a file name that are no text (lone surrogates) an escape.
    """
    return _UNPRINTABLE.sub(" ", text).encode("utf-8", "backslashreplace").decode("utf-8")


def shortened(line: str, most: int = LONGEST_LINE) -> str:
    """A line with its middle left out where it is too long: both ends say what it is about."""
    half = most // 2
    return line if len(line) <= most else f"{line[:half]} ... {line[-half:]}"


class CarinaError(Exception):
    """Root of every error that Carina raises on purpose.

    ``code`` is a stable dotted word; ``exit_code`` is what the command line ends with. ``message`` is one line, and one
    more for each of ``more``, which lists what was found: mistakes of a file, problems of a data list.
    """

    exit_code: ClassVar[int] = 1
    trace: str = ""
    """The traceback as text, of what nobody raised on purpose; no frame, and no volume in it, is kept alive."""
    places: str = ""
    """The same without what the exceptions say, which may quote a patient's data: for logs."""
    said: str = ""
    """What a stranger's exception or program said, in a line: for who sits at the terminal, and kept nowhere else."""

    def __init__(self, code: str, message: str, *more: str) -> None:
        self.code = code
        lines = [shortened(one_line(line)) for line in (message, *more)]
        left = len(lines) - MOST_LINES
        told = [*lines[:MOST_LINES], f"and {left} more."] if left > 0 else lines
        self.message = "\n".join(told)
        super().__init__(self.message)

    def __reduce__(self) -> tuple[type[CarinaError], tuple[str, ...]]:
        """Keep the code when the error crosses a process border."""
        return type(self), (self.code, *self.message.split("\n"))


class BadSeries(CarinaError):
    """The input can't be used as it is: whoever sent it must act. Exit code 3."""

    exit_code = 3


class BadConfig(CarinaError):
    """A setting, definition, bundle or output place is wrong: the node's operator must act. Exit code 4."""

    exit_code = 4


class ModelFailed(CarinaError):
    """A network, an operator of others or one of our own checks failed: the makers must act. Exit code 5."""

    exit_code = 5


class DeliveryFailed(CarinaError):
    """A destination could not take a result: it can be tried again later. Exit code 6."""

    exit_code = 6


class Bug(CarinaError):
    """A fault of Carina's own: an exception that nobody raised on purpose, as a boundary tells it. Exit code 1.

    The code is ``bug.`` and the exception's name.
    """

    exit_code = 1

    @classmethod
    def of(cls, error: Exception, kept: Path | str | None = None) -> Bug:
        """What an exception is told as; ``kept`` is what has its traceback, as a file, where anything has."""
        words = f"this is a fault of Carina's ({kind_and_place(error)}): please report it at {tracker()}"
        bug = cls(f"bug.{type(error).__name__}", f"{words}, with what carina --version says; {_seen(kept)}.")
        return with_traces(bug, error)


def fault_of_others(error: BaseException, operator: str, kept: Path | None = None) -> ModelFailed:
    """What an exception is told as that an operator of others raised; ``operator`` names it and its package."""
    return with_traces(raised_by(operator, kind_and_place(error), kept), error)


def raised_by(operator: str, what: str, kept: Path | None) -> ModelFailed:
    """The same of an exception of which kind and place are known."""
    words = f"{operator} failed ({what}), which is no fault of Carina's: please report it to its makers"
    return ModelFailed("operator.raised", f"{words}; {_seen(kept)}.")


class WrongType(TypeError):
    """A value is of another type than was declared; in words of ours, which quote no data."""


def kind_and_place(error: BaseException) -> str:
    """An exception's kind and the place it came from; what it says may quote a patient's data, and is told nowhere."""
    if isinstance(error, WrongType):
        return str(error)
    frames = [(frame.f_globals.get("__name__", "?"), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    kind = type(error).__name__
    return f"{kind} at {frames[-1][0]}:{frames[-1][1]}" if frames else kind


Failing = TypeVar("Failing", bound=CarinaError)


def with_traces(failure: Failing, error: BaseException) -> Failing:
    """The failure, with the traces and the words of the exception that it tells of."""
    failure.trace, failure.places = _bounded("".join(traceback.format_exception(error))), without_words(error)
    return with_words(failure, error)


def with_words(failure: Failing, error: BaseException) -> Failing:
    """The failure, with the words of the exception that it tells of beside its message, since they may quote data."""
    failure.said = said_by(error)
    return failure


def said_by(error: BaseException) -> str:
    """The beginning of an exception's text, in a line: it may quote a patient's data, and is shown at a terminal only.

    An exception that can't even say its text has none.
    """
    with suppress(Exception):
        text = one_line(str(error)).strip()
        return text if len(text) <= MOST_OF_A_TEXT else f"{text[:MOST_OF_A_TEXT]} ..."
    return ""


def _seen(kept: Path | str | None) -> str:
    return f"{kept} has the traceback" if kept else "CARINA_TRACEBACK=1 prints the traceback"


LONGEST_TRACE = 1_000_000
"""Characters of a traceback that are kept, half of its beginning and half of its end: messages have any length."""


def _bounded(trace: str) -> str:
    half = LONGEST_TRACE // 2
    cut = len(trace) - LONGEST_TRACE
    return f"{trace[:half]}\n({cut} characters were left out here.)\n{trace[-half:]}" if cut > 0 else trace


def without_words(error: BaseException) -> str:
    """The traceback of an exception and of what led to it, with their kinds and without what they say."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and all(following is not one for one in chain):
        chain.append(following)
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
    told_each = ["".join([*traceback.format_tb(one.__traceback__), type(one).__name__]) for one in reversed(chain)]
    return _bounded("\nand then\n".join(told_each))


def keep_trace(failure: CarinaError, file: Path) -> bool:
    """Write a failure's traceback into a file; False where there is none or it can't be."""
    if not failure.trace:
        return False
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(failure.trace, encoding="utf-8", errors="backslashreplace")
    except OSError:
        return False
    return True


def tracker() -> str:
    """Where faults are reported, as the installed package says it."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        places = metadata(DISTRIBUTION).get_all("Project-URL") or []
    except PackageNotFoundError:
        places = []
    named = dict(place.split(", ", 1) for place in places if ", " in place)
    return next((url for name, url in named.items() if "issue" in name.lower()), "the project's issue tracker")


def told(error: Exception, outputs: Iterable[Path] = (), *, kept: Path | str | None = None) -> CarinaError:
    """Any exception as an error of the tree, for the boundaries: the run, a study of a cohort, the command line.

    ``outputs`` are the places that were being written, so that an error of the operating system is the sender's or the
    node's. What nobody foresaw is a ``Bug``; ``kept`` is as in ``Bug.of``.
    """
    if isinstance(error, CarinaError):
        return error
    if isinstance(error, OSError):
        return _of_the_system(error, tuple(outputs))
    if (damage := _damage_of_database(error)) is not None:
        return damage
    if isinstance(error, MemoryError):
        return BadConfig("node.memory", "the memory of this machine did not suffice: free some, or use a larger one.")
    return Bug.of(error, kept)


def _damage_of_database(error: BaseException) -> BadConfig | None:
    """What a statement met in a node's SQLite that a healthy one never says; it holds neither statement nor values."""
    cause = getattr(error, "orig", error)
    if not (file := getattr(cause, OF_DATABASE, "")):
        return None
    said, code = one_line(str(cause)).strip(), getattr(cause, "sqlite_errorcode", 1) & 0xFF
    return damaged_database(file, said) if code in _DAMAGED or said.startswith(_SAID_OF_DAMAGE) else None


def damaged_database(file: str, said: str) -> BadConfig:
    """That a node's SQLite is damaged, by what SQLite says of it."""
    how = "stop the node, save what is left by carina backup, and restore an earlier backup, or mend it: carina mend"
    return BadConfig(DATABASE_DAMAGED, f"{file}: the node's database is damaged ({said}): {how}.")


def unreadable(error: OSError, path: Path | str) -> BadSeries:
    """What an error of the operating system means that was met while reading an input."""
    return BadSeries("input.unreadable", f"{path}: can't be read ({reason_of(error)}).")


def unwritable(error: OSError, path: Path | str) -> BadConfig:
    """What an error of the operating system means that was met while writing an output."""
    if error.errno in FULL:
        left, remedy = no_space(error)
        return BadConfig("output.disk-full", f"{path}: no space left{left}: {remedy}, then run the same command again.")
    return BadConfig("output.unwritable", f"{path}: can't be written ({reason_of(error)}): choose a folder that can.")


def no_space(error: OSError) -> tuple[str, str]:
    """What is used up where there is no space, if it is a quota, and what to do."""
    return (" within the quota", "make room, or raise the quota") if error.errno == errno.EDQUOT else ("", "make room")


def reason_of(error: OSError) -> str:
    """Why the system refused something, in its own words: those that a stranger gave may quote a patient's data."""
    if type(error).__module__ in ("socket", "ssl"):
        return error.strerror or type(error).__name__
    is_the_systems = error.errno is not None and error.errno in errno.errorcode
    return os.strerror(error.errno or 0) if is_the_systems else type(error).__name__


def _of_the_system(error: OSError, outputs: tuple[Path, ...]) -> CarinaError:
    """An error of the operating system that came up to a boundary: of an output, or else of an input."""
    if not isinstance(error.filename, str | bytes):  # neither a read nor a write of an open file names it
        if outputs or error.errno in ONLY_WHILE_WRITING:
            return unwritable(error, outputs[0] if outputs else "the disk")
        return unreadable(error, "the input")
    name = os.fsdecode(error.filename)
    is_output = error.errno in ONLY_WHILE_WRITING or any(_lie_on_one_path(name, output) for output in outputs)
    return unwritable(error, name) if is_output else unreadable(error, name)


def _lie_on_one_path(name: str, output: Path) -> bool:
    """Whether a path lies below an output, or is a folder above it that could not be made."""
    path, place = Path(os.path.normpath(name)), Path(os.path.normpath(output))
    return path.is_relative_to(place) or place.is_relative_to(path)


class LastingTrouble:
    """What goes wrong again and again while something is tried again and again, as on a full disk.

    It is told when it begins, when it is another, and after every ``SAID_AGAIN_S`` while it lasts.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._told_at: dict[str, float] = {}
        self._since_s: float | None = None

    def is_news(self, words: str) -> bool:
        """Whether to tell it now: it was not told lately in these words, which hold no figure that changes."""
        now = self._clock_s()
        self._told_at = {told: at for told, at in self._told_at.items() if now - at < SAID_AGAIN_S}
        if words in self._told_at:
            return False
        self._told_at[words] = now
        self._since_s = now if self._since_s is None else self._since_s
        return True

    def over(self) -> str:
        """``after N s`` where to tell that it is over: nothing went wrong this time, and what did before was told.

        Empty where there is nothing to tell.
        """
        since, self._since_s = self._since_s, None
        return "" if since is None else f"after {self._clock_s() - since:.0f} s"
