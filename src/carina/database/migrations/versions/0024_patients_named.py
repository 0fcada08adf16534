"""Who is named in an arrival is known when its files are gone, too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """From version 0023 to 0024; what came before is asked of its files, which are looked into before they go."""
    op.add_column("arrival", sa.Column("patients", sa.String(33)))
