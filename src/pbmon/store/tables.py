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
    CheckConstraint,
    Column,
    Date,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    func,
    text,
)  # fmt: skip
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB

from pbmon.purposes import MAX_VERSION, PURPOSES
from pbmon.store.engine import SCHEMA

if TYPE_CHECKING:
    from sqlalchemy import Engine

metadata = MetaData(schema=SCHEMA)


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


_UNFINISHED = "sent_at IS NULL AND died_at IS NULL"

Id = LargeBinary(16)
"""128 bits: of a UUID, of a trace, of an HMAC."""

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

meta = Table(
    "meta",
    metadata,
    Column("key", String(50), primary_key=True),
    Column("value", String(200), nullable=False),
)
"""`store_id`: UUID of this store. `pepper`, `pepper_check`, `epoch:<destination>`: see
`pseudonyms`. `people_version`, `made_at`: see `schema`. `base_currency`, `base_exponent`: of the
ledger, from its first transaction on. `timezone`: in which days of people are counted.
`growth_source`: of the growth figures in force."""

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
    Index("events_session", "session", **_where("subject IS NULL AND session IS NOT NULL")),
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
    *(
        column
        for purpose in PURPOSES
        for column in (
            Column(f"{purpose}_at", BigInteger),
            Column(f"{purpose}_version", String(MAX_VERSION)),
            Column(f"{purpose}_since", BigInteger),
            Column(f"{purpose}_withdrawn_at", BigInteger),
        )
    ),
    sqlite_with_rowid=False,
)
"""lookup: HMAC of the user's id. key: of the pseudonyms, random; none once deleted, and the row is
the tombstone. analytics, sharing: the person's last decision on the purpose, none: not asked; with
what pbmon.purposes.Decision says of it."""

subject_days = Table(
    "subject_days",
    metadata,
    Column("day", Date, primary_key=True),
    Column("subject", Id, primary_key=True),
    Index("subject_days_subject", "subject", "day"),
    sqlite_with_rowid=False,
)
"""Days, in the store's zone, on which a subject did anything."""

subject_activity = Table(
    "subject_activity",
    metadata,
    Column("subject", Id, primary_key=True),
    Column("first_day", Date, nullable=False, index=True),
    Column("last_day", Date, nullable=False),
    sqlite_with_rowid=False,
)
"""The first and the last of them; kept when `subject_days` are not."""

