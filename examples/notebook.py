"""The few lines for a notebook: read a series, run the pipeline, look at numbers and pictures."""

from __future__ import annotations

import sys

import carina

volume = carina.read_series(sys.argv[1])
print(volume.grid.shape, volume.grid.spacing_mm, volume.hu.min(), volume.hu.max())

result = carina.run(sys.argv[1], sys.argv[2])
print(result.findings[["region", "lung_ml", "lesion_ml", "ratio_percent"]])
print(result.probabilities)
print(result.lesion.labels.shape, result.lesion.grid.origin_mm)
result.overlay().save("overlay.png")
