"""House limits that the linter does not know, and a guard over those it does.

Usage: house_limits.py FOLDER...: one line for each breach. Sizes and complexity are counted in every folder; names,
imports, broad excepts in ``src``; tests of errors in ``tests``; lines of each version in ``CHANGELOG.md``. A folder
that is not there is a breach.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from house.errors import broad_excepts, wordless_tests
from house.imports import circles, late_imports
from house.names import shared_names
from house.sizes import long_functions, long_modules, long_versions, tangled
from house.sources import Source, allowed, read_sources

LINTER_LIMITS = {
    ("mccabe", "max-complexity"): 10,
    ("pylint", "max-args"): 6,
    ("pylint", "max-positional-args"): 6,
    ("pylint", "max-statements"): 40,
}
LINTER_RULES = {"C90", "PLR0913", "PLR0915", "FBT001", "FBT002", "T20", "D1", "BLE", "ERA"}


def lax_settings(settings: Path) -> Iterator[str]:
    """One sentence for each linter setting that allows more than the house style."""
    lint = tomllib.loads(settings.read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    for (section, key), limit in LINTER_LIMITS.items():
        if lint.get(section, {}).get(key, sys.maxsize) > limit:
            yield f"{settings}: {section}.{key} is {lint.get(section, {}).get(key)}; the house limit is {limit}"
    yield from (f"{settings}: rule {rule} is not selected" for rule in sorted(LINTER_RULES - set(lint["select"])))


def breaches(sources: Sequence[Source], root: Path) -> Iterator[str]:
    """Every breach of every gate, in a sentence."""
    package = [source for source in sources if source.path.startswith("src/")]
    tests = [source for source in sources if source.path.startswith("tests/")]
    reasons = allowed(root)
    yield from lax_settings(root / "pyproject.toml")
    yield from long_modules(sources)
    yield from tangled(sources)
    yield from long_functions(package)
    yield from shared_names(package, reasons.get("shared-names", {}))
    yield from late_imports(package, reasons.get("late-imports", {}))
    yield from broad_excepts(package, reasons.get("broad-excepts", {}))
    yield from wordless_tests(tests)
    yield from long_versions(root / "CHANGELOG.md")
    if (root / "src" / "carina").is_dir():
        yield from circles(root)


def ratio(sources: Sequence[Source]) -> str:
    """Lines of code in tests for each line in the package, in words."""
    tests, package = (
        sum(source.code_lines for source in sources if source.path.startswith(folder)) for folder in ("tests/", "src/")
    )
    return f"{tests} lines of tests, {package} of the package: {tests / max(package, 1):.2f}"


def main(folders: list[str], root: Path = Path()) -> int:
    """Print every breach and give the exit code."""
    try:
        sources = read_sources(root, folders)
    except ValueError as error:
        print(f"house_limits: {error}")
        return 1
    problems = list(breaches(sources, root))
    for problem in problems:
        print(problem)
    print(ratio(sources))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
