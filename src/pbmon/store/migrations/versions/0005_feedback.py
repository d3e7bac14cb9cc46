"""Answers to surveys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"

SCHEMA = "pbmon"
Id = sa.LargeBinary(16)
Json = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", Id, primary_key=True),
        sa.Column("survey", sa.String(50), nullable=False),
        sa.Column("score", sa.Integer),
        sa.Column("comment", sa.Text),
        sa.Column("occurred_at", sa.BigInteger, nullable=False),
        sa.Column("subject", Id),
        sa.Column("session", Id),
        sa.Column("trace_id", Id),
        sa.Column("segments", Json),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    op.create_index("feedback_survey", "feedback", ["survey", "occurred_at"], schema=SCHEMA)
    known = sa.text("subject IS NOT NULL")
    op.create_index(
        "feedback_subject", "feedback", ["subject"], schema=SCHEMA,
        postgresql_where=known, sqlite_where=known,
    )  # fmt: skip
