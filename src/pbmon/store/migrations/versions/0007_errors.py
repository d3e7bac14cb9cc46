"""Errors, alerts, and marks of what changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"

SCHEMA = "pbmon"

_JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    _create_errors()
    _create_alerts()
    op.create_table(
        "marks",
        sa.Column("kind", sa.String(20), primary_key=True),
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("at", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("note", sa.String(500)),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    op.create_index("marks_at", "marks", ["at"], schema=SCHEMA)


def _create_errors() -> None:
    op.create_table(
        "errors",
        sa.Column("fingerprint", sa.LargeBinary(16), primary_key=True),
        sa.Column("error_type", sa.String(200), nullable=False),
        sa.Column("place", sa.String(300), nullable=False),
        sa.Column("route", sa.String(300)),
        sa.Column("frames", sa.Text),
        sa.Column("trace_id", sa.LargeBinary(16)),
        sa.Column("errors", sa.BigInteger, nullable=False),
        sa.Column("first_at", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False, index=True),
        sa.Column("first_release", sa.String(100)),
        sa.Column("last_release", sa.String(100)),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "error_hours",
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("fingerprint", sa.LargeBinary(16), primary_key=True),
        sa.Column("release", sa.String(100), primary_key=True),
        sa.Column("errors", sa.BigInteger, nullable=False),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "error_slots",
        sa.Column("slot", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("fingerprint", sa.LargeBinary(16), primary_key=True),
        sa.Column("errors", sa.BigInteger, nullable=False),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "error_people",
        sa.Column("fingerprint", sa.LargeBinary(16), primary_key=True),
        sa.Column("subject", sa.LargeBinary(16), primary_key=True),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    op.create_index("error_people_subject", "error_people", ["subject"], schema=SCHEMA)


def _create_alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("alert_id", sa.LargeBinary(16), primary_key=True),
        sa.Column("rule", sa.String(200), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(16), nullable=False),
        sa.Column("about", _JSON, nullable=False),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sa.Column("resolved_at", sa.BigInteger, index=True),
        sa.Column("errors", sa.BigInteger, nullable=False),
        sa.Column("people", sa.BigInteger, nullable=False),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    _create_partial_index(
        "alerts_open", "alerts", ["fingerprint"], "resolved_at IS NULL", unique=True
    )
    op.create_table(
        "alert_notifications",
        sa.Column("alert_id", sa.LargeBinary(16), primary_key=True),
        sa.Column("kind", sa.String(20), primary_key=True),
        sa.Column("sink", sa.String(50), primary_key=True),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("sent_at", sa.BigInteger),
        sa.Column("died_at", sa.BigInteger),
        sa.Column("fault", sa.String(200)),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    _create_partial_index(
        "alert_notifications_due", "alert_notifications", ["sink", "due_at"],
        "sent_at IS NULL AND died_at IS NULL",
    )  # fmt: skip


def _create_partial_index(
    name: str, table: str, columns: list[str], condition: str, *, unique: bool = False
) -> None:
    where = sa.text(condition)
    op.create_index(
        name, table, columns, unique=unique, schema=SCHEMA,
        postgresql_where=where, sqlite_where=where,
    )  # fmt: skip
