"""What is kept out of training: lists it with its uses, or runs a command on some of it and counts that in a log.

    scripts/held-out                                        # names, since when, how often used
    scripts/held-out use lctsc-s1-201 acrin-flt-001-chest --why "lungs 0.5.0 against outlines" -- COMMAND ...

Every use is a line of ``research/held-out.csv`` before the command runs: names, day, commit, why, command. What is used
a second time, or a choice falls by, is no test set any more: move it to ``development`` in held_out.json. For
research use only. Not for diagnosis.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from carina.cases.held_out import held_out, kept_for_tests

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / "research" / "held-out.csv"
COLUMNS = ("day", "commit", "name", "why", "command")


def uses(log: Path = LOG) -> Counter[str]:
    """How often each name was used."""
    if not log.is_file():
        return Counter()
    with log.open(newline="", encoding="utf-8") as file:
        return Counter(row["name"] for row in csv.DictReader(file))


def count_use(names: Sequence[str], why: str, command: Sequence[str], log: Path = LOG) -> None:
    """Write a line for each name.

    Raises:
        ValueError: a name is not kept out of training, or there is no reason.
    """
    known = [one.name for one in held_out()]
    unknown = [name for name in names if name not in known]
    if unknown or not why.strip():
        said = f"not kept out of training: {', '.join(unknown)}" if unknown else "--why is empty"
        raise ValueError(f"{said}; known are {', '.join(known)}, and every use needs its reason")
    done = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    day, commit = datetime.now(UTC).date().isoformat(), done.stdout.strip() or "unknown"
    is_new = not log.is_file()
    with log.open("a", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        if is_new:
            table.writerow(COLUMNS)
        table.writerows((day, commit, name, why, " ".join(command)) for name in names)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments; list, or count and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="what")
    use = parts.add_parser("use", help="count a use, then run the command after --")
    use.add_argument("names", nargs="+")
    use.add_argument("--why", required=True)
    given = list(sys.argv[1:] if arguments is None else arguments)
    cut = given.index("--") if "--" in given else len(given)
    args, command = parser.parse_args(given[:cut]), given[cut + 1 :]
    if args.what is None:
        counted, tests = uses(), kept_for_tests()
        for one in held_out():
            purpose = "kept for tests" if one in tests else "for development"
            words = f"{purpose}, used {counted[one.name]} times; before: {one.before}"
            print(f"{one.name} ({one.kind}, since {one.since}): {words}")
        if not tests:
            print("Nothing is kept for tests: no figure comes from a set that was left untouched.")
        return 0
    if not command:
        parser.error("no command after --")
    try:
        count_use(args.names, args.why, command)
    except ValueError as error:
        parser.error(str(error))
    return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
