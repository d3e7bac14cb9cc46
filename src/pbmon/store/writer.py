"""What the journals hold, into the store: rows, totals and how far it was read, in one transaction.

Killed at any moment, a transaction is there or not, and whoever reads on begins where the store
says. Of two who read the same journal one finds that the other was faster, and nothing of its
own transaction stays.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import secrets
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sqlalchemy import bindparam, case, select, text, update

from pbmon import growth, privacy
from pbmon.money import Rates
from pbmon.spool.entries import (
    Consent,
    Event,
    Exposure,
    Feedback,
    Link,
    Transaction,
    UnreadableError,
    decode,
)
from pbmon.spool.ledger import Position
from pbmon.store import schema
from pbmon.store.engine import reading
from pbmon.store.exposures import Exposures
from pbmon.store.feedback import FeedbackBook
from pbmon.store.ledger import Ledger
from pbmon.store.schema import HOUR
from pbmon.store.tables import (
    checkpoints,
    consents,
    deliveries,
    event_keys,
    event_totals,
    insert_of,
    meta,
    sessions,
    subject_activity,
    subject_days,
    subjects,
)  # fmt: skip

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

DROPPED = (
    "consent", "deleted", "duplicate", "unreadable", "rejected", "conflict", "superseded",
)  # fmt: skip
"""Why an item of a journal is not stored: its person has not agreed, or was deleted; its id is
there already; it is of a newer version; the database refuses it; what is booked contradicts it, or
has gone beyond it."""

OUTBOX = "outbox"
"""In the place of a journal's name."""

STORE = "store"
"""The destination that the store's own pseudonyms are made for."""


class Portion(NamedTuple):
    """Items of one journal that follow each other."""

    source: str
    begin: Position
    items: Sequence[tuple[Position, bytes]]
    """Place and payload; an empty one was refused by the database."""
    end: Position


class SupersededError(Exception):
    """The journal was read on by another; nothing was stored."""


@dataclass(slots=True)
class Written:
    """What became of the items of one transaction."""

    stored: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


class Person(NamedTuple):
    """A user as the store knows them; subject: their pseudonym, none where no key is known."""

    subject: bytes | None
    is_deleted: bool = False
    analytics: bool | None = None
    sharing: bool | None = None
    lookup: bytes = b""
    key: bytes = b""


NOBODY = Person(None)


class Book(Protocol):
    """What takes the items of one kind that are no events, for one transaction of the writer.

    It stores nothing that the application's retry would store again: `key` is the item's for good,
    and comes again only where `again` says so (the outbox).
    """

    def add(self, source: str, key: bytes, entry: Any, *, again: bool) -> None:
        """An item, in the order of its journal."""

    def people(self) -> Iterable[tuple[str, bool | None]]:
        """User ids that its rows are to carry, and what the call said of their consent."""

    def store(self, connection: Connection) -> None:
        """Write them; for each item batch.keep(source) or batch.drop(source, reason)."""


_CACHED = 100_000
"""Users, and likewise sessions and days, of which what the store knows is remembered."""


