"""Events, subjects, consents and checkpoints."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

SCHEMA = "pbmon"
Id = sa.LargeBinary(16)
Json = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "meta",
        sa.Column("key", sa.String(50), primary_key=True),
        sa.Column("value", sa.String(200), nullable=False),
        schema=SCHEMA,
    )
    op.create_table(
        "events",
        sa.Column("occurred_at", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("event_id", Id, primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("subject", Id),
        sa.Column("session", Id),
        sa.Column("trace_id", Id),
        sa.Column("properties", Json),
        sa.Column("segments", Json),
        sa.Column("stored_at", sa.BigInteger, nullable=False),
        schema=SCHEMA,
        postgresql_partition_by="RANGE (occurred_at)",
        sqlite_with_rowid=False,
    )
    op.create_index("events_name", "events", ["name", "occurred_at"], schema=SCHEMA)
    known = sa.text("subject IS NOT NULL")
    op.create_index(
        "events_subject", "events", ["subject", "occurred_at"], schema=SCHEMA,
        postgresql_where=known, sqlite_where=known,
    )  # fmt: skip
    op.create_table(
        "event_totals",
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("events", sa.BigInteger, nullable=False),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "event_keys",
        sa.Column("event_id", Id, primary_key=True),
        sa.Column("occurred_at", sa.BigInteger, nullable=False),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "subjects",
        sa.Column("lookup", Id, primary_key=True),
        sa.Column("key", sa.LargeBinary(32)),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        sa.Column("analytics", sa.Boolean),
        sa.Column("sharing", sa.Boolean),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "subject_days",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("subject", Id, primary_key=True),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sessions",
        sa.Column("session", Id, primary_key=True),
        sa.Column("subject", Id, nullable=False),
        sa.Column("linked_at", sa.BigInteger, nullable=False),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "consents",
        sa.Column("id", sa.Integer().with_variant(sa.BigInteger(), "postgresql"), primary_key=True),
        sa.Column("lookup", Id, nullable=False, index=True),
        sa.Column("purpose", sa.String(20), nullable=False),
        sa.Column("granted", sa.Boolean, nullable=False),
        sa.Column("decided_at", sa.BigInteger, nullable=False),
        schema=SCHEMA,
    )
    op.create_table(
        "checkpoints",
        sa.Column("source", sa.String(60), primary_key=True),
        sa.Column("segment", sa.BigInteger, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("stored", sa.BigInteger, nullable=False),
        sa.Column("dropped", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    for name in ("deliveries", "dead_letters"):
        op.create_table(
            name,
            sa.Column("destination", sa.String(50), primary_key=True),
            sa.Column("occurred_at", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("event_id", Id, primary_key=True),
            sa.Column("lookup", Id),
            sa.Column("subject", Id),
            *(
                (
                    sa.Column("reason", sa.String(50), nullable=False),
                    sa.Column("died_at", sa.BigInteger, nullable=False),
                )
                if name == "dead_letters"
                else ()
            ),
            schema=SCHEMA,
            sqlite_with_rowid=False,
        )
    op.create_table(
        "destinations",
        sa.Column("destination", sa.String(50), primary_key=True),
        sa.Column("delivered", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("again_at", sa.BigInteger, nullable=False),
        sa.Column("fault", sa.String(200)),
        sa.Column("delivered_at", sa.BigInteger),
        schema=SCHEMA,
    )
    op.create_table(
        "job_runs",
        sa.Column("job", sa.String(50), primary_key=True),
        sa.Column("period", sa.String(40), primary_key=True),
        sa.Column("finished_at", sa.BigInteger, nullable=False),
        schema=SCHEMA,
        sqlite_with_rowid=False,
    )
    _create_view()


def _create_view() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("CREATE TABLE pbmon.events_rest PARTITION OF pbmon.events DEFAULT")
        place, feature, rest = "pbmon.", "properties->>'feature'", "properties - 'feature'"
    else:
        place, feature, rest = (
            "", "json_extract(properties, '$.feature')", "json_remove(properties, '$.feature')",
        )  # fmt: skip
    op.execute(
        f"CREATE VIEW {place}feature_usage AS SELECT occurred_at, event_id, {feature} AS feature,"
        f" substr(name, 9) AS action, subject, session, trace_id, {rest} AS metadata, segments"
        f" FROM {place}events"
        " WHERE name IN ('feature_viewed', 'feature_clicked', 'feature_completed')"
    )
