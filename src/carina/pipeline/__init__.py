"""Pipeline definitions, the graph check, runs and their manifest; knows no medicine."""
