"""Exposures to experiments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

SCHEMA = "pbmon"


def upgrade() -> None:
    op.create_table(
        "exposures",
        sa.Column("experiment", sa.String(100), primary_key=True),
        sa.Column("subject", sa.LargeBinary(16), primary_key=True),
        sa.Column("variant", sa.String(100), nullable=False),
        sa.Column("exposed_at", sa.BigInteger, nullable=False),
        sa.Column("assigned_by", sa.String(20), nullable=False),
        sa.Column("crossed", sa.Boolean, nullable=False),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
