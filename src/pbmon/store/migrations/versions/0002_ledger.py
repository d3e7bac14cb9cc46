"""The revenue ledger."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"

SCHEMA = "pbmon"
Id = sa.LargeBinary(16)
Json = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "transactions",
        sa.Column("kind", sa.String(12), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("charge", sa.String(255)),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("exponent", sa.SmallInteger, nullable=False),
        sa.Column("base_minor", sa.BigInteger),
        sa.Column("fx_rate", sa.Text),
        sa.Column("fx_date", sa.Date),
        sa.Column("fx_source", sa.Text),
        sa.Column("refunded_minor", sa.BigInteger, nullable=False),
        sa.Column("charged_back_minor", sa.BigInteger, nullable=False),
        sa.Column("body_hash", Id, nullable=False),
        sa.Column("occurred_at", sa.BigInteger, nullable=False),
        sa.Column("reported_at", sa.BigInteger, nullable=False),
        sa.Column("counted_at", sa.BigInteger),
        sa.Column("subject", Id),
        sa.Column("segments", Json),
        schema=SCHEMA,
    )
    for name, columns, condition in (
        ("charge", ["charge"], "charge IS NOT NULL"),
        ("occurred", ["occurred_at"], "counted_at IS NOT NULL"),
        ("counted", ["counted_at"], "counted_at IS NOT NULL"),
        ("held", ["occurred_at"], "status = 'held'"),
        (
            "unconverted",
            ["currency", "occurred_at"],
            "base_minor IS NULL AND counted_at IS NOT NULL",
        ),
    ):
        op.create_index(
            f"transactions_{name}", "transactions", columns, schema=SCHEMA,
            postgresql_where=sa.text(condition), sqlite_where=sa.text(condition),
        )  # fmt: skip
    op.create_table(
        "transaction_conflicts",
        sa.Column("kind", sa.String(12), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("reason", sa.String(20), primary_key=True),
        sa.Column("body_hash", Id, primary_key=True),
        sa.Column("charge", sa.String(255)),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("exponent", sa.SmallInteger, nullable=False),
        sa.Column("occurred_at", sa.BigInteger, nullable=False),
        sa.Column("reported_at", sa.BigInteger, nullable=False),
        sa.Column("stored_at", sa.BigInteger, nullable=False),
        schema=SCHEMA,
    )
    op.create_table(
        "revenue_totals",
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(12), primary_key=True),
        *_rest(),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ledger_totals",
        sa.Column("kind", sa.String(12), primary_key=True),
        sa.Column("status", sa.String(12), primary_key=True),
        *_rest(),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )


def _rest() -> tuple[sa.Column[Any] | sa.CheckConstraint, ...]:
    return (
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
    )
