"""The gates fail when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def house_limits(root: Path, *folders: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "house_limits.py"), *folders]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    write(tmp_path, "src/short.py", "value = 1\n" * 400)
    write(tmp_path, "CHANGELOG.md", "# Changelog\n\n## 0.1.0\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def allow(root: Path, table: str, row: str) -> None:
    write(root, "scripts/house.toml", f'[{table}]\n"{row}" = "a reason"\n')


def test_a_short_module_passes(project: Path) -> None:
    said = house_limits(project, "src")
    assert said.returncode == 0 and said.stdout == "0 lines of tests, 400 of the package: 0.00\n"


def test_a_long_module_fails(project: Path) -> None:
    write(project, "src/long.py", "value = 1\n" * 401)
    said = house_limits(project, "src")
    assert said.returncode == 1
    assert "long.py: 401 lines; a module has at most 400, split it by idea" in said.stdout


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (
            "- It is new.\n" * 250,
            "version 0.1.0: 251 lines; at most 250, what changed since the version before; take out what a merge "
            "brought back",
        ),
        ("### Fixed\n" * 2, "version 0.1.0: '### Fixed' stands there twice"),
    ],
)
def test_a_version_that_tells_how_it_came_about_fails(project: Path, entries: str, said: str) -> None:
    fits = "# Changelog\n\n## 0.2.0\n### Fixed\n\n## 0.1.0\n"
    write(project, "CHANGELOG.md", fits + "- It is new.\n" * 249)
    assert house_limits(project, "src").returncode == 0
    write(project, "CHANGELOG.md", fits + entries)
    found = house_limits(project, "src")
    assert found.returncode == 1 and f"CHANGELOG.md: {said}\n" in found.stdout


def test_a_changelog_that_is_not_there_fails(project: Path) -> None:
    (project / "CHANGELOG.md").unlink()
    found = house_limits(project, "src")
    assert found.returncode == 1 and "CHANGELOG.md: it is not there; nothing was checked" in found.stdout


@pytest.mark.parametrize("folders", [["nowhere"], ["src", "nowhere"], ["src", "empty"]])
def test_a_folder_that_is_not_there_or_empty_fails(project: Path, folders: list[str]) -> None:
    (project / "empty").mkdir()
    said = house_limits(project, *folders)
    assert said.returncode == 1
    assert f"no Python file below {folders[-1]}; nothing was checked" in said.stdout


def test_no_folder_at_all_fails(project: Path) -> None:
    said = house_limits(project)
    assert said.returncode == 1 and "no folder was named; nothing was checked" in said.stdout


def test_a_laxer_linter_fails(project: Path) -> None:
    settings = project / "pyproject.toml"
    settings.write_text(
        settings.read_text().replace("max-statements = 40", "max-statements = 90").replace('"BLE", ', "")
    )
    said = house_limits(project, "src")
    assert "pylint.max-statements is 90; the house limit is 40" in said.stdout
    assert "rule BLE is not selected" in said.stdout


def test_boolean_operators_are_branches(project: Path) -> None:
    tangled = "def tangled(x: int) -> bool:\n    return " + " or ".join(f"x == {n}" for n in range(11)) + "\n"
    write(project, "tests/test_one.py", tangled)
    said = house_limits(project, "src", "tests")
    assert said.returncode == 1
    assert "tests/test_one.py:1: function tangled has a complexity of 11 with boolean operators counted" in said.stdout
    write(project, "tests/test_one.py", tangled.replace(" or x == 10", ""))
    assert house_limits(project, "src", "tests").returncode == 0


BROAD = "try:\n    number = 1\nexcept Exception:\n    pass\n"
LATE = "def late() -> None:\n    import carina.errors\n"
LONG = "def long() -> None:\n" + "    print()\n" * 25

BREACHES = {
    "a name twice": (
        {"src/one.py": "KEY = 1\n", "src/two.py": "KEY, other = 2, 3\n"},
        "KEY is defined in src/one.py, src/two.py",
        "shared-names",
        "src/*:KEY",
    ),
    "a late import": ({"src/one.py": LATE}, "src/one.py:2: imports carina's own modules", "late-imports", "src/one.py"),
    "a broad except": ({"src/one.py": BROAD}, "src/one.py:3: catches every error", "broad-excepts", "src/one.py"),
}


@pytest.mark.parametrize(("files", "words", "table", "row"), BREACHES.values(), ids=BREACHES)
def test_a_breach_fails_unless_it_has_a_reason(
    project: Path, files: dict[str, str], words: str, table: str, row: str
) -> None:
    for name, text in files.items():
        write(project, name, text)
    said = house_limits(project, "src")
    assert said.returncode == 1 and words in said.stdout
    allow(project, table, row)
    assert house_limits(project, "src").returncode == 0
    for name in files:
        write(project, name, "value = 1\n" if name == "src/one.py" else "another = 1\n")
    write(project, "src/short.py", "")
    said = house_limits(project, "src")
    assert said.returncode == 1 and f"{table} allows '{row}', which nothing needs; strike it" in said.stdout


def test_a_late_import_is_allowed_by_file_and_not_by_pattern(project: Path) -> None:
    """A pattern would cover whoever comes to the room next."""
    write(project, "src/one.py", LATE)
    allow(project, "late-imports", "src/*.py")
    said = house_limits(project, "src")
    assert said.returncode == 1
    assert "src/one.py:2: imports carina's own modules inside a function" in said.stdout
    assert "late-imports allows 'src/*.py', which nothing needs; strike it" in said.stdout


def test_too_many_long_functions_fail(project: Path) -> None:
    write(project, "src/one.py", LONG + "".join(f"def f{n}() -> None:\n    print()\n" for n in range(19)))
    assert house_limits(project, "src").returncode == 0  # one in twenty
    write(project, "src/two.py", LONG.replace("long", "longer"))
    said = house_limits(project, "src")
    assert said.returncode == 1 and "2 of 21 functions have more than 25 lines" in said.stdout


def test_errors_without_their_words_fail(project: Path) -> None:
    test = "def test_it() -> None:\n    with pytest.raises(ValueError{}):\n        run()\n"
    write(project, "tests/test_one.py", test.format(""))
    said = house_limits(project, "src", "tests")
    assert said.returncode == 1 and "1 of 1 tests expect an error and not its words" in said.stdout
    write(project, "tests/test_one.py", test.format(", match='no'"))
    said = house_limits(project, "src", "tests")
    assert said.returncode == 0 and "3 lines of tests, 400 of the package: 0.01" in said.stdout


def test_comments_and_docstrings_are_no_code(project: Path) -> None:
    text = '"""What it is.\n\nAt length.\n"""\n\n# Why.\nvalue = (\n    1\n)\n'
    write(project, "src/short.py", text)
    assert "0 lines of tests, 3 of the package" in house_limits(project, "src").stdout


def test_files_that_import_each_other_fail(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src" / "carina", tmp_path / "src" / "carina", ignore=_no_weights)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    grid = tmp_path / "src" / "carina" / "volume" / "arrays.py"
    grid.write_text(grid.read_text() + "\nfrom carina.volume.grid import Grid  # noqa\n")
    lower = tmp_path / "src" / "carina" / "volume" / "grid.py"
    lower.write_text(lower.read_text() + "\nfrom carina.volume.arrays import Box  # noqa\n")
    said = house_limits(tmp_path, "src")
    assert said.returncode == 1
    assert (
        "import each other in a circle: carina.volume.arrays -> carina.volume.grid, carina.volume.grid" in said.stdout
    )


def test_an_import_upwards_fails(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("lint-imports")
    if not program.exists():
        pytest.skip("import-linter is not installed; scripts/setup train,test,check installs it")
    package = shutil.copytree(ROOT / "src" / "carina", tmp_path / "src" / "carina", ignore=_no_weights)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (package / "volume" / "wrong.py").write_text("import carina.measure.ratio\n")
    said = subprocess.run(
        [program], cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(tmp_path / "src")}
    )
    assert said.returncode == 1
    assert "carina.volume.wrong -> carina.measure.ratio" in said.stdout


def _no_weights(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("bundles", "__pycache__")]


@pytest.mark.parametrize(("ci", "outcome"), [("true", "1 failed"), ("", "1 skipped")])
def test_with_ci_a_missing_tool_is_no_excuse(tmp_path: Path, ci: str, outcome: str) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    shutil.copy(ROOT / "tests" / "databases.py", tmp_path)
    (tmp_path / "test_it.py").write_text(
        'import pytest\ndef test_it():\n    pytest.skip("Orthanc is not installed; on Debian: apt-get")\n'
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", str(tmp_path)]
    environment = {"CI": ci, "PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT / 'src'}"}
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert outcome in said.stdout


def test_every_dependency_is_justified() -> None:
    project = SETTINGS["project"]
    wanted = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]
    names = {re.split(r"[\[<>=]", line)[0] for line in wanted}
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| ([\w-]+) \|", text, flags=re.MULTILINE)) - {"package"}
    assert rows == names
    npm = json.loads((ROOT / "web" / "package.json").read_text(encoding="utf-8"))
    rows = set(re.findall(r"^\| `([\w@/-]+)` \|", text, flags=re.MULTILINE))
    assert rows == {*npm["dependencies"], *npm["devDependencies"]}
    exact = [version for table in ("dependencies", "devDependencies") for version in npm[table].values()]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in exact), "npm packages are pinned"


def test_the_tests_run_with_every_extra() -> None:
    text = (ROOT / "scripts" / "test").read_text(encoding="utf-8")
    installed = re.search(r"^scripts/setup (\S+)$", text, re.MULTILINE)
    assert installed is not None
    assert set(installed[1].split(",")) == set(SETTINGS["project"]["optional-dependencies"])


def test_the_page_of_the_architecture_lists_the_rooms_that_are_enforced() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = page.split("```")[1].strip().splitlines()
    layers = SETTINGS["tool"]["importlinter"]["contracts"][0]["layers"]
    assert listed == [re.sub("[()]", "", layer) for layer in layers]
