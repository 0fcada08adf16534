"""Geometry, resampling and volume files."""

from carina.volume.grid import Grid
from carina.volume.volume import Mask, ScalarMap, Volume

__all__ = ["Grid", "Mask", "ScalarMap", "Volume"]
