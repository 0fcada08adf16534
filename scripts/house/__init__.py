"""The gates that linter and type checker do not know; `scripts/house_limits.py` runs them all."""
