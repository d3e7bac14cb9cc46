"""What the journals hold, into the store: rows, totals and how far it was read, in one transaction.

Killed at any moment, a transaction is there or not, and whoever reads on begins where the store
says. Of two who read the same journal one finds that the other was faster, and nothing of its
own transaction stays.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sqlalchemy import bindparam, select, update

from pbmon.money import Rates
from pbmon.purposes import ANALYTICS, SHARING, terms_of
from pbmon.spool.entries import (
    Consent,
    Event,
    Exposure,
    Failure,
    Feedback,
    Link,
    Transaction,
    UnreadableError,
    decode,
)
from pbmon.spool.ledger import Position
from pbmon.store import pseudonyms, schema
from pbmon.store.engine import reading
from pbmon.store.erasure import Deletions
from pbmon.store.errors import Errors
from pbmon.store.events import Events
from pbmon.store.exposures import Exposures
from pbmon.store.feedback import FeedbackBook
from pbmon.store.ledger import Ledger
from pbmon.store.people import People, Person
from pbmon.store.pseudonyms import Epochs
from pbmon.store.tables import (
    checkpoints,
    event_keys,
    event_totals,
    insert_of,
    sessions,
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


class Portion(NamedTuple):
    """Items of one journal that follow each other."""

    source: str
    begin: Position
    items: Sequence[tuple[Position, bytes]]
    """Place and payload; an empty one was refused by the database."""
    end: Position
    begun_at: int = 0
    """When the journal was made, µs since the epoch."""


class SupersededError(Exception):
    """The journal was read on by another; nothing was stored."""


@dataclass(slots=True)
class Written:
    """What became of the items of one transaction."""

    stored: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


class Book(Protocol):
    """What takes the items of one kind, for one transaction of the writer.

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
    not-required; versions: purpose → the one that must have been agreed to. destinations: names of
    those that are to get what is stored. base_currency: of a store that has none yet. rates:
    without them nothing is converted into it. pepper: from outside, where there is one. scrubs:
    whether people's data is taken out of the texts of events."""

    def __init__(
        self,
        engine: Engine,
        basis: str,
        *,
        sharing: str = "opt-in",
        versions: Mapping[str, str] = MappingProxyType({}),
        destinations: Sequence[str] = (),
        base_currency: str = "USD",
        rates: Rates | None = None,
        pepper: bytes | None = None,
        scrubs: bool = True,
    ) -> None:
        """The tables must be there. Raises SQLAlchemyError, StoreError."""
        self._engine = engine
        self.basis = basis
        self.sharing = sharing
        self.terms = terms_of({ANALYTICS: basis, SHARING: sharing}, versions)
        self.destinations = tuple(destinations)
        self.base_currency = base_currency
        self.rates = rates
        self.scrubs = scrubs
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
            names = pseudonyms.names(connection, pepper)
            self.zone = schema.zone(connection)
        self._pepper = pepper
        self.lookup = names.user
        self.session = names.session
        self.deletions = Deletions(engine, pepper)
        self.people: dict[str, Person] = {}
        self.people_version: str | None = None
        self.epochs = Epochs({})
        self.days: set[tuple[dt.date, bytes]] = set()
        """Of subject_days, those that are stored for certain."""

    def recall(self, connection: Connection, version: str) -> None:
        """Rely on what is remembered of people only where it is of this version. Raises
        StoreError."""
        if version == self.people_version:
            return
        pseudonyms.names(connection, self._pepper, 0)  # another may be in force by now
        self.people.clear()
        self.epochs = pseudonyms.epochs(connection)
        self.people_version = version

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
        self.people = People(self)
        self.days: set[tuple[dt.date, bytes]] = set()
        """Of subject_days, those that this transaction has stored."""
        self._books: dict[type, Book] = {}
        for portion in portions:
            source = portion.source
            prefix = _digest("journal|" + source, 8)
            for place, payload in portion.items:
                self._sort(source, prefix + _PLACE.pack(*place), payload, again=False)
        for key, payload in outbox:
            self._sort(OUTBOX, key, payload, again=True)

    def _sort(self, source: str, key: bytes, payload: bytes, *, again: bool) -> None:
        if not payload:
            self.drop(source, "rejected")
            return
        try:
            entry = decode(payload)
        except UnreadableError:
            self.drop(source, "unreadable")
            return
        if isinstance(entry, Link | Consent):
            self.people.add(source, entry)
            return
        kind = type(entry)
        if kind not in self._books:
            self._books[kind] = BOOKS[kind](self)
        self._books[kind].add(source, key, entry, again=again)

    def drop(self, source: str, reason: str) -> None:
        self.written.dropped[reason] += 1
        if source in self._counts:
            self._counts[source][False] += 1

    def keep(self, source: str) -> None:
        self.written.stored += 1
        if source in self._counts:
            self._counts[source][True] += 1

    def store(self, connection: Connection) -> None:
        version = schema.hold_people(connection, changes=self.people.are_to_change)
        self.writer.recall(connection, version)
        self._claim(connection)
        self.people.store_consents(connection)
        named = [each for book in self._books.values() for each in book.people()]
        self.people.find(connection, named)
        self.people.store_links(connection)
        for kind in BOOKS:  # in one order: two transactions never wait for each other
            if kind in self._books:
                self._books[kind].store(connection)
        self._note_counts(connection)

    def remember(self) -> None:
        """Once the transaction is committed."""
        for known, new in ((self.writer.people, self.people.found), (self.writer.days, self.days)):
            if len(known) > _CACHED:
                known.clear()
            known.update(new)  # type: ignore[arg-type]

    # --- the checkpoint ---

    def _claim(self, connection: Connection) -> None:
        """First of all, so that of two readers the second waits here, and then finds out."""
        fresh = [portion for portion in self._portions if portion.begin == (0, 0)]
        if fresh:
            connection.execute(
                self.writer.adding[checkpoints],
                [
                    {"source": each.source, "segment": 0, "offset": 0, "stored": 0, "dropped": 0,
                     "changed_at": self.now, "held_since": each.begun_at}
                    for each in fresh
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


BOOKS: Mapping[type, Callable[[Batch], Book]] = {
    Event: Events,
    Transaction: Ledger,
    Exposure: Exposures,
    Feedback: FeedbackBook,
    Failure: Errors,
}
"""Kind of entry → what keeps it, in the order in which they write."""

_PLACE = struct.Struct(">II")
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


def _digest(text_: str, size: int) -> bytes:
    return hashlib.blake2b(text_.encode("utf-8", "replace"), digest_size=size).digest()
