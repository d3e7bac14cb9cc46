"""The tables of the store, as the newest migration leaves them. Times are int64 µs UTC.

`subjects` is the only table that leads from a person to a pseudonym: by an HMAC of the user's id,
never the id. Without its key nothing in the other tables leads back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)  # fmt: skip
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB

from pbmon.store.engine import SCHEMA

if TYPE_CHECKING:
    from sqlalchemy import Engine

metadata = MetaData(schema=SCHEMA)
Id = LargeBinary(16)
"""128 bits: of a UUID, of a trace, of an HMAC."""

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

meta = Table(
    "meta",
    metadata,
    Column("key", String(50), primary_key=True),
    Column("value", String(200), nullable=False),
)
"""`store_id`: UUID of this store. `pepper`: of the HMACs, where the settings give none."""

events = Table(
    "events",
    metadata,
    Column("occurred_at", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", Id, primary_key=True),
    Column("name", String(100), nullable=False),
    Column("subject", Id),
    Column("session", Id),
    Column("trace_id", Id),
    Column("properties", Json),
    Column("segments", Json),
    Column("stored_at", BigInteger, nullable=False),
    Index("events_name", "name", "occurred_at"),
    Index(
        "events_subject", "subject", "occurred_at",
        postgresql_where=text("subject IS NOT NULL"), sqlite_where=text("subject IS NOT NULL"),
    ),
    postgresql_partition_by="RANGE (occurred_at)",
    sqlite_with_rowid=False,
)  # fmt: skip
"""One row for each event. subject, session: pseudonyms of this store."""

event_totals = Table(
    "event_totals",
    metadata,
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String(100), primary_key=True),
    Column("events", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Events of an hour by name, counted as they are stored; they outlive the events' retention."""

event_keys = Table(
    "event_keys",
    metadata,
    Column("event_id", Id, primary_key=True),
    Column("occurred_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""The ids that the application gave, by which an event is stored once."""

subjects = Table(
    "subjects",
    metadata,
    Column("lookup", Id, primary_key=True),
    Column("key", LargeBinary(32)),
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
    Column("analytics", Boolean),
    Column("sharing", Boolean),
    sqlite_with_rowid=False,
)
"""lookup: HMAC of the user's id. key: of the pseudonyms, random; none once deleted, and the row is
the tombstone. analytics, sharing: the person's last decision on the purpose, none: not asked."""

subject_days = Table(
    "subject_days",
    metadata,
    Column("day", Date, primary_key=True),
    Column("subject", Id, primary_key=True),
    sqlite_with_rowid=False,
)
"""Days (UTC) on which a subject did anything."""

sessions = Table(
    "sessions",
    metadata,
    Column("session", Id, primary_key=True),
    Column("subject", Id, nullable=False),
    Column("linked_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Whose a session turned out to be."""

consents = Table(
    "consents",
    metadata,
    Column("id", Integer().with_variant(BigInteger(), "postgresql"), primary_key=True),
    Column("lookup", Id, nullable=False, index=True),
    Column("purpose", String(20), nullable=False),
    Column("granted", Boolean, nullable=False),
    Column("decided_at", BigInteger, nullable=False),
)
"""Every decision, in its order; never changed."""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("source", String(60), primary_key=True),
    Column("segment", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("stored", BigInteger, nullable=False),
    Column("dropped", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""How far each journal is in the store; moved in the transaction that stores its items."""

deliveries = Table(
    "deliveries",
    metadata,
    Column("destination", String(50), primary_key=True),
    Column("occurred_at", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", Id, primary_key=True),
    Column("lookup", Id),
    Column("subject", Id),
    sqlite_with_rowid=False,
)
"""Events that a destination has not got yet, put here as they are stored. lookup: of the person in
`subjects`; subject: the pseudonym for this destination."""

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("destination", String(50), primary_key=True),
    Column("occurred_at", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", Id, primary_key=True),
    Column("lookup", Id),
    Column("subject", Id),
    Column("reason", String(50), nullable=False),
    Column("died_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Events that a destination refuses for themselves, with the reason."""

destinations = Table(
    "destinations",
    metadata,
    Column("destination", String(50), primary_key=True),
    Column("delivered", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("again_at", BigInteger, nullable=False),
    Column("fault", String(200)),
    Column("delivered_at", BigInteger),
)
"""How it goes with each: events it has got; since when it fails, how often, and why."""

feedback = Table(
    "feedback",
    metadata,
    Column("id", Id, primary_key=True),
    Column("survey", String(50), nullable=False),
    Column("score", Integer),
    Column("comment", Text),
    Column("occurred_at", BigInteger, nullable=False),
    Column("subject", Id),
    Column("session", Id),
    Column("trace_id", Id),
    Column("segments", Json),
    Index("feedback_survey", "survey", "occurred_at"),
    Index(
        "feedback_subject", "subject",
        postgresql_where=text("subject IS NOT NULL"), sqlite_where=text("subject IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)  # fmt: skip
"""One row for each answer. id: of the application's id and the person, else of its place in a
journal. comment: scrubbed. subject, session: pseudonyms of this store."""

job_runs = Table(
    "job_runs",
    metadata,
    Column("job", String(50), primary_key=True),
    Column("period", String(40), primary_key=True),
    Column("finished_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Periods for which a job was done."""


def insert_of(engine: Engine) -> Any:
    """insert() of the engine's dialect, which knows ON CONFLICT."""
    return postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
