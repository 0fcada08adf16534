"""Carina from Python: find and read series, run the pipeline on one or on many, look at what came out."""

from carina.api.cohort import Cohort, run_many
from carina.api.result import Run, open_run
from carina.api.study import find_series, read_series, run

__all__ = ["Cohort", "Run", "find_series", "open_run", "read_series", "run", "run_many"]
