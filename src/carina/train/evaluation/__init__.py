"""A bundle measured on a data list: per case, in sum, and as a report. Needs no torch."""
