"""``carina`` as it is typed, without a new process: imports take longer than most of what a verb does."""

from __future__ import annotations

import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from contextvars import copy_context
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

from carina.cli.main import _run


def called(*words: str, folder: Path) -> CompletedProcess[str]:
    """What the command line says and how it ends, called in a folder.

    Who it acts for is forgotten afterwards. A verb that takes signals or starts the log needs a process of its own.
    """
    out, err = StringIO(), StringIO()
    with chdir(folder), redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", ["carina", *words]):
        try:
            code = copy_context().run(_run)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return CompletedProcess(words, code, out.getvalue(), err.getvalue())
