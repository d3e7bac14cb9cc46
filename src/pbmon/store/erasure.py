"""The deletion of a person: a tombstone first, then what the tables hold, then what others have.

From the tombstone on nothing of the person is stored any more, and their key is gone. What follows
is written down beside it, place by place, so that whoever comes after a kill goes on with it.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, func, select, update

from pbmon import catalog, erasure, privacy
from pbmon.erasure import DISK, JOURNALS, OUTBOX, OWN_PLACES, Receipt
from pbmon.moments import instant
from pbmon.runtime import Figure
from pbmon.store import people, pseudonyms, schema, sweeping, vacuum
from pbmon.store.access import asking
from pbmon.store.engine import reading
from pbmon.store.tables import checkpoints, deletions, insert_of, subjects
from pbmon.store.tables import destinations as had

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_SILENT = 2 * schema.HOUR
"""A journal that nobody has seen for so long went with its host: its shipper says so every hour."""

_TARGET = 16
"""Bytes of a pseudonym."""

_WHY = {
    erasure.STORE: "its tables are being emptied",
    JOURNALS: "processes still hold a journal of before",
    OUTBOX: "rows of before wait there",
    DISK: "pages of the database may hold it until `pbmon privacy vacuum`, or the job of that name",
}


class Asked(NamedTuple):
    """What a destination is to delete. targets: all pseudonyms that the person has had there,
    hexadecimal."""

    receipt_id: bytes
    targets: tuple[str, ...]


class Outstanding(NamedTuple):
    """Deletions that are not done in a place. since: of the oldest, µs since the epoch."""

    place: str
    deletions: int
    since: int
    fault: str | None


class Deletions:
    """pepper: from outside, where there is one. Each method raises StoreError."""

    def __init__(self, engine: Engine, pepper: bytes | None = None) -> None:
        self._engine = engine
        self._pepper = pepper
        self._insert = insert_of(engine)

    def begin(
        self, user_id: str, destinations: Iterable[str], *, has_outbox: bool
    ) -> tuple[bytes, bool]:
        """The tombstone; id of the receipt, and whether it was made now. destinations: that may get
        events of the person, beside those that have got any."""

        def do() -> tuple[bytes, bool]:
            with self._engine.begin() as connection:
                schema.hold_people(connection, changes=True)
                lookup = pseudonyms.names(connection, self._pepper, 1).user(user_id)
                known = _receipt_of(connection, lookup)
                if known is not None:
                    return known, False
                places: dict[str, bytes | None] = {JOURNALS: None, DISK: None}
                if has_outbox:
                    places[OUTBOX] = None
                return self._entomb(connection, lookup, places, destinations), True

        return asking(do)

    def _entomb(
        self,
        connection: Connection,
        lookup: bytes,
        places: dict[str, bytes | None],
        destinations: Iterable[str],
    ) -> bytes:
        now = schema.clock(connection)
        connection.execute(
            self._insert(subjects).on_conflict_do_nothing(),
            {"lookup": lookup, "created_at": now},
        )
        mine = subjects.c.lookup == lookup
        key = connection.execute(select(subjects.c.key).where(mine)).scalar_one()
        places[erasure.STORE] = None
        if key is not None:
            got = select(had.c.destination).where(had.c.delivered > 0)
            names = {*destinations, *connection.execute(got).scalars()}
            places[erasure.STORE] = privacy.pseudonym(bytes(key), pseudonyms.STORE)
            epochs = pseudonyms.epochs(connection)
            for name in names:
                labels = epochs.labels(name)
                places[name] = b"".join(privacy.pseudonym(bytes(key), each) for each in labels)
        receipt_id = uuid.uuid4().bytes
        connection.execute(
            deletions.insert(),
            [
                {"receipt_id": receipt_id, "place": place, "lookup": lookup, "requested_at": now,
                 "target": target, "attempts": 0, "due_at": now}
                for place, target in sorted(places.items())
            ],
        )  # fmt: skip
        connection.execute(update(subjects).where(mine).values(deleted_at=now, **people.FORGOTTEN))
        schema.note_change_of_people(connection)
        return receipt_id

    # --- the tables ---

    def sweep(self, receipt_id: bytes) -> Mapping[str, int] | None:
        """Empty the tables, some thousand events in each transaction; what was removed, by table,
        if that was finished now. Whoever else does the same waits, and finds nothing more."""
        by_session = True
        while True:
            state = asking(lambda by=by_session: self._sweep(receipt_id, by_session=by))  # type: ignore[misc]
            if state.is_done:
                if state.counts is not None:
                    asking(lambda: vacuum.truncate_log(self._engine))
                return state.counts
            by_session = state.by_session

    def _sweep(self, receipt_id: bytes, *, by_session: bool) -> _Swept:
        mine = and_(deletions.c.receipt_id == receipt_id, deletions.c.place == erasure.STORE)
        with self._engine.begin() as connection:
            schema.hold_people(connection)
            row = connection.execute(select(deletions).where(mine).with_for_update()).one_or_none()
            if row is None or row.finished_at is not None:
                return _Swept(is_done=True, counts=None, by_session=False)
            counts = Counter(row.counts or {})
            subject = bytes(row.target) if row.target is not None else None
            sweep = sweeping.Sweep(connection, bytes(row.lookup), subject, counts)
            more, by_session = sweep.some(by_session=by_session)
            done = {} if more else {"finished_at": schema.now(), "target": None}
            connection.execute(
                update(deletions)
                .where(mine)
                .values(counts=dict(counts), attempts=deletions.c.attempts + 1, **done)
            )
        return _Swept(is_done=not more, counts=dict(counts), by_session=by_session)

    def unswept(self) -> list[bytes]:
        """Receipts of which the tables are not empty yet, as after a kill."""
        return [each.receipt_id for each in self._due(erasure.STORE, 100)]

    # --- what waits on hosts ---

    def newest_waiting(self) -> int | None:
        """When the newest deletion was asked for that some journal or outbox may still hold."""
        query = select(func.max(deletions.c.requested_at)).where(
            deletions.c.place.in_((JOURNALS, OUTBOX)), deletions.c.finished_at.is_(None)
        )
        found: int | None = self._scalar(query)
        return found

    def note_cleared(self, sources: Collection[str], at: int) -> None:
        """Nothing that was written into these journals before this time is on the disk any more."""

        def do() -> None:
            with self._engine.begin() as connection:
                connection.execute(
                    update(checkpoints)
                    .where(
                        checkpoints.c.source.in_(sorted(sources)),
                        func.coalesce(checkpoints.c.held_since, 0) < at,
                    )
                    .values(held_since=at)
                )
                connection.execute(
                    update(deletions)
                    .where(_waits(JOURNALS), deletions.c.requested_at <= at)
                    .values(attempts=deletions.c.attempts + 1)
                )
                _settle_journals(connection)

        asking(do)

    def settle_journals(self) -> None:
        """As far as shippers have said that theirs are cleared."""

        def do() -> None:
            with self._engine.begin() as connection:
                _settle_journals(connection)

        asking(do)

    def note_outbox(self, at: int) -> None:
        """Nothing that was there before this time waits in the outbox any more."""
        self._finish(OUTBOX, deletions.c.requested_at <= at)

    # --- the disk ---

    def waits_for_disk(self) -> int | None:
        """When the newest deletion was asked for whose rows are gone, but not from the disk."""
        swept = deletions.alias()
        query = (
            select(func.max(deletions.c.requested_at))
            .join(swept, swept.c.receipt_id == deletions.c.receipt_id)
            .where(
                _waits(DISK), swept.c.place == erasure.STORE, swept.c.finished_at.is_not(None)
            )
        )  # fmt: skip
        found: int | None = self._scalar(query)
        return found

    def note_vacuumed(self, at: int) -> None:
        """The files of the database were rewritten after all rows of deletions up to this one were
        gone."""
        unswept = (
            select(deletions.c.receipt_id)
            .where(deletions.c.place == erasure.STORE, deletions.c.finished_at.is_(None))
        )  # fmt: skip
        self._finish(DISK, deletions.c.requested_at <= at, deletions.c.receipt_id.not_in(unswept))

    # --- destinations ---

    def asked_of(self, destination: str, limit: int) -> list[Asked]:
        """What is due there, the oldest first."""
        return self._due(destination, limit)

    def settle(
        self, destination: str, done: Collection[bytes], again: Collection[bytes], *, due_at: int,
        fault: str,
    ) -> None:  # fmt: skip
        """What became of deletions that were asked for there: of those that are done the pseudonym
        goes; the others are due then."""

        def do() -> None:
            at = deletions.c.place == destination
            with self._engine.begin() as connection:
                connection.execute(
                    update(deletions)
                    .where(at, deletions.c.receipt_id.in_(sorted(done)))
                    .values(
                        finished_at=schema.now(), target=None, fault=None,
                        attempts=deletions.c.attempts + 1,
                    )
                )  # fmt: skip
                connection.execute(
                    update(deletions)
                    .where(at, deletions.c.receipt_id.in_(sorted(again)))
                    .values(due_at=due_at, fault=fault[:200], attempts=deletions.c.attempts + 1)
                )

        asking(do)

    def destinations(self) -> list[tuple[str, int]]:
        """Where deletions are due now, and how often the one was tried that was tried most."""
        query = (
            select(deletions.c.place, func.max(deletions.c.attempts))
            .where(
                deletions.c.place.not_in(OWN_PLACES), deletions.c.finished_at.is_(None),
                deletions.c.due_at <= schema.now(),
            )
            .group_by(deletions.c.place)
            .order_by(deletions.c.place)
        )  # fmt: skip
        return [(place, attempts) for place, attempts in self._rows(query)]

    # --- what is said of it ---

    def receipt(self, receipt_id: bytes) -> Receipt:
        found = self._rows(select(deletions).where(deletions.c.receipt_id == receipt_id))
        of_store = next(row for row in found if row.place == erasure.STORE)
        return Receipt(
            receipt_id=str(uuid.UUID(bytes=receipt_id)),
            deleted_at=instant(of_store.requested_at),
            counts=dict(sorted((of_store.counts or {}).items())),
            outstanding={
                row.place: row.fault or _WHY.get(row.place, "has not been asked yet")
                for row in found
                if row.finished_at is None
            },
        )

    def outstanding(self) -> list[Outstanding]:
        """By place."""
        query = (
            select(
                deletions.c.place,
                func.count(),
                func.min(deletions.c.requested_at),
                func.max(deletions.c.fault),
            )
            .where(deletions.c.finished_at.is_(None))
            .group_by(deletions.c.place)
            .order_by(deletions.c.place)
        )
        return [Outstanding(*row) for row in self._rows(query)]

    # --- asking ---

    def _due(self, place: str, limit: int) -> list[Asked]:
        query = (
            select(deletions.c.receipt_id, deletions.c.target)
            .where(_waits(place), deletions.c.due_at <= schema.now())
            .order_by(deletions.c.due_at)
            .limit(limit)
        )
        return [
            Asked(bytes(receipt_id), tuple(_parted(bytes(target or b""))))
            for receipt_id, target in self._rows(query)
        ]

    def _finish(self, place: str, *conditions: Any) -> None:
        def do() -> None:
            with self._engine.begin() as connection:
                connection.execute(
                    update(deletions)
                    .where(_waits(place), *conditions)
                    .values(finished_at=schema.now())
                )

        asking(do)

    def _rows(self, query: Any) -> Sequence[Any]:
        def ask() -> Sequence[Any]:
            with reading(self._engine).connect() as connection:
                return connection.execute(query).all()

        return asking(ask)

    def _scalar(self, query: Any) -> Any:
        return self._rows(query)[0][0]

    def close(self) -> None:
        self._engine.dispose()

    def let_go(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._engine.dispose(close=False)


class _Swept(NamedTuple):
    """Of one transaction; counts: none where another has finished it."""

    is_done: bool
    counts: Mapping[str, int] | None
    by_session: bool


def _receipt_of(connection: Connection, lookup: bytes) -> bytes | None:
    query = select(deletions.c.receipt_id).where(deletions.c.lookup == lookup).limit(1)
    found = connection.execute(query).scalar()
    return bytes(found) if found is not None else None


def _parted(targets: bytes) -> Iterator[str]:
    for start in range(0, len(targets), _TARGET):
        yield targets[start : start + _TARGET].hex()


def _waits(place: str) -> Any:
    return and_(deletions.c.place == place, deletions.c.finished_at.is_(None))


def _settle_journals(connection: Connection) -> None:
    """Done is a deletion of before the oldest that any journal holds. One that a shipper has never
    stored anything of is not known here, so at least one shipper must have looked."""
    now = schema.now()
    oldest = connection.execute(
        select(func.min(func.coalesce(checkpoints.c.held_since, 0))).where(
            checkpoints.c.changed_at >= now - _SILENT
        )
    ).scalar()
    connection.execute(
        update(deletions)
        .where(
            _waits(JOURNALS),
            deletions.c.attempts > 0,
            deletions.c.requested_at <= (oldest if oldest is not None else now),
        )
        .values(finished_at=now)
    )


def figures(connection: Connection) -> Iterator[Figure]:
    """Deletions that are not done, by place; 0 where there were any."""
    query = select(
        deletions.c.place, func.count().filter(deletions.c.finished_at.is_(None))
    ).group_by(deletions.c.place)
    for place, count in sorted(connection.execute(query).all()):
        yield Figure(catalog.DELETIONS_OUTSTANDING, count, {catalog.PLACE.name: place})
