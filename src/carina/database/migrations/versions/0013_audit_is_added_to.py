"""The database itself refuses to change or remove rows of the audit trail.

A later migration that makes the table anew in SQLite (``batch_alter_table``) has to make the triggers anew.
"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"

ONLY_ADDED = "rows of the audit trail are added, never changed or removed"


def upgrade() -> None:
    """From version 0012 to 0013; what the trail says stays."""
    if op.get_bind().dialect.name == "sqlite":
        for deed in ("update", "delete"):
            refuse = f"select raise(abort, '{ONLY_ADDED}')"
            op.execute(f"create trigger audit_no_{deed} before {deed} on audit begin {refuse}; end")
        there = f"when new.id in (select id from audit) begin select raise(abort, '{ONLY_ADDED}')"  # insert or replace
        op.execute(f"create trigger audit_no_replace before insert on audit {there}; end")
        return
    op.execute(
        "create function audit_refuse() returns trigger language plpgsql as "
        f"$$ begin raise exception '{ONLY_ADDED}' using errcode = 'integrity_constraint_violation'; end $$"
    )
    op.execute(
        "create trigger audit_only_added before update or delete or truncate on audit "
        "for each statement execute function audit_refuse()"
    )
