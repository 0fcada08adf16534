"""An operator of Clara's kind: a program that reads folders and writes folders, and knows nothing of Carina.

``lung_profile.py MASK TABLE`` reads the MetaImage of a lung mask in the folder MASK and writes ``lung-profile.csv``
into the folder TABLE: for each slice its position in mm and the area of the lungs in it in mm². Only Python itself is
needed.
For research use only. Not for diagnosis.
"""

from __future__ import annotations

import csv
import os
import sys
import zlib
from pathlib import Path


def read_header(path: Path) -> dict[str, str]:
    """The ``Key = Value`` lines of a MetaImage's header."""
    lines = (line.partition("=") for line in path.read_text(encoding="utf-8").splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def read_slices(path: Path, header: dict[str, str]) -> list[bytes]:
    """The voxels of each slice, a byte each."""
    voxels = (path.parent / header["ElementDataFile"]).read_bytes()
    if header["CompressedData"] == "True":
        voxels = zlib.decompress(voxels)
    columns, rows, slices = map(int, header["DimSize"].split())
    size = columns * rows
    return [voxels[number * size : (number + 1) * size] for number in range(slices)]


def main() -> None:
    """Write the table."""
    mask, table = Path(sys.argv[1]), Path(sys.argv[2])
    (path,) = mask.glob("*.mhd")
    header = read_header(path)
    across, down, along = map(float, header["ElementSpacing"].split())
    slices = read_slices(path, header)
    print(f"{os.environ['NVIDIA_CLARA_STAGENAME']}: {len(slices)} slices")
    with (table / "lung-profile.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(["slice", "position_mm", "lung_mm2"])
        for number, voxels in enumerate(slices):
            area_mm2 = (len(voxels) - voxels.count(0)) * across * down
            writer.writerow([number, round(number * along, 3), round(area_mm2, 2)])


if __name__ == "__main__":
    main()
