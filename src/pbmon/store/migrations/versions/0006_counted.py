"""Sums of the ledger by the hour in which something was booked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

SCHEMA = "pbmon"
HOUR = 3_600_000_000


def upgrade() -> None:
    op.create_table(
        "counted_totals",
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(12), primary_key=True),
        sa.Column("sign", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("currency", sa.String(3), primary_key=True),
        sa.Column("exponent", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("transactions", sa.BigInteger, nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("base_minor", sa.BigInteger, nullable=False),
        sa.Column("unconverted", sa.BigInteger, nullable=False),
        sa.CheckConstraint(
            "amount_minor BETWEEN 0 AND 9223372036854775807"
            " AND base_minor BETWEEN 0 AND 9223372036854775807",
            name="sums_are_exact",
        ),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    place = f"{SCHEMA}." if op.get_bind().dialect.name == "postgresql" else ""
    op.execute(
        f"INSERT INTO {place}counted_totals"
        f" SELECT counted_at / {HOUR} * {HOUR}, kind,"
        " CASE WHEN kind = 'charge' OR kind = 'adjustment' AND amount_minor >= 0 THEN 1"
        " ELSE -1 END,"
        " currency, exponent, count(*), sum(abs(amount_minor)),"
        " coalesce(sum(abs(base_minor)), 0), count(*) - count(base_minor)"
        f" FROM {place}transactions WHERE counted_at IS NOT NULL"
        " GROUP BY 1, 2, 3, 4, 5"
    )
