"""Keeping a node: what it no longer needs is removed, and all of it can be saved and brought back."""
