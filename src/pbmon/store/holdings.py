"""Which tables hold what of a person, and what becomes of it when the person is deleted.

Every table of the store is in HELD or in OF_NOBODY: a new one must be given its place here, as must
each column that leads to a person.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from sqlalchemy import Column, Table

from pbmon.store import tables


class Fate(Enum):
    """Of a person's rows, when the person is deleted."""

    REMOVED = "removed"
    UNLINKED = "nobody's from then on"
    TOMBSTONE = "only that the person was deleted"


class Held(NamedTuple):
    """subject: the column of the pseudonym, which may be that of a session of theirs where
    `by_session` says so. session: of the session's pseudonym, by which rows without a subject are
    found. lookup: of the HMAC of their id. exported: columns that an export has, else all but
    these three and keys."""

    table: Table
    fate: Fate = Fate.REMOVED
    subject: Column[bytes] | None = None
    by_session: bool = False
    session: Column[bytes] | None = None
    lookup: Column[bytes] | None = None


_t = tables
HELD = (
    Held(_t.events, subject=_t.events.c.subject, session=_t.events.c.session),
    Held(_t.feedback, subject=_t.feedback.c.subject, session=_t.feedback.c.session),
    Held(_t.exposures, subject=_t.exposures.c.subject, by_session=True),
    Held(_t.error_people, subject=_t.error_people.c.subject, by_session=True),
    Held(_t.subject_days, subject=_t.subject_days.c.subject),
    Held(_t.subject_activity, subject=_t.subject_activity.c.subject),
    Held(_t.transactions, Fate.UNLINKED, subject=_t.transactions.c.subject),
    Held(_t.deliveries, lookup=_t.deliveries.c.lookup),
    Held(_t.dead_letters, lookup=_t.dead_letters.c.lookup),
    Held(_t.consents, lookup=_t.consents.c.lookup),
    Held(_t.sessions, subject=_t.sessions.c.subject),
    Held(_t.subjects, Fate.TOMBSTONE, lookup=_t.subjects.c.lookup),
    Held(_t.deletions, Fate.TOMBSTONE, lookup=_t.deletions.c.lookup),
)
"""In the order in which they are emptied: sessions last, as others are found by them. `event_keys`
of a person's events go with these."""

OF_NOBODY = {
    _t.meta: "what a store has once",
    _t.event_totals: "sums of all",
    _t.event_keys: "hashes of the ids that the application gave; gone with the event",
    _t.growth_snapshots: "sums of all",
    _t.checkpoints: "positions in journals",
    _t.destinations: "how it goes with each",
    _t.errors: "what failed, without a message or a person",
    _t.error_hours: "sums of all",
    _t.error_slots: "sums of all",
    _t.alerts: "how many people, and nobody's name",
    _t.alert_notifications: "what a sink got",
    _t.marks: "deploys and changes",
    _t.job_runs: "days that are done",
    _t.transaction_conflicts: "money that was not booked, without a person",
    _t.revenue_totals: "sums of all",
    _t.counted_totals: "sums of all",
    _t.ledger_totals: "sums of all",
}
"""Table → what it holds instead."""

LEADING = ("subject", "session", "lookup", "user_id", "session_id", "target", "key_id")
"""Names of columns that lead to a person."""
