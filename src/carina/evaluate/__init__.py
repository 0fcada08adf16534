"""A bundle measured on a data list: figures, plots, tables, report. Knows no torch."""