class Writer:
    """basis, sharing: how the purposes `analytics` and `sharing` may be assumed: opt-in, opt-out or
    not-required. destinations: names of those that are to get what is stored. base_currency: of a
    store that has none yet. rates: without them nothing is converted into it."""

    def __init__(
        self,
        engine: Engine,
        basis: str,
        *,
        sharing: str = "opt-in",
        destinations: Sequence[str] = (),
        base_currency: str = "USD",
        rates: Rates | None = None,
        pepper: bytes | None = None,
    ) -> None:
        """The tables must be there. Raises SQLAlchemyError, StoreError."""
        self._engine = engine
        self.basis = basis
        self.sharing = sharing
        self.destinations = tuple(destinations)
        self.base_currency = base_currency
        self.rates = rates
        self.is_postgresql = engine.dialect.name == "postgresql"
        self.insert = insert_of(engine)
        self.adding = {
            table: self.insert(table).on_conflict_do_nothing()
            for table in (checkpoints, event_keys, sessions, subject_days, subjects)
        }
        """Table → the statement that adds those of its rows that are not there yet."""
        add = self.insert(event_totals)
        self.counting = add.on_conflict_do_update(
            index_elements=["hour", "name"],
            set_={"events": event_totals.c.events + add.excluded.events},
        )
        with reading(engine).connect() as connection:
            if pepper is None:
                pepper = bytes.fromhex(connection.execute(_META, {"key": "pepper"}).scalar_one())
            self.zone = schema.zone(connection)
        self.lookup = lru_cache(_CACHED)(partial(privacy.lookup, pepper))
        self.session = lru_cache(_CACHED)(partial(privacy.session_pseudonym, pepper))
        self.people: dict[str, Person] = {}
        self.people_version: str | None = None
        self.days: set[tuple[dt.date, bytes]] = set()
        """Of subject_days, those that are stored for certain."""

    def position(self, source: str) -> Position:
        """How far a journal is in the store."""
        query = select(checkpoints.c.segment, checkpoints.c.offset)
        with reading(self._engine).connect() as connection:
            row = connection.execute(query.where(checkpoints.c.source == source)).one_or_none()
        return Position(row.segment, row.offset) if row is not None else Position(0, 0)

    def touch(self, sources: Iterable[str]) -> None:
        """These journals are still there, however long nothing came."""
        statement = update(checkpoints).where(checkpoints.c.source.in_(sorted(sources)))
        with self._engine.begin() as connection:
            connection.execute(statement.values(changed_at=schema.now()))

    def forget(self, source: str) -> None:
        """The journal is gone, and so may be how far it was read."""
        with self._engine.begin() as connection:
            connection.execute(checkpoints.delete().where(checkpoints.c.source == source))

    def close(self) -> None:
        self._engine.dispose()

    def let_go(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._engine.dispose(close=False)

    def write(self, portions: Sequence[Portion]) -> Written:
        """All of it or nothing. Raises SupersededError, SQLAlchemyError."""
        return self._write(Batch(self, portions, ()))

    def write_outbox(self, rows: Sequence[tuple[bytes, bytes]]) -> Written:
        """Rows of key and payload, each of which is stored once. Raises SQLAlchemyError."""
        return self._write(Batch(self, (), rows))

    def _write(self, batch: Batch) -> Written:
        with self._engine.begin() as connection:
            batch.store(connection)
        batch.remember()
        return batch.written


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


class Batch:
    """The portions of one transaction."""

    def __init__(
        self, writer: Writer, portions: Sequence[Portion], outbox: Sequence[tuple[bytes, bytes]]
    ) -> None:
        self.written = Written()
        self.writer = writer
        self._portions = sorted(portions, key=lambda portion: portion.source)
        self.now = schema.now()
        self._counts: dict[str, Counter[bool]] = {p.source: Counter() for p in portions}
        self._events: list[tuple[str, bytes, bool, Event]] = []
        """Source, id, whether it may come again under this id, and content."""
        self._links: list[tuple[str, Link]] = []
        self._consents: list[tuple[str, Consent]] = []
        self._days: set[tuple[dt.date, bytes]] = set()
        self._people: dict[str, Person] = {}
        self._books: dict[type, Book] = {}
        for portion in portions:
            source = portion.source
            prefix = _digest("journal|" + source, 8)
            for place, payload in portion.items:
                self._sort(source, prefix + _PLACE.pack(*place), payload, again=False)
        for key, payload in outbox:
            self._sort(OUTBOX, key, payload, again=True)

    def _sort(self, source: str, event_id: bytes, payload: bytes, *, again: bool) -> None:
        if not payload:
            self.drop(source, "rejected")
            return
        try:
            entry = decode(payload)
        except UnreadableError:
            self.drop(source, "unreadable")
            return
        if isinstance(entry, Event):
            if entry.event_id is not None:
                event_id, again = _digest("event|" + entry.event_id, 16), True
            self._events.append((source, event_id, again, entry))
        elif isinstance(entry, Link):
            self._links.append((source, entry))
        elif isinstance(entry, Consent):
            self._consents.append((source, entry))
        else:
            kind = type(entry)
            if kind not in self._books:
                self._books[kind] = BOOKS[kind](self)
            self._books[kind].add(source, event_id, entry, again=again)

    def drop(self, source: str, reason: str) -> None:
        self.written.dropped[reason] += 1
        if source in self._counts:
            self._counts[source][False] += 1

    def keep(self, source: str) -> None:
        self.written.stored += 1
        if source in self._counts:
            self._counts[source][True] += 1

    def store(self, connection: Connection) -> None:
        self._claim(connection)
        self._store_consents(connection)
        self._find_people(connection)
        self._store_links(connection)
        rows = self._without_duplicates(connection, self._judge())
        if rows:
            self._store_events(connection, rows)
            self._store_totals(connection, rows)
            self._store_days(connection, rows)
            self._store_deliveries(connection, rows)
        for kind in BOOKS:  # in one order in every transaction, likewise
            if kind in self._books:
                self._books[kind].store(connection)
        self._note_counts(connection)

    def remember(self) -> None:
        """Once the transaction is committed."""
        for known, new in ((self.writer.people, self._people), (self.writer.days, self._days)):
            if len(known) > _CACHED:
                known.clear()
            known.update(new)  # type: ignore[arg-type]

    # --- the checkpoint ---

    def _claim(self, connection: Connection) -> None:
        """First of all, so that of two readers the second waits here, and then finds out."""
        fresh = [portion.source for portion in self._portions if portion.begin == (0, 0)]
        if fresh:
            connection.execute(
                self.writer.adding[checkpoints],
                [
                    {"source": source, "segment": 0, "offset": 0, "stored": 0, "dropped": 0,
                     "changed_at": self.now}
                    for source in fresh
                ],
            )  # fmt: skip
        for portion in self._portions:
            moved = connection.execute(
                _MOVE,
                {
                    "source_": portion.source,
                    "segment_": portion.begin.segment,
                    "offset_": portion.begin.offset,
                    "to_segment": portion.end.segment,
                    "to_offset": portion.end.offset,
                    "now": self.now,
                },
            )
            if moved.rowcount != 1:
                raise SupersededError(portion.source)

    def _note_counts(self, connection: Connection) -> None:
        if not self._counts:
            return
        connection.execute(
            _COUNT,
            [
                {"source_": source, "stored_": count[True], "dropped_": count[False]}
                for source, count in self._counts.items()
            ],
        )

    # --- people ---

    def _find_people(self, connection: Connection) -> None:
        """Of whom something is to be stored; they are made known where they have to be."""
        wanted = {e.user_id for *_, e in self._events if e.user_id is not None}
        wanted.update(link.user_id for _, link in self._links)
        named = [each for book in self._books.values() for each in book.people()]
        wanted.update(user for user, _ in named)
        if not wanted:
            return
        writer = self.writer
        version = connection.execute(_META, {"key": schema.PEOPLE_VERSION}).scalar()
        if version != writer.people_version:
            writer.people.clear()
            writer.people_version = version
        lookups = {writer.lookup(user): user for user in wanted if user not in writer.people}
        self._people = self._ask(connection, lookups)
        agreed = {e.user_id for *_, e in self._events if e.consent}
        agreed.update(user for user, consent in named if consent)
        fresh = [
            {"lookup": lookup, "key": secrets.token_bytes(32), "created_at": self.now}
            for lookup, user in sorted(lookups.items())
            if user not in self._people and (user in agreed or writer.basis != "opt-in")
        ]
        if fresh:
            connection.execute(writer.adding[subjects], fresh)
            self._people = self._ask(connection, lookups)

    def _ask(self, connection: Connection, lookups: Mapping[bytes, str]) -> dict[str, Person]:
        if not lookups:
            return {}
        found = connection.execute(_PEOPLE, {"lookups": list(lookups)})
        return {
            lookups[bytes(lookup)]: Person(
                privacy.pseudonym(bytes(key), STORE) if key is not None else None,
                deleted_at is not None,
                analytics,
                sharing,
                bytes(lookup),
                bytes(key or b""),
            )
            for lookup, key, deleted_at, analytics, sharing in found
        }

    def person(self, user_id: str) -> Person:
        return self._people.get(user_id) or self.writer.people.get(user_id, NOBODY)

    def may_keep(self, person: Person, consent: bool | None) -> bool:
        if consent is not None:
            return consent
        if person.analytics is not None:
            return person.analytics
        return self.writer.basis != "opt-in"

    def _store_consents(self, connection: Connection) -> None:
        for source, decision in self._consents:
            lookup = self.writer.lookup(decision.user_id)
            connection.execute(
                self.writer.adding[subjects],
                {"lookup": lookup, "key": secrets.token_bytes(32), "created_at": self.now},
            )
            changed = connection.execute(
                update(subjects)
                .where(subjects.c.lookup == lookup, subjects.c.deleted_at.is_(None))
                .values({decision.purpose: decision.granted})
            )
            if changed.rowcount != 1:
                self.drop(source, "deleted")
                continue
            connection.execute(
                consents.insert(),
                {"lookup": lookup, "purpose": decision.purpose, "granted": decision.granted,
                 "decided_at": decision.occurred_at},
            )  # fmt: skip
            self.keep(source)
        if self._consents:
            schema.note_change_of_people(connection)

    def _store_links(self, connection: Connection) -> None:
        for source, link in self._links:
            person = self.person(link.user_id)
            if person.is_deleted or not self.may_keep(person, None) or person.subject is None:
                self.drop(source, "deleted" if person.is_deleted else "consent")
                continue
            connection.execute(
                self.writer.adding[sessions],
                {
                    "session": self.writer.session(link.session_id),
                    "subject": person.subject,
                    "linked_at": link.occurred_at,
                },
            )
            self.keep(source)

    # --- events ---

    def _judge(self) -> list[tuple[str, bool, _Row]]:
        """Source, whether it may come again, and row of what may be stored."""
        rows = []
        writer, now = self.writer, self.now
        asks = writer.basis == "opt-in"
        for source, event_id, again, event in self._events:
            (at, name, user_id, session_id, trace_id, consent, _, segments, properties) = event
            subject = None
            if user_id is not None:
                person = self.person(user_id)
                if person.is_deleted:
                    self.drop(source, "deleted")
                    continue
                if not self.may_keep(person, consent):
                    self.drop(source, "consent")
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
                self.writer.adding[event_keys].returning(event_keys.c.event_id),
                [{"event_id": key, "occurred_at": at} for key, at in sorted(given.items())],
            )
            fresh = {bytes(key) for key in found.scalars()}
        kept = []
        for source, again, row in rows:
            if again:
                if row.event_id not in fresh:
                    self.drop(source, "duplicate")
                    continue
                fresh.remove(row.event_id)  # a second one in this transaction is none
            self.keep(source)
            kept.append(row)
        return kept

    def _store_events(self, connection: Connection, rows: list[_Row]) -> None:
        if self.writer.is_postgresql:
            # One parameter, unpacked by the server: next to no time in this process.
            made = ",".join(
                f'{{"a":{at},"i":"{key.hex()}","n":{json.dumps(name)},"u":{_hex(subject)},'
                f'"s":{_hex(session)},"t":{_hex(trace)},"p":{properties or "null"},'
                f'"g":{segments or "null"}}}'
                for at, key, name, subject, session, trace, properties, segments, _ in rows
            )
            connection.execute(_FROM_JSON, {"rows": f"[{made}]", "now": self.now})
        else:
            connection.exec_driver_sql(_VALUES, rows)

    def _store_totals(self, connection: Connection, rows: Sequence[_Row]) -> None:
        totals = Counter((row.occurred_at // HOUR * HOUR, row.name) for row in rows)
        connection.execute(
            self.writer.counting,
            # In one order in every transaction: two of them never wait for each other.
            [{"hour": h, "name": n, "events": count} for (h, n), count in sorted(totals.items())],
        )

    def _store_days(self, connection: Connection, rows: Sequence[_Row]) -> None:
        """On which local days whose rows are; the first and the last of each person."""
        zone = self.writer.zone
        self._days = {
            (growth.day_of(row.occurred_at, zone), row.subject)
            for row in rows
            if row.subject is not None
        } - self.writer.days
        if not self._days:
            return
        days = sorted(self._days)
        connection.execute(
            self.writer.adding[subject_days],
            [{"day": day, "subject": subject} for day, subject in days],
        )
        first = {subject: day for day, subject in reversed(days)}
        last = {subject: day for day, subject in days}
        known = subject_activity.c
        add = self.writer.insert(subject_activity)
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
        writer = self.writer
        if not writer.destinations:
            return
        whose = {event_id: event.user_id for _, event_id, _, event in self._events}
        waiting = []
        for row in rows:
            user_id = whose[row.event_id]
            person = self.person(user_id) if user_id is not None else None
            if person is not None and not self._may_share(person):
                continue
            if person is None and row.session is not None and writer.sharing == "opt-in":
                continue
            waiting += [
                {
                    "destination": name, "occurred_at": row.occurred_at, "event_id": row.event_id,
                    "lookup": person.lookup if person is not None else None,
                    "subject": privacy.pseudonym(person.key, name) if person is not None else None,
                }
                for name in writer.destinations
            ]  # fmt: skip
        if waiting:
            connection.execute(deliveries.insert(), waiting)

    def _may_share(self, person: Person) -> bool:
        if person.sharing is not None:
            return person.sharing
        return self.writer.sharing != "opt-in"


BOOKS: Mapping[type, Callable[[Batch], Book]] = {
    Transaction: Ledger,
    Exposure: Exposures,
    Feedback: FeedbackBook,
}
"""Kind of entry → what keeps it, for each that is none of the writer's own."""

_PLACE = struct.Struct(">II")
_META = select(meta.c.value).where(meta.c.key == bindparam("key"))
_PEOPLE = select(
    subjects.c.lookup,
    subjects.c.key,
    subjects.c.deleted_at,
    subjects.c.analytics,
    subjects.c.sharing,
).where(subjects.c.lookup.in_(bindparam("lookups", expanding=True)))
_MOVE = (
    update(checkpoints)
    .where(
        checkpoints.c.source == bindparam("source_"),
        checkpoints.c.segment == bindparam("segment_"),
        checkpoints.c.offset == bindparam("offset_"),
    )
    .values(
        segment=bindparam("to_segment"), offset=bindparam("to_offset"), changed_at=bindparam("now")
    )
)
_COUNT = (
    update(checkpoints)
    .where(checkpoints.c.source == bindparam("source_"))
    .values(
        stored=checkpoints.c.stored + bindparam("stored_"),
        dropped=checkpoints.c.dropped + bindparam("dropped_"),
    )
)
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


def _digest(text_: str, size: int) -> bytes:
    return hashlib.blake2b(text_.encode("utf-8", "replace"), digest_size=size).digest()
