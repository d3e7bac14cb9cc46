"""Deletions of people and what is outstanding of them; indices by which a person is found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"

SCHEMA = "pbmon"
ID = sa.LargeBinary(16)
COUNTS = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

_INDICES = (
    ("sessions_subject", "sessions", ["subject"], None),
    ("exposures_subject", "exposures", ["subject"], None),
    ("deliveries_lookup", "deliveries", ["lookup"], "lookup IS NOT NULL"),
    ("dead_letters_lookup", "dead_letters", ["lookup"], "lookup IS NOT NULL"),
    ("transactions_subject", "transactions", ["subject"], "subject IS NOT NULL"),
    ("events_session", "events", ["session"], "subject IS NULL AND session IS NOT NULL"),
    ("feedback_session", "feedback", ["session"], "subject IS NULL AND session IS NOT NULL"),
    ("deletions_lookup", "deletions", ["lookup"], None),
    ("deletions_waiting", "deletions", ["place", "due_at"], "finished_at IS NULL"),
)


def upgrade() -> None:
    op.create_table(
        "deletions",
        sa.Column("receipt_id", ID, primary_key=True),
        sa.Column("place", sa.String(50), primary_key=True),
        sa.Column("lookup", ID, nullable=False),
        sa.Column("requested_at", sa.BigInteger, nullable=False),
        sa.Column("target", sa.LargeBinary),
        sa.Column("counts", COUNTS),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("fault", sa.String(200)),
        sa.Column("finished_at", sa.BigInteger),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    # A column is added by a statement that no schema is translated in.
    schema = SCHEMA if op.get_bind().dialect.name == "postgresql" else None
    op.add_column("checkpoints", sa.Column("held_since", sa.BigInteger), schema=schema)
    for name, table, columns, condition in _INDICES:
        where = sa.text(condition) if condition else None
        op.create_index(
            name, table, columns, schema=SCHEMA, postgresql_where=where, sqlite_where=where
        )
