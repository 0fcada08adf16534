"""Runs the real scans that the project is developed with, and writes docs/gallery.md with the overlays or the refusals.

Usage: .venv/bin/python scripts/gallery.py [DATA_FOLDER] [RUNS_FOLDER]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import carina
from carina.errors import CarinaError
from carina.report.numbers import probability_text

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "images" / "gallery"
ORIGINS = {
    "lidc-0001": "LIDC-IDRI, CC BY 3.0; no COVID-19",
    "lidc-0314": "LIDC-IDRI, CC BY 3.0; mass with collapse, no COVID-19",
    "lungdx-a0001": "Lung-PET-CT-Dx, CC BY 4.0; lung cancer, no COVID-19",
    "lungdx-a0002": "Lung-PET-CT-Dx, CC BY 4.0; lung cancer, no COVID-19, 8 mm slices",
    "cmbcrc-01068": "CMB-CRC, CC BY 4.0; nodules, the lung base is cut off",
    "covidctmd-normal001": "COVID-CT-MD, CC BY 4.0; normal",
    "covidctmd-p002": "COVID-CT-MD, CC BY 4.0; COVID-19",
    "lctsc-s1-101": "LCTSC 2017, CC BY 3.0; lung cancer, no COVID-19, quiet breathing",
    "lctsc-s1-201": "LCTSC 2017, CC BY 3.0; lung cancer, no COVID-19, quiet breathing",
    "lctsc-s1-202": "LCTSC 2017, CC BY 3.0; lung cancer, no COVID-19, quiet breathing",
    "acrin-flt-001-abdomen": "ACRIN-FLT-Breast, CC BY 3.0; an abdomen with the bases of the lungs",
    "acrin-flt-001-chest": "ACRIN-FLT-Breast, CC BY 3.0; no COVID-19, quiet breathing, 35 slices of 4.25 mm",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One folder or file of the data, with what came of it."""

    name: str
    run: carina.Run | None
    refusal: str


def attempt(path: Path, name: str, out: Path) -> Case:
    """Run the default pipeline on one case."""
    print(name, flush=True)
    try:
        return Case(name=name, run=carina.run(path, out / name.replace("/", "_")), refusal="")
    except CarinaError as error:
        words = error.message.replace(str(path), name).replace(str(path.parent) + "/", "")
        return Case(name=name, run=None, refusal=f"`{error.code}` {words}")


def pictures(case: Case) -> str:
    """Write the overlays of a case; the cell that shows them."""
    if case.run is None:
        return ""
    PICTURES.mkdir(parents=True, exist_ok=True)
    links = []
    for view in ("axial", "coronal"):
        name = f"{case.name.replace('/', '_')}-{view}.png"
        case.run.overlay(view=view).convert("RGB").quantize(96).save(PICTURES / name, optimize=True)
        links.append(f"![{case.name}, {view}](images/gallery/{name})")
    return " ".join(links)


def numbers(run: carina.Run) -> str:
    """The findings in one cell."""
    whole = run.findings.iloc[0]
    covid = run.probabilities.get("COVID-19")
    chance = "COVID-19 not classified" if covid is None else f"COVID-19 probability {probability_text(covid)}"
    text = f"lungs {whole.lung_ml:.0f} ml, lesions {whole.lesion_ml:.1f} ml ({whole.ratio_percent:.2f} %), "
    return text + chance + "".join(f"; *{warning}*" for warning in run.warnings)


def page(whole: list[Case], hard: list[Case]) -> str:
    """The gallery as Markdown."""
    lines = [
        "# Gallery",
        "",
        "The real scans that Carina is developed with, as the default pipeline leaves them. "
        "Lungs are outlined, lesions filled.",
        "Networks that ship were trained on some of them, and chosen by others: none is a test "
        "(`carina models card NAME`).",
        "Outlined single slices, by which lesion networks were chosen, may not be shown.",
        "Made by `scripts/gallery.py`. The pictures are derived from the named public collections.",
        f"{carina.RESEARCH_ONLY}",
        "",
        "## Whole chests",
    ]
    for case in whole:
        result = numbers(case.run) if case.run else f"refused: {case.refusal}"
        lines += ["", f"### {case.name}", ORIGINS.get(case.name, "") + "  ", result, "", pictures(case)]
    lines += ["", "## Hard cases for a reader", "", "| case | what came of it |", "|---|---|"]
    for case in hard:
        result = f"read and run: {numbers(case.run)} {pictures(case)}" if case.run else f"refused: {case.refusal}"
        lines.append(f"| {case.name} | {result} |")
    return "\n".join(lines) + "\n"


def volume_files(folder: Path) -> list[tuple[Path, str]]:
    """The CT volumes of a folder, with the names of their cases."""
    return [(path, path.name.removesuffix("_ct.nii.gz")) for path in sorted(folder.glob("*_ct.nii.gz"))]


def main() -> None:
    """Run all cases and write the page."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "data"
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "runs" / "gallery"
    whole = [attempt(folder, folder.name, out) for folder in sorted((data / "ct").iterdir())]
    whole += [attempt(path, name, out) for path, name in volume_files(data / "lungs")]
    hard = []
    for folder in sorted((data / "reader").iterdir()):
        single = folder.name == "transfer-syntaxes"
        hard += (
            [attempt(path, f"{folder.name}/{path.name}", out) for path in sorted(folder.iterdir())] if single else []
        )
        hard += [] if single else [attempt(folder, folder.name, out)]
    (ROOT / "docs" / "gallery.md").write_text(page(whole, hard), encoding="utf-8")


if __name__ == "__main__":
    main()
