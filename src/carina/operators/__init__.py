"""Operators: plain typed functions, one file each."""
