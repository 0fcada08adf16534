"""Data lists and their checks, a case and how it is read, samples of cases. Knows no torch."""
