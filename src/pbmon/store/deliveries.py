"""What destinations are still to get: read for the leader, and settled by what became of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Table, and_, bindparam, func, select

from pbmon import catalog, privacy
from pbmon.purposes import Terms, reaches
from pbmon.runtime import Figure
from pbmon.store import schema
from pbmon.store.access import asking
from pbmon.store.engine import reading
from pbmon.store.pseudonyms import epochs
from pbmon.store.tables import dead_letters, deliveries, destinations, events, insert_of, subjects

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine


class Waiting(NamedTuple):
    """An event that a destination is to get. subject, session: as hexadecimal text."""

    event_id: str
    """UUID as text."""
    occurred_at: int
    name: str
    subject: str | None
    session: str | None
    properties: Mapping[str, Any]
    segments: Mapping[str, str]


class State(NamedTuple):
    """How it goes with a destination. Times are µs since the epoch, UTC."""

    destination: str
    waiting: int
    dead: int
    delivered: int
    failures: int
    again_at: int
    fault: str | None
    delivered_at: int | None


class Deliveries:
    """basis, version: of the purpose `sharing`, and of its text. Each method raises StoreError."""

    def __init__(self, engine: Engine, basis: str, version: str | None = None) -> None:
        self._engine = engine
        self._terms = Terms(basis, version)
        self._insert = insert_of(engine)

    def take(self, destination: str, limit: int) -> list[Waiting]:
        """The oldest that wait. Those of people who have withdrawn, or were deleted, are let go
        first: what is handed out may leave."""

        def ask() -> list[Waiting]:
            with self._engine.begin() as connection:
                self._let_go(connection, destination)
                label = epochs(connection).label(destination)
                found = connection.execute(_WAITING, {"destination": destination, "limit": limit})
                return [_waiting(row, label) for row in found]

        return asking(ask)

    def _let_go(self, connection: Connection, destination: str) -> None:
        mine = deliveries.c.destination == destination
        whose = subjects.c.lookup == deliveries.c.lookup
        may = select(subjects.c.lookup).where(whose, *self._may_leave(connection, mine))
        connection.execute(
            deliveries.delete().where(mine, deliveries.c.lookup.is_not(None), ~may.exists())
        )

    def _may_leave(
        self, connection: Connection, mine: ColumnElement[bool]
    ) -> list[ColumnElement[bool]]:
        """Of whom something may leave now."""
        kept: list[ColumnElement[bool]] = [
            subjects.c.deleted_at.is_(None),
            subjects.c.analytics.is_not(False),
        ]
        if self._terms.basis != "opt-in":
            return [*kept, subjects.c.sharing.is_not(False)]
        kept.append(subjects.c.sharing.is_(True))
        if self._terms.version is not None:
            version = subjects.c.sharing_version
            waiting = (
                select(version)
                .distinct()
                .join(deliveries, subjects.c.lookup == deliveries.c.lookup)
            )
            there = connection.execute(waiting.where(mine)).scalars()
            kept.append(version.in_([v for v in there if reaches(v, self._terms.version)]))
        return kept

    def settle(
        self,
        destination: str,
        delivered: Iterable[str],
        dead: Mapping[str, str],
        *,
        again_at: int = 0,
        failures: int = 0,
        fault: str | None = None,
    ) -> None:
        """What became of events that were taken, by id; dead: id → reason. again_at, failures,
        fault: of the destination from here on."""

        def do() -> None:
            done = list(delivered)
            now = schema.now()
            with self._engine.begin() as connection:
                if dead:
                    self._bury(connection, destination, dead, now)
                for start in range(0, len(done), _AT_ONCE):
                    connection.execute(
                        deliveries.delete().where(
                            deliveries.c.destination == destination,
                            deliveries.c.event_id.in_(
                                [_key(key) for key in done[start : start + _AT_ONCE]]
                            ),
                        )
                    )
                row = {
                    "destination": destination, "delivered": len(done), "failures": failures,
                    "again_at": again_at, "fault": fault and fault[:200],
                    "delivered_at": now if done else None,
                }  # fmt: skip
                self._note(connection, row)

        asking(do)

    def _bury(
        self, connection: Connection, destination: str, dead: Mapping[str, str], now: int
    ) -> None:
        """Taken out and put in by what was taken: of what a deletion or a withdrawal has removed
        meanwhile nothing comes back."""
        found = connection.execute(
            deliveries.delete()
            .where(
                deliveries.c.destination == destination,
                deliveries.c.event_id.in_([_key(key) for key in dead]),
            )
            .returning(*deliveries.c)
        )
        rows = [
            {**row, "reason": dead[_text(row["event_id"])][:50], "died_at": now}
            for row in found.mappings()
        ]
        if rows:
            connection.execute(self._insert(dead_letters).on_conflict_do_nothing(), rows)

    def _note(self, connection: Connection, row: Mapping[str, Any]) -> None:
        add = self._insert(destinations)
        connection.execute(
            add.on_conflict_do_update(
                index_elements=["destination"],
                set_={
                    "delivered": destinations.c.delivered + add.excluded.delivered,
                    "failures": add.excluded.failures,
                    "again_at": add.excluded.again_at,
                    "fault": add.excluded.fault,
                    "delivered_at": func.coalesce(
                        add.excluded.delivered_at, destinations.c.delivered_at
                    ),
                },
            ),
            row,
        )

    def close(self) -> None:
        self._engine.dispose()

    def let_go(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._engine.dispose(close=False)

    def states(self) -> list[State]:
        """Of every destination that ever got or was to get anything."""

        def ask() -> list[State]:
            with reading(self._engine).connect() as connection:
                waiting = _counts(connection, deliveries)
                dead = _counts(connection, dead_letters)
                known = {row.destination: row for row in connection.execute(destinations.select())}
            return [
                State(
                    name,
                    waiting.get(name, 0),
                    dead.get(name, 0),
                    *(
                        (row.delivered, row.failures, row.again_at, row.fault, row.delivered_at)
                        if (row := known.get(name)) is not None
                        else (0, 0, 0, None, None)
                    ),
                )
                for name in sorted({*known, *waiting, *dead})
            ]

        return asking(ask)

    def retry(self, destination: str) -> int:
        """Let the dead letters wait again, and the destination be tried at once; how many."""

        def do() -> int:
            kept = [column.name for column in deliveries.columns]
            mine = dead_letters.c.destination == destination
            with self._engine.begin() as connection:
                # Back into a table that a deletion may have emptied: none goes on meanwhile.
                schema.hold_people(connection, changes=True)
                found = connection.execute(
                    select(*(dead_letters.c[name] for name in kept)).where(mine)
                ).mappings()
                rows = [dict(row) for row in found]
                if rows:
                    connection.execute(
                        self._insert(deliveries).on_conflict_do_nothing(),
                        rows,
                    )
                    connection.execute(dead_letters.delete().where(mine))
                connection.execute(
                    destinations.update()
                    .where(destinations.c.destination == destination)
                    .values(again_at=0, failures=0, fault=None)
                )
            return len(rows)

        return asking(do)


def figures(connection: Connection) -> Iterator[Figure]:
    """What waits and what died, of every destination that ever got or was to get anything."""
    waiting, dead = _counts(connection, deliveries), _counts(connection, dead_letters)
    known = connection.execute(select(destinations.c.destination)).scalars()
    for name in sorted({*known, *waiting, *dead}):
        attributes = {catalog.DESTINATION.name: name}
        yield Figure(catalog.DELIVERY_WAITING, waiting.get(name, 0), attributes)
        yield Figure(catalog.DELIVERY_DEAD_LETTERS, dead.get(name, 0), attributes)


_AT_ONCE = 500
_WAITING = (
    select(
        deliveries.c.event_id, deliveries.c.occurred_at, deliveries.c.subject, events.c.name,
        events.c.session, events.c.properties, events.c.segments,
    )
    .join(
        events,
        and_(
            events.c.occurred_at == deliveries.c.occurred_at,
            events.c.event_id == deliveries.c.event_id,
        ),
    )
    .where(deliveries.c.destination == bindparam("destination"))
    .order_by(deliveries.c.occurred_at, deliveries.c.event_id)
    .limit(bindparam("limit"))
)  # fmt: skip


def _counts(connection: Connection, table: Table) -> dict[str, int]:
    query = select(table.c.destination, func.count()).group_by(table.c.destination)
    return {row[0]: row[1] for row in connection.execute(query)}


def _waiting(row: Any, label: str) -> Waiting:
    session = row.session
    if session is not None:  # as another one at each destination
        session = privacy.pseudonym(bytes(session), label).hex()
    return Waiting(
        _text(row.event_id),
        row.occurred_at,
        row.name,
        bytes(row.subject).hex() if row.subject is not None else None,
        session,
        row.properties or {},
        row.segments or {},
    )


def _text(event_id: bytes) -> str:
    return str(uuid.UUID(bytes=bytes(event_id)))


def _key(event_id: str) -> bytes:
    return uuid.UUID(event_id).bytes
