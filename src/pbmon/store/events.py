"""Events as rows, with all that follows from them: totals, days of people, deliveries."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import case, text

from pbmon import growth, privacy, scrubbing
from pbmon.spool.entries import Event
from pbmon.store.schema import HOUR
from pbmon.store.tables import deliveries, event_keys, subject_activity, subject_days

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pbmon.store.writer import Batch


class _Row(NamedTuple):
    """Of `events`, in the order of its columns."""

    occurred_at: int
    event_id: bytes
    name: str
    subject: bytes | None
    session: bytes | None
    trace_id: bytes | None
    properties: str | None
    segments: str | None
    stored_at: int


class Events:
    """The store.writer.Book of events: each once, of people who agree and of nobody."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._events: list[tuple[str, bytes, bool, Event]] = []
        """Source, id, whether it may come again under this id, and content."""

    def add(self, source: str, key: bytes, entry: Event, *, again: bool) -> None:
        if entry.event_id is not None:
            given = b"event|" + entry.event_id.encode("utf-8", "replace")
            key, again = hashlib.blake2b(given, digest_size=16).digest(), True
        if entry.properties and self._batch.writer.scrubs:  # here, as no other writer waits yet
            entry = entry._replace(properties=scrubbing.scrub_json(entry.properties))
        self._events.append((source, key, again, entry))

    def people(self) -> Iterable[tuple[str, bool | None]]:
        return [(e.user_id, e.consent) for *_, e in self._events if e.user_id is not None]

    def store(self, connection: Connection) -> None:
        rows = self._without_duplicates(connection, self._judge())
        if rows:
            self._store_rows(connection, rows)
            self._store_totals(connection, rows)
            self._store_days(connection, rows)
            self._store_deliveries(connection, rows)

    def _judge(self) -> list[tuple[str, bool, _Row]]:
        """Source, whether it may come again, and row of what may be stored."""
        rows = []
        writer, now = self._batch.writer, self._batch.now
        asks = writer.basis == "opt-in"
        for source, event_id, again, event in self._events:
            (at, name, user_id, session_id, trace_id, consent, _, segments, properties) = event
            subject = None
            if user_id is not None:
                person = self._batch.people.person(user_id)
                if person.is_deleted:
                    self._batch.drop(source, "deleted")
                    continue
                if not self._batch.people.may_keep(person, consent, at):
                    self._batch.drop(source, "consent")
                    continue
                subject = person.subject
            keeps_session = subject is not None or consent or not asks
            rows.append((source, again, _Row(
                at, event_id, name, subject,
                writer.session(session_id) if session_id is not None and keeps_session else None,
                bytes.fromhex(trace_id) if trace_id is not None else None,
                properties,
                json.dumps(segments, ensure_ascii=False) if segments is not None else None,
                now,
            )))  # fmt: skip
        return rows

    def _without_duplicates(
        self, connection: Connection, rows: list[tuple[str, bool, _Row]]
    ) -> list[_Row]:
        """Those that did not come before."""
        given = {row.event_id: row.occurred_at for _, again, row in rows if again}
        fresh: set[bytes] = set()
        if given:
            found = connection.execute(
                self._batch.writer.adding[event_keys].returning(event_keys.c.event_id),
                [{"event_id": key, "occurred_at": at} for key, at in sorted(given.items())],
            )
            fresh = {bytes(key) for key in found.scalars()}
        kept = []
        for source, again, row in rows:
            if again:
                if row.event_id not in fresh:
                    self._batch.drop(source, "duplicate")
                    continue
                fresh.remove(row.event_id)  # a second one in this transaction is none
            self._batch.keep(source)
            kept.append(row)
        return kept

    def _store_rows(self, connection: Connection, rows: list[_Row]) -> None:
        if self._batch.writer.is_postgresql:
            # One parameter, unpacked by the server: next to no time in this process.
            made = ",".join(
                f'{{"a":{at},"i":"{key.hex()}","n":{json.dumps(name)},"u":{_hex(subject)},'
                f'"s":{_hex(session)},"t":{_hex(trace)},"p":{properties or "null"},'
                f'"g":{segments or "null"}}}'
                for at, key, name, subject, session, trace, properties, segments, _ in rows
            )
            connection.execute(_FROM_JSON, {"rows": f"[{made}]", "now": self._batch.now})
        else:
            connection.exec_driver_sql(_VALUES, rows)

    def _store_totals(self, connection: Connection, rows: Sequence[_Row]) -> None:
        totals = Counter((row.occurred_at // HOUR * HOUR, row.name) for row in rows)
        connection.execute(
            self._batch.writer.counting,
            # In one order in every transaction: two of them never wait for each other.
            [{"hour": h, "name": n, "events": count} for (h, n), count in sorted(totals.items())],
        )

    def _store_days(self, connection: Connection, rows: Sequence[_Row]) -> None:
        """On which local days whose rows are; the first and the last of each person."""
        zone = self._batch.writer.zone
        fresh = {
            (growth.day_of(row.occurred_at, zone), row.subject)
            for row in rows
            if row.subject is not None
        } - self._batch.writer.days
        if not fresh:
            return
        self._batch.days = fresh
        days = sorted(fresh)
        connection.execute(
            self._batch.writer.adding[subject_days],
            [{"day": day, "subject": subject} for day, subject in days],
        )
        first = {subject: day for day, subject in reversed(days)}
        last = {subject: day for day, subject in days}
        known = subject_activity.c
        add = self._batch.writer.insert(subject_activity)
        came = add.excluded
        connection.execute(
            add.on_conflict_do_update(
                index_elements=["subject"],
                set_={
                    "first_day": case(
                        (came.first_day < known.first_day, came.first_day), else_=known.first_day
                    ),
                    "last_day": case(
                        (came.last_day > known.last_day, came.last_day), else_=known.last_day
                    ),
                },
                where=(came.first_day < known.first_day) | (came.last_day > known.last_day),
            ),
            [
                {"subject": subject, "first_day": first[subject], "last_day": last[subject]}
                for subject in sorted(first)
            ],
        )

    def _store_deliveries(self, connection: Connection, rows: Sequence[_Row]) -> None:
        """What may go to destinations: nobody's events, and those of people who agree."""
        writer = self._batch.writer
        if not writer.destinations:
            return
        whose = {event_id: event.user_id for _, event_id, _, event in self._events}
        labels = [(name, writer.epochs.label(name)) for name in writer.destinations]
        waiting = []
        for row in rows:
            user_id = whose[row.event_id]
            person = self._batch.people.person(user_id) if user_id is not None else None
            if person is not None and not self._batch.people.may_share(person, row.occurred_at):
                continue
            if person is None and row.session is not None and writer.sharing == "opt-in":
                continue
            waiting += [
                {
                    "destination": name, "occurred_at": row.occurred_at, "event_id": row.event_id,
                    "lookup": person.lookup if person is not None else None,
                    "subject": privacy.pseudonym(person.key, label) if person is not None else None,
                }
                for name, label in labels
            ]  # fmt: skip
        if waiting:
            connection.execute(deliveries.insert(), waiting)


_COLUMNS = ", ".join(_Row._fields)
_VALUES = f"INSERT INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FROM_JSON = text(
    f"INSERT INTO pbmon.events ({_COLUMNS})"
    " SELECT a, decode(i, 'hex'), n, decode(u, 'hex'), decode(s, 'hex'), decode(t, 'hex'), p, g,"
    " :now FROM jsonb_to_recordset(CAST(:rows AS jsonb))"
    " AS row (a bigint, i text, n text, u text, s text, t text, p jsonb, g jsonb)"
)


def _hex(value: bytes | None) -> str:
    return f'"{value.hex()}"' if value is not None else "null"