growth_snapshots = Table(
    "growth_snapshots",
    metadata,
    Column("day", Date, primary_key=True),
    Column("source", String(20), primary_key=True),
    Column("timezone", String(64), nullable=False),
    *(
        Column(name, BigInteger)
        for name in (
            "new", "active_24h", "active_7d", "active_30d", "churned", "before", "total",
            "reactivated",
        )
    ),
    Column("computed_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)  # fmt: skip
"""Growth figures of each day that is over, as pbmon.growth defines them. NULL: not known."""

sessions = Table(
    "sessions",
    metadata,
    Column("session", Id, primary_key=True),
    Column("subject", Id, nullable=False),
    Column("linked_at", BigInteger, nullable=False),
    Index("sessions_subject", "subject"),
    sqlite_with_rowid=False,
)
"""Whose a session turned out to be."""

exposures = Table(
    "exposures",
    metadata,
    Column("experiment", String(100), primary_key=True),
    Column("subject", Id, primary_key=True),
    Column("variant", String(100), nullable=False),
    Column("exposed_at", BigInteger, nullable=False),
    Column("assigned_by", String(20), nullable=False),
    Column("crossed", Boolean, nullable=False),
    Index("exposures_subject", "subject"),
    sqlite_with_rowid=False,
)
"""The first variant of an experiment that somebody met. subject: pseudonym of a user, or of a
session. assigned_by: who chose it. crossed: they met another one as well."""

WITH_SESSIONS = events.outerjoin(sessions, events.c.session == sessions.c.session)
PERSON = func.coalesce(events.c.subject, sessions.c.subject, events.c.session)
"""Whose an event is: the user's, whom the session turned out to be, or the session's."""

consents = Table(
    "consents",
    metadata,
    Column("id", Integer().with_variant(BigInteger(), "postgresql"), primary_key=True),
    Column("lookup", Id, nullable=False, index=True),
    Column("purpose", String(20), nullable=False),
    Column("granted", Boolean, nullable=False),
    Column("decided_at", BigInteger, nullable=False),
    Column("version", String(MAX_VERSION)),
    Column("stored_at", BigInteger),
)
"""Every decision, in the order in which they came in; never changed. decided_at: as the process
said that heard it. version: of the text that was agreed to."""

deletions = Table(
    "deletions",
    metadata,
    Column("receipt_id", Id, primary_key=True),
    Column("place", String(50), primary_key=True),
    Column("lookup", Id, nullable=False),
    Column("requested_at", BigInteger, nullable=False),
    Column("target", LargeBinary),
    Column("counts", Json),
    Column("attempts", Integer, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("fault", String(200)),
    Column("finished_at", BigInteger),
    Index("deletions_lookup", "lookup"),
    Index("deletions_waiting", "place", "due_at", **_where("finished_at IS NULL")),
    sqlite_with_rowid=False,
)
"""Of each person who was deleted, a row for each place: `store`, `journals`, `outbox`, `disk`, or a
destination. lookup: of the tombstone in `subjects`. target: the pseudonyms that are to go there,
16 bytes each; none once they are gone. counts: rows by table. attempts: how often it was tried; of
journals, how many shippers have cleared theirs. due_at: not before."""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("source", String(60), primary_key=True),
    Column("segment", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("stored", BigInteger, nullable=False),
    Column("dropped", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("held_since", BigInteger),
    sqlite_with_rowid=False,
)
"""How far each journal is in the store; moved in the transaction that stores its items. held_since:
nothing that was written into it before this time is on its disk any more."""

deliveries = Table(
    "deliveries",
    metadata,
    Column("destination", String(50), primary_key=True),
    Column("occurred_at", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", Id, primary_key=True),
    Column("lookup", Id),
    Column("subject", Id),
    Index("deliveries_lookup", "lookup", **_where("lookup IS NOT NULL")),
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
    Index("dead_letters_lookup", "lookup", **_where("lookup IS NOT NULL")),
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
    Index("feedback_session", "session", **_where("subject IS NULL AND session IS NOT NULL")),
    sqlite_with_rowid=False,
)  # fmt: skip
"""One row for each answer. id: of the application's id and the person, else of its place in a
journal. comment: scrubbed. subject, session: pseudonyms of this store."""

errors = Table(
    "errors",
    metadata,
    Column("fingerprint", Id, primary_key=True),
    Column("error_type", String(200), nullable=False),
    Column("place", String(300), nullable=False),
    Column("route", String(300)),
    Column("frames", Text),
    Column("trace_id", Id),
    Column("errors", BigInteger, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False, index=True),
    Column("first_release", String(100)),
    Column("last_release", String(100)),
    sqlite_with_rowid=False,
)
"""One row for each fingerprint: all that occurred of it. route, trace_id: of the last; frames: of
the first that has them. No message: it carries people's data."""

error_hours = Table(
    "error_hours",
    metadata,
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("fingerprint", Id, primary_key=True),
    Column("release", String(100), primary_key=True),
    Column("errors", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Errors of an hour. release: an empty text where it is not known."""

error_slots = Table(
    "error_slots",
    metadata,
    Column("slot", BigInteger, primary_key=True, autoincrement=False),
    Column("fingerprint", Id, primary_key=True),
    Column("errors", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Errors of ten seconds, of the last day: what alerts are judged by. slot: its beginning."""

error_people = Table(
    "error_people",
    metadata,
    Column("fingerprint", Id, primary_key=True),
    Column("subject", Id, primary_key=True),
    Column("last_at", BigInteger, nullable=False),
    Index("error_people_subject", "subject"),
    sqlite_with_rowid=False,
)
"""Whom an error met, as far as they may be known. subject: pseudonym of a user, or of a session."""

alerts = Table(
    "alerts",
    metadata,
    Column("alert_id", Id, primary_key=True),
    Column("rule", String(200), nullable=False),
    Column("fingerprint", Id, nullable=False),
    Column("about", Json, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("resolved_at", BigInteger, index=True),
    Column("errors", BigInteger, nullable=False),
    Column("people", BigInteger, nullable=False),
    Index("alerts_open", "fingerprint", unique=True, **_where("resolved_at IS NULL")),
    sqlite_with_rowid=False,
)
"""Bursts of one fingerprint. rule: what it went beyond. about: of the error, as it was then.
last_at: when it was last beyond it. errors, people: the most there were in one window."""

alert_notifications = Table(
    "alert_notifications",
    metadata,
    Column("alert_id", Id, primary_key=True),
    Column("kind", String(20), primary_key=True),
    Column("sink", String(50), primary_key=True),
    Column("made_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("sent_at", BigInteger),
    Column("died_at", BigInteger),
    Column("fault", String(200)),
    Index("alert_notifications_due", "sink", "due_at", **_where(_UNFINISHED)),
    sqlite_with_rowid=False,
)
"""What a sink of alerts is to get, or has got, or never will. kind: firing, repeat-N or resolved.
due_at: not before. attempts: noted before each. fault: of the last."""

marks = Table(
    "marks",
    metadata,
    Column("kind", String(20), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("note", String(500)),
    Index("marks_at", "at"),
    sqlite_with_rowid=False,
)
"""What changed, and when. kind: deploy, of the release `name`; or change, whose text is `name`."""

job_runs = Table(
    "job_runs",
    metadata,
    Column("job", String(50), primary_key=True),
    Column("period", String(40), primary_key=True),
    Column("finished_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Periods for which a job was done."""


transactions = Table(
    "transactions",
    metadata,
    Column("kind", String(12), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("charge", String(255)),
    Column("status", String(12), nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("exponent", SmallInteger, nullable=False),
    Column("base_minor", BigInteger),
    Column("fx_rate", Text),
    Column("fx_date", Date),
    Column("fx_source", Text),
    Column("refunded_minor", BigInteger, nullable=False),
    Column("charged_back_minor", BigInteger, nullable=False),
    Column("body_hash", Id, nullable=False),
    Column("occurred_at", BigInteger, nullable=False),
    Column("reported_at", BigInteger, nullable=False),
    Column("counted_at", BigInteger),
    Column("subject", Id),
    Column("segments", Json),
    Index("transactions_subject", "subject", **_where("subject IS NOT NULL")),
    Index("transactions_charge", "charge", **_where("charge IS NOT NULL")),
    Index("transactions_occurred", "occurred_at", **_where("counted_at IS NOT NULL")),
    Index("transactions_counted", "counted_at", **_where("counted_at IS NOT NULL")),
    Index("transactions_held", "occurred_at", **_where("status = 'held'")),
    Index(
        "transactions_unconverted", "currency", "occurred_at",
        **_where("base_minor IS NULL AND counted_at IS NOT NULL"),
    ),
)  # fmt: skip
"""Money, one row for each id of the application's among those of its kind.

status: what the application said, or `held`: a refund or chargeback (of `charge`) whose charge has
not completed. counted_at: since when it counts. amount_minor, exponent: as it was said. base_minor:
in the base currency, by fx_rate (a decimal) of fx_date from fx_source; none until a rate is known,
and never changed. refunded_minor, charged_back_minor: of a charge, what counts of it.
reported_at: when its status was said. body_hash: of what must be the same if it comes again."""

transaction_conflicts = Table(
    "transaction_conflicts",
    metadata,
    Column("kind", String(12), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("reason", String(20), primary_key=True),
    Column("body_hash", Id, primary_key=True),
    Column("charge", String(255)),
    Column("status", String(12), nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("exponent", SmallInteger, nullable=False),
    Column("occurred_at", BigInteger, nullable=False),
    Column("reported_at", BigInteger, nullable=False),
    Column("stored_at", BigInteger, nullable=False),
)
"""What was not booked, as what is booked contradicts it, and why."""


def _sums() -> tuple[Column[Any] | CheckConstraint, ...]:
    return (
        Column("transactions", BigInteger, nullable=False),
        Column("amount_minor", BigInteger, nullable=False),
        Column("base_minor", BigInteger, nullable=False),
        Column("unconverted", BigInteger, nullable=False),
        # SQLite would go on in floating point: an item that leads there is refused instead.
        CheckConstraint(
            "amount_minor BETWEEN 0 AND 9223372036854775807"
            " AND base_minor BETWEEN 0 AND 9223372036854775807",
            name="sums_are_exact",
        ),
    )


def _by_hour(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("hour", BigInteger, primary_key=True, autoincrement=False),
        Column("kind", String(12), primary_key=True),
        Column("sign", SmallInteger, primary_key=True, autoincrement=False),
        Column("currency", String(3), primary_key=True),
        Column("exponent", SmallInteger, primary_key=True, autoincrement=False),
        *_sums(),
        sqlite_with_rowid=False,
    )


revenue_totals = _by_hour("revenue_totals")
"""What counts of the hour (UTC) in which it occurred. sign: 1 is revenue, -1 takes from it; the
amounts are absolute, base_minor of those that are converted."""

counted_totals = _by_hour("counted_totals")
"""The same by the hour of counted_at."""

ledger_totals = Table(
    "ledger_totals",
    metadata,
    Column("kind", String(12), primary_key=True),
    Column("status", String(12), primary_key=True),
    Column("sign", SmallInteger, primary_key=True, autoincrement=False),
    Column("currency", String(3), primary_key=True),
    Column("exponent", SmallInteger, primary_key=True, autoincrement=False),
    *_sums(),
    sqlite_with_rowid=False,
)
"""Of all time: how many came to a status, and the amounts of what counts, likewise."""


def insert_of(engine: Engine) -> Any:
    """insert() of the engine's dialect, which knows ON CONFLICT."""
    return postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
