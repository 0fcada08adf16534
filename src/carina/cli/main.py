"""The ``carina`` command: finds the verb, turns errors into one line and an exit code."""

from __future__ import annotations

import signal
import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import click

from carina import __version__
from carina.cli.terminal import STOPPED_BY, complain, guarded_streams, told_lines
from carina.errors import CarinaError, told

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Verb(NamedTuple):
    """Where a verb's command lives; its help is here so that ``carina --help`` imports no verb."""

    module: str
    command: str
    help: str


VERBS = {
    "run": Verb("carina.cli.run", "run", "Run the pipeline on a CT series, or on each study of a folder."),
    "view": Verb("carina.cli.view", "view", "Show a finished run in the browser: findings, images, report."),
    "init": Verb("carina.cli.init", "init", "Write a commented settings file for a node."),
    "serve": Verb("carina.cli.serve", "serve", "Run the node: scans arrive, jobs run, results are sent."),
    "health": Verb("carina.cli.health", "health", "Ask the running node whether it can do its work."),
    "series": Verb("carina.cli.series", "series", "List every series below a path and say which would be taken."),
    "convert": Verb("carina.cli.convert", "convert", "Turn DICOM series into NIfTI, MetaImage or NRRD."),
    "pipelines": Verb("carina.cli.pipelines", "pipelines", "List, show and check pipeline definitions."),
    "operator": Verb("carina.cli.operator", "operator", "List operators; run one on folders."),
    "models": Verb("carina.cli.models", "models", "List, check, export and import model bundles."),
    "train": Verb("carina.cli.train", "train", "Train a network from a data list; list the presets."),
    "evaluate": Verb("carina.cli.evaluate", "evaluate", "Measure a bundle on a data list: tables and a report."),
    "cases": Verb("carina.cli.cases", "cases", "Collect masks that readers accepted or corrected, to train on."),
    "synth": Verb("carina.cli.synth", "synth", "Make data to train on: lists from DICOM, synthetic disease, sheets."),
    "submit": Verb("carina.cli.jobs", "submit", "Hand a series to the node's queue."),
    "jobs": Verb("carina.cli.jobs", "jobs", "List, show, cancel and retry the jobs of a node."),
    "worker": Verb("carina.cli.worker", "worker", "Run the jobs of the node's queue."),
    "arrivals": Verb("carina.cli.arrivals", "arrivals", "List series that came in; release what is in quarantine."),
    "deliveries": Verb("carina.cli.deliveries", "deliveries", "Show what became of result objects; send again."),
    "echo": Verb("carina.cli.echo", "echo", "Test destinations and sources: does each answer?"),
    "backup": Verb("carina.cli.backup", "backup", "Save the node while it runs."),
    "restore": Verb("carina.cli.backup", "restore", "Make a node from a backup."),
    "mend": Verb("carina.cli.mend", "mend", "Mend the node's damaged SQLite database, or a backup's."),
    "fetch": Verb("carina.cli.fetch", "fetch", "Fetch CT series from a PACS into the node."),
    "phantom": Verb("carina.cli.phantom", "phantom", "Write a synthetic chest CT with known truth as a DICOM series."),
    "demo": Verb("carina.cli.demo", "demo", "Run the pipeline on a phantom and compare with the known truth."),
}


class Stopped(KeyboardInterrupt):
    """The process was asked to end by a signal; whatever ends well after Ctrl-C ends well after this too."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Verbs(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order of the table, the most used first."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's command."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        command = getattr(import_module(verb.module), verb.command)
        if not isinstance(command, click.Command):
            raise TypeError(f"{verb.module}.{verb.command} is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of verbs without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; what a signal interrupts is told here, before click says it in its own way."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            number = error.number if isinstance(error, Stopped) else signal.SIGINT
            name = signal.Signals(number).name
            complain(f"carina: interrupted ({name}): a run or a training resumes with the same command.")
            raise SystemExit(STOPPED_BY + number) from None


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="carina")
def carina() -> None:
    """Carina, an open chest-CT AI node. For research use only. Not for diagnosis.

    Exit codes: 0 done, 1 a fault of Carina's, 2 wrong usage, 3 the input can't be used, 4 a setting, definition or
    output place is wrong, 5 a network or a check of ours failed, 6 a destination could not be reached.
    """


def main() -> None:
    """Run the command line: the one place where errors are caught and pydicom's remarks on odd headers silenced."""
    warnings.filterwarnings("ignore", module="pydicom")
    _hear_signals()
    with guarded_streams():
        sys.exit(_run())


def _run() -> int:
    places: list[Path] = []
    try:
        code = carina.main(standalone_mode=False, obj=places)
    except click.ClickException as error:
        complain(_misused(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the command line is where every error ends, a bug too
        failure = _database_trouble(error) or told(error, places)
        complain(*told_lines(failure, f"carina: {failure.message}"))
        return failure.exit_code
    return code if isinstance(code, int) else 0


def _database_trouble(error: Exception) -> CarinaError | None:
    """An error of the node's database that is no fault of Carina's; what errors there are is imported only then."""
    if not type(error).__module__.startswith(("sqlalchemy", "sqlite3")):
        return None
    from carina.database import outage_of

    return outage_of(error, "the node's folder")


def _misused(error: click.ClickException) -> str:
    """What is wrong with a command line, in one line."""
    verb = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else "carina"
    return f"{verb}: {error.format_message()} `{verb} --help` says what it takes."


def _hear_signals() -> None:
    """Let a signal that would kill the process end it as Ctrl-C does; nohup ignores SIGHUP, and so that stays."""
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)


def _stop(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # some senders signal twice, and what was begun is being ended
    raise Stopped(number)


if __name__ == "__main__":  # torchrun -m carina.cli.main train ...
    main()
