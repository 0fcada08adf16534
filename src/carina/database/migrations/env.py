"""What Alembic runs for every upgrade: on the connection that ``upgrade_schema`` hands over, one transaction."""

from __future__ import annotations

from alembic import context

from carina.database.tables import SCHEMA

context.configure(
    connection=context.config.attributes["connection"], target_metadata=SCHEMA, render_as_batch=True, compare_type=True
)
with context.begin_transaction():
    context.run_migrations()
