"""Volumes, ratios and agreement: pure functions."""
