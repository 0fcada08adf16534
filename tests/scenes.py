"""Any two masks and a CT on one grid, however odd, for property tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from carina.volume import Grid, Mask, Volume
from carina.volume.header import triple


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Mask, Mask, Volume]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape: tuple[int, int, int] = tuple(rng.integers(1, 12, size=3).tolist())
    spacing = triple(rng.uniform(0.4, 9, size=3))
    first, second, third = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    axes = triple(first), triple(second), triple(third)
    grid = Grid(shape=shape, spacing_mm=spacing, origin_mm=(-20.0, 3.0, 7.0), axes=axes)
    lung, lesion = (
        Mask(labels=(rng.random(shape) < share).astype(np.uint8), grid=grid, names={1: "x"}, uid="1")
        for share in rng.choice([0.0, 0.02, 0.3, 0.9, 1.0], size=2)
    )
    hu = rng.integers(-1024, 3071, size=shape).astype(np.int16)
    return lesion, lung, Volume(hu=hu, grid=grid, uid="1")
