"""A delivery remembers the transactions of storage commitment under which it was asked about before the newest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """From version 0024 to 0025; the transaction of a delivery's row stays the newest."""
    of = sa.ForeignKey("delivery.id", name="fk_earlier_question_delivery_id", ondelete="CASCADE")
    op.create_table(
        "earlier_question",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("delivery_id", _KEY, of, nullable=False),
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_earlier_question"),
    )
    op.create_index("ix_earlier_question_delivery_id_id", "earlier_question", ["delivery_id", "id"])
    op.create_index("ix_earlier_question_transaction_uid", "earlier_question", ["transaction_uid"])
