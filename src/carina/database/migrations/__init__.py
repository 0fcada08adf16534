"""Every version of the schema that was ever in use, and the way from each to the next (Alembic)."""
