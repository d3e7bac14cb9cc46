"""Growth: first and last days, snapshots, and the zone that days of people are counted in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

SCHEMA = "pbmon"
Id = sa.LargeBinary(16)
FIGURES = (
    "new", "active_24h", "active_7d", "active_30d", "churned", "before", "total", "reactivated",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "subject_activity",
        sa.Column("subject", Id, primary_key=True),
        sa.Column("first_day", sa.Date, nullable=False),
        sa.Column("last_day", sa.Date, nullable=False),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "growth_snapshots",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("source", sa.String(20), primary_key=True),
        sa.Column("timezone", sa.String(64), nullable=False),
        *(sa.Column(name, sa.BigInteger) for name in FIGURES),
        sa.Column("computed_at", sa.BigInteger, nullable=False),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    place = f"{SCHEMA}." if op.get_bind().dialect.name == "postgresql" else ""
    op.execute(
        f"INSERT INTO {place}subject_activity (subject, first_day, last_day)"
        f" SELECT subject, min(day), max(day) FROM {place}subject_days GROUP BY subject"
    )
    # Days that are there were counted in UTC; a new store counts in the zone of its settings.
    op.execute(
        f"INSERT INTO {place}meta (key, value) SELECT 'timezone', 'UTC'"
        f" WHERE EXISTS (SELECT 1 FROM {place}subject_days)"
    )
    op.create_index(
        "ix_pbmon_subject_activity_first_day", "subject_activity", ["first_day"], schema=SCHEMA
    )
    op.create_index("subject_days_subject", "subject_days", ["subject", "day"], schema=SCHEMA)
