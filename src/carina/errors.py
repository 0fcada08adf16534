"""The error tree: the class says who must act, the code says what happened.

Codes are stable and dotted (``series.gap``); scripts may rely on them and on the exit codes below.
A message names what was seen, what was expected and what to do; it never names a patient.
"""

from __future__ import annotations

from typing import ClassVar


class CarinaError(Exception):
    """Root of every error that Carina raises on purpose.

    ``code`` is a stable dotted word; ``exit_code`` is what the command line ends with.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[CarinaError], tuple[str, str]]:
        """Keep the code when the error crosses a process border."""
        return type(self), (self.code, self.message)


class BadSeries(CarinaError):
    """The input can't be used as it is: whoever sent it must act. Exit code 3."""

    exit_code = 3


class BadConfig(CarinaError):
    """A setting, definition, bundle or output place is wrong: the node's operator must act. Exit code 4."""

    exit_code = 4


class ModelFailed(CarinaError):
    """A network or one of our own checks failed: the makers must act. Exit code 5."""

    exit_code = 5


class DeliveryFailed(CarinaError):
    """A destination could not take a result: it can be tried again later. Exit code 6."""

    exit_code = 6
