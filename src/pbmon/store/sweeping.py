"""The rows of a person who was deleted, out of every table that `holdings` names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, and_, exists, select, tuple_, union, update

from pbmon.store.holdings import HELD, Fate, Held
from pbmon.store.tables import (
    dead_letters,
    deliveries,
    destinations,
    event_keys,
    events,
    sessions,
)  # fmt: skip

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

_EVENTS = 2000
"""Removed in one transaction, so that nobody waits long for it."""
_IN = 500
"""Values of one IN."""


class Sweep:
    """One transaction. counts: rows that were removed, by table; added to."""

    def __init__(
        self, connection: Connection, lookup: bytes, subject: bytes | None, counts: Counter[str]
    ) -> None:
        self._connection = connection
        self._lookup = lookup
        self._subject = subject
        self._counts = counts

    def some(self, *, by_session: bool) -> tuple[bool, bool]:
        """Remove as much as one transaction should; whether there is more, and whether that may be
        something that leads to the person only by a session of theirs. by_session: likewise."""
        for held in HELD:
            if held.lookup is not None and held.fate is Fate.REMOVED:
                self._remove(held.table, held.lookup == self._lookup)
        if self._subject is None:
            return False, False
        if by_session and self._remove_of_sessions():
            return True, True
        if self._remove_events(events.c.subject == self._subject):
            return True, False
        for held in HELD:
            if held.subject is None or held.table is events:
                continue
            mine = held.subject == self._subject
            if held.fate is Fate.UNLINKED:
                self._unlink(held, mine)
            else:
                self._remove(held.table, mine)
        return False, False

    def _remove_of_sessions(self) -> bool:
        """What their sessions did while nobody was logged in; whether there is more."""
        assert self._subject is not None
        for part in parts(sessions_of(self._connection, self._subject)):
            nobodys = and_(events.c.session.in_(part), events.c.subject.is_(None))
            if self._remove_events(nobodys, are_nobodys=True):
                return True
            for held in HELD:
                if held.by_session and held.subject is not None:
                    self._remove(held.table, held.subject.in_(part))
                elif held.session is not None and held.table is not events:
                    assert held.subject is not None
                    self._remove(held.table, held.session.in_(part), held.subject.is_(None))
        return False

    def _remove_events(self, mine: ColumnElement[bool], *, are_nobodys: bool = False) -> bool:
        """Some of them and what hangs on them; whether there are more. are_nobodys: no row of
        `deliveries` says whose they are."""
        bound = self._connection.execute(
            select(events.c.occurred_at)
            .where(mine)
            .order_by(events.c.occurred_at)
            .offset(_EVENTS - 1)
            .limit(1)
        ).scalar()
        upto = [events.c.occurred_at <= bound] if bound is not None else []
        gone = self._connection.execute(
            events.delete().where(mine, *upto).returning(events.c.occurred_at, events.c.event_id)
        ).all()
        self._count(events, len(gone))
        for part in parts(sorted((row.occurred_at, bytes(row.event_id)) for row in gone)):
            self._remove(event_keys, event_keys.c.event_id.in_([key for _, key in part]))
            if are_nobodys:
                self._remove_deliveries(part)
        return bound is not None

    def _remove_deliveries(self, keys: Sequence[tuple[int, bytes]]) -> None:
        for table in (deliveries, dead_letters):
            of = table.c.destination
            for name in self._destinations(table):
                self._remove(
                    table,
                    of == name,
                    table.c.occurred_at.between(keys[0][0], keys[-1][0]),
                    tuple_(table.c.occurred_at, table.c.event_id).in_(keys),
                )

    def _destinations(self, table: Table) -> list[str]:
        known = union(select(destinations.c.destination), select(table.c.destination).distinct())
        return sorted(self._connection.execute(known).scalars())

    def _unlink(self, held: Held, mine: ColumnElement[bool]) -> None:
        assert held.subject is not None
        done = self._connection.execute(
            update(held.table).where(mine).values({held.subject.name: None})
        )
        self._count(held.table, done.rowcount)

    def _remove(self, table: Table, *mine: ColumnElement[bool]) -> None:
        self._count(table, self._connection.execute(table.delete().where(*mine)).rowcount)

    def _count(self, table: Table, rows: int) -> None:
        if rows > 0:
            self._counts[table.name] += rows


def sessions_of(connection: Connection, subject: bytes) -> list[bytes]:
    """Pseudonyms of the sessions that turned out to be somebody's, and of those in which they were
    known; but none that is another's."""
    linked = select(sessions.c.session).where(sessions.c.subject == subject)
    of_another = exists().where(
        sessions.c.session == events.c.session, sessions.c.subject != subject
    )
    used = select(events.c.session).where(
        events.c.subject == subject, events.c.session.is_not(None), ~of_another
    )
    return sorted(bytes(each) for each in connection.execute(union(linked, used)).scalars())


def parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _IN):
        yield values[start : start + _IN]
