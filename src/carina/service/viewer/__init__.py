"""Pages of a finished run: what was found, its slices in three planes, its provenance and its files."""
