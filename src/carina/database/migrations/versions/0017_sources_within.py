"""Jobs name what lies in the node's folder relative to it, so that the folder may be moved."""

from __future__ import annotations

import re

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

_JOB = sa.table("job", sa.column("arrival_id"), sa.column("source"))
_KEPT = re.compile(r"(.+/)(?:incoming/[0-9]+|uploads/[0-9a-f]{32}/content)")


def upgrade() -> None:
    """From version 0016 to 0017; where the node's folder was is seen by the jobs on what arrived and on uploads."""
    connection = op.get_bind()
    is_ours = _JOB.c.arrival_id.is_not(None) | _JOB.c.source.like("/%/uploads/%/content")
    sources = connection.execute(sa.select(_JOB.c.source).where(is_ours)).scalars()
    for folder in sorted({found[1] for source in sources if (found := _KEPT.fullmatch(source))}):
        within = sa.func.substr(_JOB.c.source, len(folder) + 1)
        op.execute(_JOB.update().where(_JOB.c.source.startswith(folder, autoescape=True)).values(source=within))
