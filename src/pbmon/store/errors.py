"""Errors: how occurrences are kept, and what the store says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import case, func, select, tuple_

from pbmon.alerting.rules import SLOT
from pbmon.errors import OTHER
from pbmon.spool.entries import Failure
from pbmon.store.schema import HOUR
from pbmon.store.tables import error_hours, error_people, error_slots, errors, event_keys

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pbmon.store.writer import Batch

MAX_FINGERPRINTS = 10_000
"""That a store tells apart; what is new beyond them is one, errors.OTHER."""

MAX_PEOPLE = 10_000
"""Whom a fingerprint met, of whom is known who they are."""

_CHUNK = 400
"""Values in one condition."""

_TYPE, _PLACE, _ROUTE, _RELEASE = 200, 300, 300, 100
"""Characters of the columns."""


class _Row(NamedTuple):
    """Of `errors`, in the order of its columns."""

    fingerprint: bytes
    error_type: str
    place: str
    route: str | None
    frames: str | None
    trace_id: bytes | None
    errors: int
    first_at: int
    last_at: int
    first_release: str | None
    last_release: str | None

    def joined(self, other: _Row) -> _Row:
        """One row of two. Of two at the same time this one is the first, the other the last."""
        first = other if other.first_at < self.first_at else self
        last = other if other.last_at >= self.last_at else self
        before = self if last is other else other
        return self._replace(
            route=last.route or before.route,
            frames=self.frames or other.frames,
            trace_id=last.trace_id or before.trace_id,
            errors=self.errors + other.errors,
            first_at=first.first_at,
            last_at=last.last_at,
            first_release=first.first_release,
            last_release=last.last_release,
        )


class Errors:
    """The store.writer.Book of errors. Each is counted, also that of somebody who has not agreed or
    was deleted: then it is nobody's."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._items: list[tuple[str, bytes, bool, Failure]] = []
        """Source, key, whether it may come again under it, and content."""

    def add(self, source: str, key: bytes, entry: Failure, *, again: bool) -> None:
        self._items.append((source, key, again, entry))

    def people(self) -> Iterable[tuple[str, bool | None]]:
        return [(entry.user_id, None) for *_, entry in self._items if entry.user_id is not None]

    def store(self, connection: Connection) -> None:
        kept = self._without_duplicates(connection)
        if not kept:
            return
        named = {bytes.fromhex(entry.fingerprint) for entry in kept}
        beyond = self._beyond(connection, named)
        rows: dict[bytes, _Row] = {}
        hours: Counter[tuple[int, bytes, str]] = Counter()
        slots: Counter[tuple[int, bytes]] = Counter()
        people: dict[tuple[bytes, bytes], int] = {}
        for entry in kept:
            row = _row(entry, beyond)
            known = rows.get(row.fingerprint)
            rows[row.fingerprint] = row if known is None else known.joined(row)
            at = entry.occurred_at
            hours[at // HOUR * HOUR, row.fingerprint, row.last_release or ""] += entry.errors
            slots[at // SLOT * SLOT, row.fingerprint] += entry.errors
            subject = self._subject(entry)
            if subject is not None:
                whom = (row.fingerprint, subject)
                people[whom] = max(at, people.get(whom, at))
        # In one order in every transaction: two of them never wait for each other.
        self._upsert(connection, errors, [row._asdict() for _, row in sorted(rows.items())])
        self._upsert(connection, error_hours, [
            {"hour": hour, "fingerprint": key, "release": release, "errors": count}
            for (hour, key, release), count in sorted(hours.items())
        ])  # fmt: skip
        self._upsert(connection, error_slots, [
            {"slot": slot, "fingerprint": key, "errors": count}
            for (slot, key), count in sorted(slots.items())
        ])  # fmt: skip
        self._upsert(connection, error_people, [
            {"fingerprint": key, "subject": subject, "last_at": at}
            for (key, subject), at in sorted(_room_for(connection, people).items())
        ])  # fmt: skip

    def _without_duplicates(self, connection: Connection) -> list[Failure]:
        """Those that did not come before."""
        given = {key: entry.occurred_at for _, key, again, entry in self._items if again}
        fresh: set[bytes] = set()
        if given:
            found = connection.execute(
                self._batch.writer.adding[event_keys].returning(event_keys.c.event_id),
                [{"event_id": key, "occurred_at": at} for key, at in sorted(given.items())],
            )
            fresh = {bytes(key) for key in found.scalars()}
        kept = []
        for source, key, again, entry in self._items:
            if again and key not in fresh:
                self._batch.drop(source, "duplicate")
                continue
            fresh.discard(key)  # a second one in this transaction is none
            self._batch.keep(source)
            kept.append(entry)
        return kept

    def _beyond(self, connection: Connection, named: set[bytes]) -> set[bytes]:
        """Those fingerprints for which there is no room any more."""
        known: set[bytes] = set()
        for some in chunks(sorted(named)):
            query = select(errors.c.fingerprint).where(errors.c.fingerprint.in_(some))
            known.update(map(bytes, connection.execute(query).scalars()))
        fresh = sorted(named - known)
        if not fresh:
            return set()
        count = connection.execute(select(func.count()).select_from(errors)).scalar_one()
        return set(fresh[max(0, MAX_FINGERPRINTS - count) :])

    def _subject(self, entry: Failure) -> bytes | None:
        """The pseudonym of whom it met; none for somebody of whom nothing may be kept."""
        writer, people = self._batch.writer, self._batch.people
        if entry.user_id is not None:
            person = people.person(entry.user_id)
            may_keep = not person.is_deleted and people.may_keep(person, None, entry.occurred_at)
            return person.subject if may_keep else None
        if entry.session_id is not None and writer.basis != "opt-in":
            return writer.session(entry.session_id)
        return None

    def _upsert(self, connection: Connection, table: Any, rows: list[dict[str, Any]]) -> None:
        if rows:
            add = self._batch.writer.insert(table)
            statement = add.on_conflict_do_update(
                index_elements=list(table.primary_key), set_=_changes(table, add.excluded)
            )
            # RETURNING makes SQLAlchemy send many rows in one statement.
            connection.execute(statement.returning(table.c.fingerprint), rows).all()


def _changes(table: Any, new: Any) -> dict[str, Any]:
    """What becomes of the row that is there: for `errors` as _Row.joined() says."""
    there = table.c
    if table is error_people:
        return {"last_at": case((new.last_at > there.last_at, new.last_at), else_=there.last_at)}
    summed = {"errors": there.errors + new.errors}
    if table is not errors:
        return summed
    is_first, is_last = new.first_at < there.first_at, new.last_at >= there.last_at

    def of_last(name: str) -> Any:
        both = (new[name], there[name])
        return case((is_last, func.coalesce(*both)), else_=func.coalesce(*reversed(both)))

    return {
        **summed,
        "route": of_last("route"),
        "frames": func.coalesce(there.frames, new.frames),
        "trace_id": of_last("trace_id"),
        "first_at": case((is_first, new.first_at), else_=there.first_at),
        "last_at": case((is_last, new.last_at), else_=there.last_at),
        "first_release": case((is_first, new.first_release), else_=there.first_release),
        "last_release": case((is_last, new.last_release), else_=there.last_release),
    }


def _row(entry: Failure, beyond: set[bytes]) -> _Row:
    key, error_type, place = entry.fingerprint, entry.error_type, entry.place
    is_other = bytes.fromhex(key) in beyond or key == OTHER.key
    if is_other:
        key, error_type, place = OTHER
    release = entry.release[:_RELEASE] if entry.release is not None else None
    return _Row(
        bytes.fromhex(key),
        error_type[:_TYPE],
        place[:_PLACE],
        entry.route[:_ROUTE] if entry.route is not None and not is_other else None,
        entry.frames if not is_other else None,
        bytes.fromhex(entry.trace_id) if entry.trace_id is not None else None,
        entry.errors,
        entry.occurred_at,
        entry.occurred_at,
        release,
        release,
    )


def _room_for(
    connection: Connection, people: dict[tuple[bytes, bytes], int]
) -> dict[tuple[bytes, bytes], int]:
    """Those who are known already, and of the others as many as there is room for."""
    known: set[tuple[bytes, bytes]] = set()
    pair = tuple_(error_people.c.fingerprint, error_people.c.subject)
    for some in chunks(sorted(people)):
        query = select(error_people.c.fingerprint, error_people.c.subject).where(pair.in_(some))
        known.update((bytes(key), bytes(who)) for key, who in connection.execute(query))
    fresh = sorted(people.keys() - known)
    room: dict[bytes, int] = {}
    count = func.count().label("people")
    for some in chunks(sorted({key for key, _ in fresh})):
        key = error_people.c.fingerprint
        query = select(key, count).where(key.in_(some)).group_by(key)
        room.update((bytes(row[0]), MAX_PEOPLE - row[1]) for row in connection.execute(query))
    kept = {whom: people[whom] for whom in known}
    for whom in fresh:
        left = room.get(whom[0], MAX_PEOPLE)
        if left > 0:
            kept[whom] = people[whom]
        room[whom[0]] = left - 1
    return kept


def chunks(values: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (values[at : at + _CHUNK] for at in range(0, len(values), _CHUNK))


def forget(connection: Connection, before: int, slots_before: int) -> None:
    """Delete what was not seen since `before`, and what alerts are judged by before
    `slots_before`; µs since the epoch."""
    old = select(errors.c.fingerprint).where(errors.c.last_at < before)
    # In the order in which a writer takes them.
    locked = connection.execute(old.order_by(errors.c.fingerprint).with_for_update()).scalars()
    for some in chunks(locked.all()):
        connection.execute(errors.delete().where(errors.c.fingerprint.in_(some)))
    connection.execute(error_hours.delete().where(error_hours.c.hour < before))
    connection.execute(error_slots.delete().where(error_slots.c.slot < slots_before))
    connection.execute(error_people.delete().where(error_people.c.last_at < before))
