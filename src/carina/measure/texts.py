"""Volumes and shares as texts, by one rule wherever people read them; files for programs hold the figures themselves.

A volume or a ratio is not known to more than three digits: another breath, another kernel, another network change it.
"""

from __future__ import annotations


def whole_text(value: float) -> str:
    """A whole number, its thousands parted by a space that breaks no line; for lengths and shares without a sign."""
    return f"{value:,.0f}".replace(",", "\u00a0")


def ml_text(value: float) -> str:
    """Whole ml from 100 on, one decimal below, and a sign that there is something below 0.05 ml."""
    if 0 < value < 0.05:
        return "< 0.1"
    return whole_text(value) if value >= 99.95 or not value else f"{value:.1f}"


def plain_ml_text(value: float) -> str:
    """The same without the space between thousands, for sentences that go into files of any character set."""
    return ml_text(value).replace("\u00a0", "")


def percent_text(value: float) -> str:
    """One decimal from ten percent on, two below, and a sign that there is something below 0.005."""
    if 0 < value < 0.005:
        return "< 0.01"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}" if value else "0"
