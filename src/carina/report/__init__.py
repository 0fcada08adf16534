"""Findings as PDF pages and pictures."""
