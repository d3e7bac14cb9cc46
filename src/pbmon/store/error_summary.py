"""What the store says of errors: the most frequent ones, whom they met, and since which release."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, or_, select

from pbmon.alerting.rules import SLOT
from pbmon.errors import ErrorSummary
from pbmon.moments import instant
from pbmon.store import schema
from pbmon.store.errors import chunks
from pbmon.store.tables import error_hours, error_people, error_slots, errors, marks

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection


_Counts = dict[bytes, int]


def read(
    connection: Connection, limit: int, since: int | None, release: str | None
) -> list[ErrorSummary]:
    """The most frequent ones. since: µs since the epoch, rounded down to ten seconds, or to the
    hour where it is longer ago than a day or there is a release; that one is counted alone."""
    counts = _counts(since, release).subquery()
    of_each = errors.join(counts, counts.c.fingerprint == errors.c.fingerprint)
    query = select(errors, counts.c.counted).select_from(of_each)
    order = (counts.c.counted.desc(), errors.c.fingerprint)
    rows = connection.execute(query.order_by(*order).limit(limit)).all()
    named = [bytes(row.fingerprint) for row in rows]
    users = _users(connection, named, since)
    newest = _of_newest_release(connection, named)
    return [_summary(row, users, newest) for row in rows]


def _counts(since: int | None, release: str | None) -> Any:
    """Fingerprint and how many."""
    if since is None and release is None:
        return select(errors.c.fingerprint, errors.c.errors.label("counted"))
    conditions: list[ColumnElement[bool]] = []
    table, column, width = error_hours, error_hours.c.hour, schema.HOUR
    if since is not None and release is None and since > schema.now() - schema.DAY:
        table, column, width = error_slots, error_slots.c.slot, SLOT
    if since is not None:
        conditions.append(column >= since // width * width)
    if release is not None:
        conditions.append(error_hours.c.release == release)
    query = select(table.c.fingerprint, func.sum(table.c.errors).label("counted"))
    return query.where(*conditions).group_by(table.c.fingerprint)


def _users(connection: Connection, named: Sequence[bytes], since: int | None) -> _Counts:
    people = error_people.c
    found: _Counts = {}
    for some in chunks(named):
        query = select(people.fingerprint, func.count()).where(people.fingerprint.in_(some))
        if since is not None:
            query = query.where(people.last_at >= since)
        found.update(_pairs(connection.execute(query.group_by(people.fingerprint)).all()))
    return found


def _of_newest_release(connection: Connection, named: Sequence[bytes]) -> _Counts | None:
    """How many of the release that was deployed last, or else that an error was seen in last; what
    came without a release counts from that deploy on."""
    deploy = connection.execute(
        select(marks.c.name, marks.c.at).where(marks.c.kind == "deploy")
        .order_by(marks.c.at.desc()).limit(1)
    ).first()  # fmt: skip
    hours = error_hours.c
    if deploy is not None:
        begin = deploy.at // schema.HOUR * schema.HOUR
        is_of_it = or_(hours.release == deploy.name, and_(hours.release == "", hours.hour >= begin))
    else:
        last = select(errors.c.last_release).where(errors.c.last_release.is_not(None))
        newest = connection.execute(last.order_by(errors.c.last_at.desc()).limit(1)).scalar()
        if newest is None:
            return None
        is_of_it = hours.release == newest
    found: _Counts = {}
    for some in chunks(named):
        query = select(hours.fingerprint, func.sum(hours.errors))
        query = query.where(hours.fingerprint.in_(some), is_of_it).group_by(hours.fingerprint)
        found.update(_pairs(connection.execute(query).all()))
    return found


def _pairs(rows: Sequence[Any]) -> _Counts:
    return {bytes(key): int(count) for key, count in rows}


def _summary(row: Any, users: _Counts, newest: _Counts | None) -> ErrorSummary:
    key = bytes(row.fingerprint)
    return ErrorSummary(
        fingerprint=key.hex(),
        error_type=row.error_type,
        place=row.place,
        route=row.route,
        errors=int(row.counted),
        users=users.get(key, 0),
        first_at=instant(row.first_at),
        last_at=instant(row.last_at),
        first_release=row.first_release,
        last_release=row.last_release,
        errors_since_release=newest.get(key, 0) if newest is not None else None,
        trace_id=bytes(row.trace_id).hex() if row.trace_id is not None else None,
    )
