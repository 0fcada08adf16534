"""The package as others get it: wheel and sdist, installed by the usual tools into empty environments."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from carina import RESEARCH_ONLY, __version__

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def test_extras_that_are_named_are_those_that_there_are() -> None:
    """By one name, quoted as every shell needs it; in a clone ``pip install -e .[NAME]``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    places = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "src").rglob("*.py"), *ROOT.rglob("*.toml")]
    texts = [path.read_text(encoding="utf-8") for path in places if path.name != "CHANGELOG.md"]
    named = [found for text in texts for found in re.findall(r"(\S?)carina-ct\[(\w+)\]", text)]
    named += [("'", name) for text in texts for name in re.findall(r"pip install -e \.\[(\w+)\]", text)]
    assert len(named) > 10 and project["name"] == "carina-ct"
    assert {name for _, name in named} <= set(project["optional-dependencies"])
    assert {quote for quote, _ in named} == {"'"}


def tool(name: str, needs: str) -> Path:
    program = BIN / name
    if not program.exists():
        pytest.skip(f"{name} is not installed; scripts/setup {needs} installs it")
    return program


def call(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Standard output of a command that must succeed, away from the tree and its environment."""
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**outside, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is built from it."""
    tool("pyproject-build", "test")
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    names = zipfile.ZipFile(only(built, "*.whl")).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"carina", f"carina_ct-{__version__}.dist-info"}
    weights = "models/bundles/lung-ahnet/models/model.onnx"
    for part in ("py.typed", "operators/definitions/default.yaml", weights, f"{weights}.sha256"):
        assert f"carina/{part}" in names
    for part in ("templates/images.html", "static/viewer.js", "static/viewer.css"):
        assert f"carina/service/viewer/{part}" in names


def test_wheel_and_sdist_hold_the_volume_viewer_with_its_licences(built: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed; on Debian: apt-get install npm")
    names = zipfile.ZipFile(only(built, "*.whl")).namelist()
    with tarfile.open(only(built, "*.tar.gz")) as sdist:
        files = {name.partition("/")[2] for name in sdist.getnames()}
    for part in ("volume.js", "LICENCES.txt"):
        assert f"carina/service/viewer/static/built/{part}" in names
        assert f"src/carina/service/viewer/static/built/{part}" in files


def runs_by_itself(program: Path, folder: Path) -> None:
    """The installed command runs the whole pipeline on a small phantom."""
    assert call(program, "--version", cwd=folder).strip() == f"carina, version {__version__}"
    said = call(program, "demo", "--out", "demo", "--slices", "48", "--size", "200", cwd=folder)
    assert RESEARCH_ONLY in said
    assert len(list((folder / "demo").rglob("*.dcm"))) > 48
    where = call(program.resolve().parent / "python", "-c", "import carina; print(carina.__file__)", cwd=folder)
    assert not Path(where.strip()).is_relative_to(ROOT)


@pytest.mark.slow
def test_uv_installs_the_wheel_into_an_empty_environment_and_it_runs_there(built: Path, tmp_path: Path) -> None:
    uv = tool("uv", "test")
    places = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    call(uv, "tool", "install", "--python", sys.executable, only(built, "*.whl"), cwd=tmp_path, **places)
    runs_by_itself(tmp_path / "bin" / "carina", tmp_path)


@pytest.mark.slow
def test_pipx_installs_the_sdist_into_an_empty_environment_and_it_runs_there(built: Path, tmp_path: Path) -> None:
    pipx = tool("pipx", "test")
    places = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    call(pipx, "install", only(built, "*.tar.gz"), cwd=tmp_path, PIPX_DEFAULT_PYTHON=sys.executable, **places)
    runs_by_itself(tmp_path / "bin" / "carina", tmp_path)


@pytest.mark.slow
def test_the_documentation_builds_strictly(tmp_path: Path) -> None:
    mkdocs = tool("mkdocs", "test")
    call(mkdocs, "build", "--strict", "--quiet", "--site-dir", tmp_path / "site", cwd=ROOT)
    pages = {page.name for page in (tmp_path / "site").glob("*.html")}
    assert {f"{page.stem}.html" for page in (ROOT / "docs").glob("*.md")} <= pages
    start = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//', start), "asks a third party"


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
