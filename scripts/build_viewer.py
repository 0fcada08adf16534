"""Builds the volume viewer of the pages: NiiVue behind web/volume.js, one file, into the package's data.

Usage: scripts/build_viewer.py [--force]

Needs npm (Node 18 or later) and its registry once. Without this build everything else works, and the page says what is
missing. The hook of the wheel (hatch_build.py) calls it, so that an installed wheel needs no Node.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WEB = ROOT / "web"
BUILT = ROOT / "src" / "carina" / "service" / "viewer" / "static" / "built"
SOURCES = ("package.json", "package-lock.json", "volume.js")
AXE = WEB / "axe.min.js"
"""For the tests alone."""

STAMP = BUILT / "sources.sha256"
LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "license", "License.txt")


def sources_sha256() -> str:
    """A digest of everything that the build depends on."""
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((WEB / name).read_bytes())
    return digest.hexdigest()


def is_built() -> bool:
    """Whether the build is there and of today's sources."""
    return (BUILT / "volume.js").is_file() and STAMP.is_file() and STAMP.read_text().strip() == sources_sha256()


def licences(metafile: Path, modules: Path) -> str:
    """The licence texts of every package that is in the bundle.

    Raises:
        RuntimeError: a package brings none, and none was put beside for it.
    """
    inputs = json.loads(metafile.read_text())["inputs"]
    folders = set()
    for name in inputs:
        parts = Path(name).parts
        if "node_modules" in parts:
            start = len(parts) - 1 - parts[::-1].index("node_modules")
            depth = 2 if parts[start + 1].startswith("@") else 1
            folders.add(modules.parent.joinpath(*parts[: start + 1 + depth]))
    texts = []
    for folder in sorted(folders):
        facts = json.loads((folder / "package.json").read_text())
        places = [*(folder / name for name in LICENCES), WEB / "licences" / f"{folder.name}.txt"]
        found = [place for place in places if place.is_file()]
        if not found:
            raise RuntimeError(f"{facts['name']} brings no licence text: put its project's into {places[-1]}")
        text = found[0].read_text(encoding="utf-8")
        texts.append(f"{facts['name']} {facts['version']}, {facts.get('license', '')}\n\n{text.strip()}\n")
    return ("\n" + "-" * 78 + "\n\n").join(texts)


def build() -> None:
    """Install the pinned packages apart and bundle them.

    Raises:
        RuntimeError: npm is missing or fails; the message says how.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is not installed; on Debian: apt-get install npm")
    with tempfile.TemporaryDirectory(prefix="carina-viewer-") as folder:
        work = Path(folder)
        for name in (*SOURCES, ".npmrc"):
            shutil.copy(WEB / name, work)
        _run([npm, "ci", "--silent", "--ignore-scripts"], work)
        esbuild = work / "node_modules" / ".bin" / "esbuild"
        options = ["--bundle", "--minify", "--format=esm", "--target=es2022", "--legal-comments=none"]
        _run([str(esbuild), "volume.js", *options, "--metafile=meta.json", "--outfile=built/volume.js"], work)
        (work / "built" / "LICENCES.txt").write_text(
            licences(work / "meta.json", work / "node_modules"), encoding="utf-8"
        )
        BUILT.mkdir(parents=True, exist_ok=True)
        for name in ("volume.js", "LICENCES.txt"):
            shutil.copy(work / "built" / name, BUILT)
        axe = work / "node_modules" / "axe-core" / "axe.min.js"
        shutil.copy(axe, AXE)
    STAMP.write_text(sources_sha256() + "\n")


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{Path(command[0]).name} failed ({done.returncode}): {(done.stderr or done.stdout)[-2000:]}"
        )


def main() -> None:
    """Build unless it is there."""
    if is_built() and AXE.is_file() and "--force" not in sys.argv[1:]:
        print(f"{BUILT}: is of today's sources")
        return
    try:
        build()
    except RuntimeError as error:
        raise SystemExit(f"scripts/build_viewer.py: {error}") from error
    print(f"{BUILT}: built")


if __name__ == "__main__":
    main()
