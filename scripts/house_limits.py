"""House limits that the linter does not know, and a guard over those it does.

Usage: house_limits.py FOLDER...: fails on a module of more than 400 lines, on linter settings that are laxer than the
house style, and when it finds no module at all.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

MODULE_LINES = 400
LINTER_LIMITS = {
    ("mccabe", "max-complexity"): 10,
    ("pylint", "max-args"): 6,
    ("pylint", "max-positional-args"): 6,
    ("pylint", "max-statements"): 40,
}
LINTER_RULES = {"C90", "PLR0913", "PLR0915", "FBT001", "FBT002", "T20", "D1", "BLE", "ERA"}


def long_modules(files: list[Path]) -> list[str]:
    """One sentence for each module that has too many lines."""
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    return [
        f"{file}: {count} lines; a module has at most {MODULE_LINES}, split it by idea"
        for file, count in lengths.items()
        if count > MODULE_LINES
    ]


def lax_settings(settings: Path) -> list[str]:
    """One sentence for each linter setting that allows more than the house style."""
    lint = tomllib.loads(settings.read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    found = [
        f"{settings}: {section}.{key} is {lint.get(section, {}).get(key)}; the house limit is {limit}"
        for (section, key), limit in LINTER_LIMITS.items()
        if lint.get(section, {}).get(key, sys.maxsize) > limit
    ]
    return found + [f"{settings}: rule {rule} is not selected" for rule in sorted(LINTER_RULES - set(lint["select"]))]


def main(folders: list[str], root: Path = Path()) -> int:
    """Print every breach and give the exit code."""
    files = sorted(file for folder in folders for file in (root / folder).rglob("*.py"))
    if not files:
        print(f"house_limits: no Python module below {', '.join(folders) or 'no folder at all'}; nothing was checked")
        return 1
    problems = long_modules(files) + lax_settings(root / "pyproject.toml")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
