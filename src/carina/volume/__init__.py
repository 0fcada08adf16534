"""Geometry, resampling and volume files."""

from carina.volume.grid import Grid
from carina.volume.volume import Mask, Volume

__all__ = ["Grid", "Mask", "Volume"]
